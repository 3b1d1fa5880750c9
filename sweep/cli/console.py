"""Print so that no text acts (names in a model's file may hold control codes of a terminal) and no word is broken."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from sweep.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

_WIDEST = 118  # columns of running text: longer lines are hard to read
_NARROWEST = 15  # columns in which a cell may be broken into lines
_NOTHING = ("", "-")
_READABLE = 30  # columns that a text beside a name needs
_GAP = 3  # columns between two cells
_INDENT = "  "


class Terminal(Console):
    """Print as rich's console does, with control codes shown as text unless rich itself sends them."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the segments of `renderable`, made printable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def print_rows(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    fold: str | None = None,
) -> None:
    """Print rows as a table in which one column may take several lines; on a narrow terminal as a paragraph a row.

    Args:
        console: where to print.
        heads: heads of the columns; one in which no row has anything is left out.
        rows: cells, plain text; ``-`` stands for nothing.
        right: heads of the columns that are aligned to the right.
        fold: head of the column that may take several lines; None is the last one.
    """
    shown = [number for number in range(len(heads)) if any(row[number] not in _NOTHING for row in rows) or not rows]
    folding = heads[shown[-1]] if fold is None else fold
    widths = {heads[number]: max(map(cell_len, (heads[number], *(row[number] for row in rows)))) for number in shown}
    widths[folding] = min(widths[folding], _NARROWEST)
    if sum(widths.values()) + _GAP * len(widths) > console.width:
        for row in rows:
            cells = (f"{heads[number]} {row[number]}".strip() for number in shown if row[number] not in _NOTHING)
            lines = textwrap.wrap(", ".join(cells), max(console.width - 1, 1), subsequent_indent=_INDENT)
            console.print(escape("\n".join(lines)), highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number in shown:
        head = heads[number]
        justify: Literal["left", "right"] = "right" if head in right else "left"
        table.add_column(head, justify=justify, no_wrap=head != folding, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[number]) for number in shown))
    console.print(table)


def fitted(text: str) -> str:
    """Return a text for the terminal, its lines broken between words; as it is where a program reads it."""
    if not sys.stdout.isatty():
        return text
    return wrapped(text, shutil.get_terminal_size().columns - 1)


def wrapped(text: str, width: int) -> str:
    """Return a text in lines of at most `width` columns, broken between words.

    Lines that begin at the margin are paragraphs and are filled anew. An indented line is a row of a list, or an
    example; where it has a gap of two blanks or more, its further lines stand below what follows the gap.
    """
    width = max(width, _NARROWEST)
    blocks: list[str] = []
    joined = False  # whether the next line at the margin belongs to the paragraph above it
    for line in text.splitlines():
        if joined and line and not line.startswith(" ") and not line.endswith(":"):
            blocks[-1] += f" {line}"
        else:
            blocks.append(line)
        joined = bool(line) and not line.startswith(" ") and not line.endswith(":")
    return "\n".join(_filled(block, width) for block in blocks)


def _filled(line: str, width: int) -> str:
    if not line.startswith(" "):
        return textwrap.fill(line, min(width, _WIDEST), break_on_hyphens=False)
    if len(line) <= width:
        return line
    own = len(line) - len(line.lstrip())
    gap = re.match(r"\s+\S.*?\s{2,}(?=\S)", line)
    start = gap.end() if gap and width - gap.end() >= _READABLE else own + 2
    if gap and start != gap.end():  # the text begins on a line of its own
        head = textwrap.fill(line[: gap.end()].rstrip(), width, subsequent_indent=" " * start, break_on_hyphens=False)
        rest = line[gap.end() :]
        return f"{head}\n" + textwrap.fill(
            rest, width, initial_indent=" " * start, subsequent_indent=" " * start, break_on_hyphens=False
        )
    return textwrap.fill(line, width, subsequent_indent=" " * start, break_on_hyphens=False, replace_whitespace=False)

"""Print the outcome of a sweep on the terminal.

A terminal that is too narrow for the table gets it in parts, one below the other, each with the marks and the axes:
no column is squeezed, and no mark is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from sweep.report.columns import figures
from sweep.report.outcome_lines import Footnotes, below_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.report.columns import Column
    from sweep.report.recommendation import Answer
    from sweep.spec import Slo
    from sweep.storage import Record

_UNBOUNDED = 100_000  # columns of a console on which every table fits


def print_outcome(console: Console, records: Sequence[Record], recommendation: Answer, slo: Slo | None) -> None:
    """Print one row per variant, with the recommended one marked, then the recommendation in words.

    Args:
        console: where to print.
        records: records of the sweep, in the order of the rows.
        recommendation: answer of the sweep.
        slo: latency objective, which adds a column; None without one.
    """
    footnotes = Footnotes(records)
    columns = [column for column in figures(records, recommendation, slo) if column.on_terminal]
    for part in _parts(console, records, recommendation, footnotes, columns):
        console.print(_table(records, recommendation, footnotes, part))
    for number, note in enumerate(footnotes.texts, 1):
        _print_line(console, note, mark=f"{'*' * number} ")
    for line in below_table(records):
        _print_line(console, line)
    _print_line(console, recommendation.text, before="\n", style="bold")
    if recommendation.settings:
        console.print(escape(recommendation.settings), highlight=False, soft_wrap=True)


def _parts(
    console: Console,
    records: Sequence[Record],
    recommendation: Answer,
    footnotes: Footnotes,
    columns: Sequence[Column],
) -> list[list[Column]]:
    """Split the columns so that each part fits the console beside the marks and the axes."""

    def fits(part: Sequence[Column]) -> bool:
        table = _table(records, recommendation, footnotes, part)
        options = console.options.update(width=_UNBOUNDED)
        return Measurement.get(console, options, table).maximum <= console.width

    parts: list[list[Column]] = [[]]
    for column in columns:
        if parts[-1] and not fits([*parts[-1], column]):
            parts.append([])
        parts[-1].append(column)
    return parts


def _table(records: Sequence[Record], recommendation: Answer, footnotes: Footnotes, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True, min_width=1)
    for axis in footnotes.axes:
        table.add_column(axis.column, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="left" if column.name == "status" else "right", no_wrap=True)
    for record in records:
        axis_cells = (
            footnotes.cell(record, axis)
            + (",".join("*" * number for number in footnotes.numbers(record)) if footnotes.is_marked(axis) else "")
            for axis in footnotes.axes
        )
        table.add_row(
            recommendation.mark(record),
            *map(escape, axis_cells),
            *(escape(column.text(record)) for column in columns),
        )
    return table


def _print_line(console: Console, text: str, *, mark: str = "", before: str = "", style: str | None = None) -> None:
    """Print a line: whole where a program reads it, broken between words and indented below its mark on a terminal."""
    console.print(before, end="")
    if not console.is_terminal:
        console.print(f"{mark}{escape(text)}", highlight=False, soft_wrap=True, style=style)
        return
    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(mark, escape(text))
    console.print(Padding(grid, 0), highlight=False, style=style)

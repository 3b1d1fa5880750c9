"""Write a comparison as Markdown, for the comment of a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import printable_line, shorten
from sweep.report.compare.figures import FIGURES, PEAK, known
from sweep.report.compare.rows import Outcome
from sweep.report.compare.terminal import MARKS, RATE_HEADS, rate_cells, ratio_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.figures import Figure
    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import Row, RunComparison

_MOST_CHARACTERS = 65_000  # a comment takes 65,536
_MOST_ROWS = 100  # of each table and list; fewer where the text would be too long
_MOST_LABEL = 160  # characters
_ICONS = {Outcome.SLOWER: "🔴", Outcome.FASTER: "🟢"}
_ESCAPED = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]<>#|~$"} | {"&": "&amp;", "@": "&#64;"}
)


def as_markdown(
    comparison: RunComparison, failed: Sequence[Failure], *, most_characters: int = _MOST_CHARACTERS
) -> str:
    """Return the summary: what fails, what was told apart, the facts that differ, and all rows in a folded table.

    Of long tables and lists it has the beginning, and says so.

    Args:
        comparison: the comparison.
        failed: rows that fail a gate.
        most_characters: longest text; what is longer with one row in each table is cut.
    """
    rows = _MOST_ROWS
    while len(text := _text(comparison, failed, rows)) > most_characters and rows > 1:
        rows = rows * 2 // 3
    return text[:most_characters]


def _text(comparison: RunComparison, failed: Sequence[Failure], most: int) -> str:
    """Return the summary with at most `most` rows in each table and list."""
    title = "failed" if failed else "passed"
    lines = [f"### sweep compare: {title}", "", f"**{_escape(comparison.summary)}**", ""]
    lines += [f"`{_code(comparison.old)}` (OLD) against `{_code(comparison.new)}` (NEW)", ""]
    lines += _listed(
        [f"❌ **{failure.kind}** {_label(failure.row)}: {_escape(failure.message)}" for failure in failed], most
    )
    if comparison.facts:
        lines += ["Differs: " + ", ".join(_escape(str(fact)) for fact in comparison.facts), ""]
    lines += _listed([_escape(note) for note in comparison.notes], most)
    moved = [row for row in comparison.rows if row.outcome is not Outcome.SAME]
    figures = [figure for figure in FIGURES if known(figure, comparison.rows)]
    if moved and len(moved) < len(comparison.rows):
        lines += [*_table(moved, figures, most), "", *_rates(comparison, most)]
        lines += [f"<details><summary>all {len(comparison.rows)} variants</summary>", ""]
        lines += [*_table(comparison.rows, figures, most), "", "</details>", ""]
    else:
        lines += [*_table(comparison.rows, figures, most), "", *_rates(comparison, most)]
    lines += _listed(
        [f"{_label(row)}: {_escape(row.reason)}" for row in comparison.rows if row.reason is not None], most
    )
    lines += [_escape(comparison.evidence), ""]
    if max(len(comparison.rows), len(failed)) > most:
        lines += [f"Tables and lists are cut at {most}: --html and --json have all of it.", ""]
    return "\n".join(lines)


def _listed(texts: Sequence[str], most: int) -> list[str]:
    """Return a list with a blank line below it; nothing for none."""
    more = [f"- and {len(texts) - most} more"] if len(texts) > most else []
    return [*(f"- {text}" for text in texts[:most]), *more, ""] if texts else []


def _table(rows: Sequence[Row], figures: Sequence[Figure], most: int) -> list[str]:
    heads = ["", "variant", "samples/s", "NEW / OLD (95%)", "verdict", *(figure.head for figure in figures)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|--:|--:|---" + "|--:" * len(figures) + "|"]
    for row in rows[:most]:
        cells = [PEAK.text(row), ratio_text(row), str(row.outcome), *(figure.cell(row) for figure in figures)]
        lines.append(f"| {_mark(row.outcome)} | {' | '.join([_label(row), *map(_escape, cells)])} |")
    if len(rows) > most:
        lines.append(f"| | and {len(rows) - most} more |" + " |" * (3 + len(figures)))
    return lines


def _rates(comparison: RunComparison, most: int) -> list[str]:
    """Return the table of the figures at equal rates, with a blank line below it; nothing where there is none."""
    shown, more = comparison.rates(most)
    if not shown:
        return []
    lines = [f"| | {' | '.join(RATE_HEADS)} |", "|---|---|--:|---|--:|--:|---|"]
    for row, change in shown:
        outcome = Outcome.SLOWER if change.slower else Outcome.FASTER if change.faster else Outcome.SAME
        _, *cells = rate_cells(row, change)
        lines.append(f"| {_mark(outcome)} | {' | '.join([_label(row), *map(_escape, cells)])} |")
    return [*lines, "", *([_escape(more), ""] if more else [])]


def _mark(outcome: Outcome) -> str:
    """Return the mark that the terminal has too, with a coloured one before it where something was told apart."""
    return f"{_ICONS.get(outcome, '')} {_escape(MARKS.get(outcome, ''))}".strip()


def _label(row: Row) -> str:
    return _escape(shorten(row.label, _MOST_LABEL))


def _escape(text: str) -> str:
    """Return text in which Markdown sees no markup, and GitHub neither a mention nor a formula, on one line."""
    return printable_line(text).translate(_ESCAPED)


def _code(text: str) -> str:
    return printable_line(text).replace("`", "'")

"""Write a comparison as Markdown, for the comment of a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import printable_line
from sweep.report.compare.figures import FIGURES, PEAK, known
from sweep.report.compare.rows import Outcome
from sweep.report.compare.terminal import ratio_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.figures import Figure
    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import Row, RunComparison

_MOST_ROWS = 100  # of the folded table: a comment takes 65,536 characters
_ICONS = {Outcome.SLOWER: "🔴", Outcome.FASTER: "🟢", Outcome.INCOMPARABLE: "❔", Outcome.REMOVED: "❔"}
_ESCAPED = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~"})


def as_markdown(comparison: RunComparison, failed: Sequence[Failure]) -> str:
    """Return the summary: what fails, what was told apart, the facts that differ, and all rows in a folded table."""
    title = "failed" if failed else "passed"
    lines = [f"### sweep compare: {title}", "", f"**{_escape(comparison.summary)}**", ""]
    lines += [f"`{_code(comparison.old)}` (OLD) against `{_code(comparison.new)}` (NEW)", ""]
    lines += [f"- ❌ **{failure.kind}** {_escape(failure.row.label)}: {_escape(failure.message)}" for failure in failed]
    if failed:
        lines.append("")
    if comparison.facts:
        lines += ["Differs: " + ", ".join(_escape(str(fact)) for fact in comparison.facts), ""]
    lines += [f"{_escape(note)}\n" for note in comparison.notes]
    moved = [row for row in comparison.rows if row.outcome is not Outcome.SAME]
    figures = [figure for figure in FIGURES if known(figure, comparison.rows)]
    if moved and len(moved) < len(comparison.rows):
        lines += [*_table(moved, figures), ""]
        lines += [f"<details><summary>all {len(comparison.rows)} variants</summary>", ""]
        lines += [*_table(comparison.rows, figures), "", "</details>", ""]
    else:
        lines += [*_table(comparison.rows, figures), ""]
    reasons = [f"- {_escape(row.label)}: {_escape(row.reason)}" for row in comparison.rows if row.reason is not None]
    lines += [*reasons[:_MOST_ROWS], ""] if reasons else []
    lines += [_escape(comparison.evidence), ""]
    return "\n".join(lines)


def _table(rows: Sequence[Row], figures: Sequence[Figure]) -> list[str]:
    heads = ["", "variant", "samples/s", "NEW / OLD (95%)", "verdict", *(figure.head for figure in figures)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|--:|--:|---" + "|--:" * len(figures) + "|"]
    for row in rows[:_MOST_ROWS]:
        cells = [PEAK.text(row), ratio_text(row), str(row.outcome), *(figure.text(row) for figure in figures)]
        lines.append(f"| {_ICONS.get(row.outcome, '')} | {' | '.join(map(_escape, [row.label, *cells]))} |")
    if len(rows) > _MOST_ROWS:
        lines.append(f"| | and {len(rows) - _MOST_ROWS} more |" + " |" * (3 + len(figures)))
    return lines


def _escape(text: str) -> str:
    """Return text in which Markdown sees no markup, on one line."""
    return printable_line(text).translate(_ESCAPED)


def _code(text: str) -> str:
    return printable_line(text).replace("`", "'")

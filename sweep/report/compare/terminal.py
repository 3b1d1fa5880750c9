"""Print a comparison on a terminal: as a table, or as a list where the terminal is too narrow for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from sweep.report.compare.figures import CAPACITY, ENERGY, ENGINE, MEMORY, PEAK, SCORE, SQNR, known
from sweep.report.compare.rows import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.report.compare.figures import Figure
    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rates import RateChange
    from sweep.report.compare.rows import Row, RunComparison

MARKS = {Outcome.SLOWER: "-", Outcome.FASTER: "+", Outcome.SAME: "=", Outcome.INCOMPARABLE: "?"}
_STYLES = {Outcome.SLOWER: "red", Outcome.FASTER: "green"}
_OPTIONAL = (
    PEAK,
    CAPACITY,
    SQNR,
    SCORE,
    MEMORY,
    ENGINE,
    ENERGY,
)  # columns; a narrow terminal loses the last ones first
_INDENT = "  "
_MOST_RATES = 40  # rows of the table of figures at equal rates
RATE_HEADS = ("variant", "offered samples/s", "figure", "OLD -> NEW", "NEW / OLD (95%)", "verdict")
_RATE_LINES = ("variant", "offered\nsamples/s", "figure", "OLD -> NEW", "NEW / OLD\n(95%)", "verdict")
_RIGHT, _NARROW = (1, 3, 4), (0, 1, 2, 4, 5)  # columns of figures; those of a narrow terminal
_ENDLESS = 10_000  # characters: a table as wide as it wants


def print_comparison(console: Console, comparison: RunComparison, failed: Sequence[Failure] = ()) -> None:
    """Print the facts that differ, a row a variant, the counts, and what fails.

    Args:
        console: where to print.
        comparison: the comparison.
        failed: rows that fail a gate.
    """
    _print(console, f"OLD {comparison.old}   NEW {comparison.new}")
    if comparison.facts:
        for fact in comparison.facts:
            _print(console, f"{_INDENT}{fact}", style="yellow")
    else:
        _print(console, f"{_INDENT}no fact of machine, libraries or clocks differs")
    for note in comparison.notes:
        _print(console, note)
    _print_rows(console, comparison)
    _print_rates(console, comparison)
    for row in comparison.rows:
        if row.reason is not None:
            _print(console, f"{row.label}: {row.reason}")
    _print(console, comparison.evidence)
    console.print()
    _print(console, comparison.summary, style="bold")
    for failure in failed:
        _print(console, f"FAILED {failure.kind}: {failure.row.label}: {failure.message}", style="bold red")


def ratio_text(row: Row) -> str:
    """Return new throughput over old with its interval, as ``0.969 (0.960 to 0.978)``; ``-`` where it is not known."""
    change = row.change
    return "-" if change is None else f"{change.ratio:.3f} ({change.low:.3f} to {change.high:.3f})"


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(escape(text), highlight=False, style=style)


def _print_rows(console: Console, comparison: RunComparison) -> None:
    """Print the widest table that fits; a list where none does."""
    figures = [figure for figure in _OPTIONAL if known(figure, comparison.rows)]
    shown = list(figures)
    while True:
        table = _table(comparison, shown)
        if Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum <= console.width:
            console.print(table)
            break
        if not shown:
            _print_list(console, comparison)
            shown = [PEAK]
            break
        shown.pop()
    hidden = [figure.head for figure in figures if figure not in shown]
    if hidden:
        _print(console, f"Not shown for want of room: {', '.join(hidden)}; --json FILE has all of them.")


def _table(comparison: RunComparison, figures: Sequence[Figure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for head in ("NEW / OLD\n(95%)", "", *(_two_lines(figure.head) for figure in figures)):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in comparison.rows:
        cells = [MARKS.get(row.outcome, ""), row.label, ratio_text(row), str(row.outcome)]
        cells += [figure.cell(row) for figure in figures]
        table.add_row(*map(escape, cells), style=_STYLES.get(row.outcome))
    return table


def _print_rates(console: Console, comparison: RunComparison) -> None:
    """Print the figures at equal rates: as a table, without the values if it is too wide, else those told apart."""
    shown, more = comparison.rates(_MOST_RATES)
    if not shown:
        return
    for columns in (range(len(RATE_HEADS)), _NARROW):
        table = _rate_table(shown, columns)
        if Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum <= console.width:
            console.print(table)
            break
    else:
        told = [(row, change) for row, change in shown if change.slower or change.faster]
        for row, change in told:
            _print(console, f"{row.label}: {change}: {change.verdict}")
        if len(told) < len(shown):
            _print(console, f"{len(shown) - len(told)} figures at equal rates are not told apart.")
    if more:
        _print(console, f"{more}; --json FILE has all of them.")


def _rate_table(shown: Sequence[tuple[Row, RateChange]], columns: Sequence[int]) -> Table:
    """Return a table of the figures at equal rates with some of the columns of ``RATE_HEADS``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number in columns:
        right = number in _RIGHT
        table.add_column(_RATE_LINES[number], justify="right" if right else "left", no_wrap=True)
    for row, change in shown:
        outcome = Outcome.SLOWER if change.slower else Outcome.FASTER if change.faster else Outcome.SAME
        cells = rate_cells(row, change)
        table.add_row(*(escape(cells[number]) for number in columns), style=_STYLES.get(outcome))
    return table


def rate_cells(row: Row, change: RateChange) -> list[str]:
    """Return the cells of a figure at one rate, under ``RATE_HEADS``."""
    return [row.label, f"{change.offered_ips:,.0f}", change.name, change.values, change.ratio, change.verdict]


def _two_lines(head: str) -> str:
    words = head.split(" ", 1)
    return "\n".join(words)


def _print_list(console: Console, comparison: RunComparison) -> None:
    console.print()
    for row in comparison.rows:
        style = _STYLES.get(row.outcome)
        _print(console, f"{MARKS.get(row.outcome, ' ')} {row.label}", style=style)
        _print(console, f"{_INDENT}{row.outcome}: {ratio_text(row)}", style=style)
        if row.old is not None or row.new is not None:
            _print(console, f"{_INDENT}{PEAK.text(row)} samples/s")
    console.print()

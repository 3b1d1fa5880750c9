"""Print the outcome of a sweep on the terminal.

A terminal that is too narrow for the table gets it in parts, one below the other: no column is squeezed, and no mark is
lost. Each part has the marks, and the axes, or where these take much room, the number that the first part gives a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from sweep.report import shape_ways
from sweep.report.columns import figures
from sweep.report.outcome_lines import Footnotes, below_table, bottleneck_lines
from sweep.report.side_by_side import print_side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from sweep.report.columns import Column
    from sweep.report.recommendation import Answer
    from sweep.spec import Slo
    from sweep.storage import Record

_UNBOUNDED = 100_000  # columns of a console on which every table fits


def print_outcome(
    console: Console,
    records: Sequence[Record],
    recommendation: Answer,
    slo: Slo | None,
    whole: Sequence[Record] | None = None,
) -> None:
    """Print one row per variant, with the recommended one marked, then the recommendation in words.

    Args:
        console: where to print.
        records: records of the sweep, in the order of the rows.
        recommendation: answer of the sweep.
        slo: latency objective, which adds a column; None without one.
        whole: all records, for what networks side by side cost each other; None for those of the rows.
    """
    footnotes = Footnotes(records)
    columns = [column for column in figures(records, recommendation, slo) if column.on_terminal]
    rows = _Rows(records=records, recommendation=recommendation, footnotes=footnotes)
    for part in rows.tables(console, columns):
        console.print(part)
    for table in _ways_tables(records):
        console.print(table)
    for number, note in enumerate(footnotes.texts, 1):
        _print_line(console, note, mark=f"{'*' * number} ")
    for line in below_table(records):
        _print_line(console, line)
    print_side_by_side(console, records if whole is None else whole, slo)
    _print_line(console, recommendation.text, before="\n", style="bold")
    if recommendation.settings:
        console.print(escape(recommendation.settings), highlight=False, soft_wrap=True)
    for line in bottleneck_lines(recommendation):
        _print_line(console, line)


def _ways_tables(records: Sequence[Record]) -> Iterator[Table]:
    """Yield a table for each load of several shapes that was served in several ways."""
    for group in shape_ways.groups(records):
        title, (heads, *rows) = shape_ways.table_of(group)
        table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
        for place, head in enumerate(heads):
            table.add_column(escape(head), justify="right" if place else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        yield table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Make tables of the same rows.

    Attributes:
        records: records, in the order of the rows.
        recommendation: answer of the sweep, for the marks.
        footnotes: give the axes and their cells.
    """

    records: Sequence[Record]
    recommendation: Answer
    footnotes: Footnotes

    def tables(self, console: Console, columns: Sequence[Column]) -> list[Table]:
        """Return as many tables as it takes for each to fit the console."""
        whole = self._table(columns)
        if _width(console, whole) <= console.width:
            return [whole]
        numbered = 3 * _width(console, self._table(())) > console.width
        parts: list[list[Column]] = [[]]
        for column in columns:
            wider = self._table([*parts[-1], column], numbered=numbered, axes=not numbered or len(parts) == 1)
            if _width(console, wider) > console.width and (parts[-1] or len(parts) == 1):
                parts.append([])
            parts[-1].append(column)
        return [
            self._table(part, numbered=numbered, axes=not numbered or number == 0) for number, part in enumerate(parts)
        ]

    def _table(self, columns: Sequence[Column], *, numbered: bool = False, axes: bool = True) -> Table:
        """Return a table with the marks, then the numbers of the rows, the axes and these columns."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("", no_wrap=True, min_width=1)
        if numbered:
            table.add_column("#", justify="right", no_wrap=True)
        for axis in self.footnotes.axes if axes else ():
            table.add_column(axis.column, no_wrap=True)
        for column in columns:
            table.add_column(column.heading, justify="left" if column.name == "status" else "right", no_wrap=True)
        for number, record in enumerate(self.records, 1):
            table.add_row(
                self.recommendation.mark(record),
                *([str(number)] if numbered else []),
                *(self._axis_cells(record) if axes else []),
                *(escape(column.text(record)) for column in columns),
            )
        return table

    def _axis_cells(self, record: Record) -> list[str]:
        marks = ",".join("*" * number for number in self.footnotes.numbers(record))
        return [
            escape(self.footnotes.cell(record, axis)) + (marks if self.footnotes.is_marked(axis) else "")
            for axis in self.footnotes.axes
        ]


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum


def _print_line(console: Console, text: str, *, mark: str = "", before: str = "", style: str | None = None) -> None:
    """Print a line: whole where a program reads it, broken between words and indented below its mark on a terminal."""
    console.print(before, end="")
    if not console.is_terminal or not mark:
        console.print(f"{mark}{escape(text)}", highlight=False, soft_wrap=not console.is_terminal, style=style)
        return
    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(mark, escape(text))
    console.print(Padding(grid, 0), highlight=False, style=style)

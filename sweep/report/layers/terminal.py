"""Print a layer profile, or the difference of two, on a terminal: the narrower it is, the fewer columns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.report.layers import wording
from sweep.report.layers.difference import by_scope
from sweep.report.layers.tables import sums, top_rows
from sweep.report.layers.wording import us

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from sweep.analysis.layers import Finding, LayerRow
    from sweep.report.layers.difference import LayerDifference
    from sweep.report.layers.profiles import Source

_LEAST_NAME = 20  # characters of the name of a layer
_INDENT = "  "
_GAP = 3  # characters between columns
_MOST_NAMES = 3  # of layers in a finding


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """Describe a column of figures: its head, its width, and in which order narrow terminals lose it (last first)."""

    head: str
    width: int
    keep: int
    left: bool = False
    optional: bool = False  # left out where no row has it


def print_profile(console: Console, source: Source, *, top: int | None, by: str = "layer") -> None:
    """Print where the time of an inference goes.

    Args:
        console: where to print.
        source: the profile.
        top: rows of the table; None prints all of them, and findings that cost little too.
        by: what a row is: layer, kind, scope or node.
    """
    _line(console, wording.headline(source), style="bold")
    analysis = source.analysis
    texts = (wording.balance(source), wording.timing(source), wording.rates(analysis), wording.gemm(analysis))
    for text in filter(None, texts):
        _line(console, text)
    for note in wording.notes(source):
        _line(console, f"Note: {note}")
    console.print()
    if by == "layer":
        _print_layers(console, source, top)
        console.print()
        _print_sums(console, source, "kind", None)
    else:
        _print_sums(console, source, by, top)
    _print_findings(console, source, every=top is None)


def print_difference(console: Console, difference: LayerDifference, *, top: int | None, by: str = "layer") -> None:
    """Print what makes one engine slower than the other.

    Args:
        console: where to print.
        difference: the two engines.
        top: rows of the table; None prints all of them.
        by: what a row is: scope, else the layers that compute the same nodes.
    """
    _line(console, difference.headline, style="bold")
    for name, source in (("A", difference.a), ("B", difference.b)):
        _line(console, f"{name}: {wording.headline(source)}. {wording.balance(source)}")
    for note in difference.notes:
        _line(console, f"Note: {note}")
    console.print()
    _print_causes(console, difference)
    if by == "kind":
        return
    console.print()
    if by == "scope":
        _print_scopes(console, difference, top)
    else:
        _print_groups(console, difference, top)


def _line(console: Console, text: str, style: str | None = None) -> None:
    console.print(escape(text), highlight=False, style=style)


def _table(console: Console, name: str, columns: Sequence[_Column]) -> tuple[Table, list[int], int]:
    """Return a table, the numbers of the columns that fit beside the name, and the room of the name."""
    shown = list(range(len(columns)))
    while shown and _LEAST_NAME + sum(columns[n].width + _GAP for n in shown) > console.width:
        shown.remove(max(shown, key=lambda n: columns[n].keep))
    room = max(console.width - sum(columns[n].width + _GAP for n in shown), _LEAST_NAME)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(name, no_wrap=True, max_width=room)
    for n in shown:
        column = columns[n]
        table.add_column(column.head, justify="left" if column.left else "right", no_wrap=True, max_width=column.width)
    return table, shown, room


def _fill(
    console: Console, name: str, columns: Sequence[_Column], rows: Sequence[tuple[Callable[[int], str], Sequence[str]]]
) -> list[str]:
    """Print a table of rows (name within a width, cells); return the heads of the columns that do not fit."""
    known = [n for n in range(len(columns)) if not columns[n].optional or any(cells[n] != "-" for _, cells in rows)]
    columns, rows = [columns[n] for n in known], [(text, [cells[n] for n in known]) for text, cells in rows]
    widths = [max([len(column.head), *(len(cells[n]) for _, cells in rows)]) for n, column in enumerate(columns)]
    fitted = [
        dataclasses.replace(column, width=min(width, column.width))
        for column, width in zip(columns, widths, strict=True)
    ]
    table, shown, room = _table(console, name, fitted)
    for text, cells in rows:
        table.add_row(*map(escape, (text(room), *(wording.clipped(cells[n], fitted[n].width) for n in shown))))
    console.print(table)
    return [column.head for n, column in enumerate(columns) if n not in shown]


_LAYER = (
    _Column(head="us", width=9, keep=0),
    _Column(head="share", width=6, keep=1),
    _Column(head="sum", width=5, keep=3),
    _Column(head="TFLOP/s", width=7, keep=5, optional=True),
    _Column(head="GB/s", width=7, keep=6, optional=True),
    _Column(head="bound", width=7, keep=2, left=True, optional=True),
    _Column(head="types", width=22, keep=7, left=True, optional=True),
    _Column(head="operators", width=40, keep=8, left=True),
    _Column(head="tactic", width=40, keep=9, left=True, optional=True),
)


def _print_layers(console: Console, source: Source, top: int | None) -> None:
    whole, passed, rows = source.analysis.totals.layers_us, 0.0, []
    for row in top_rows(source, top):
        passed += row.time_us or 0.0
        cells = [
            "-" if row.time_us is None else wording.amount(row.time_us),
            "-" if row.share is None else f"{row.share:.1%}",
            f"{passed / whole:.0%}" if whole else "-",
            "-" if row.tflops is None else wording.rate(row.tflops),
            "-" if row.gb_per_s is None else wording.rate(row.gb_per_s),
            "-" if row.bound == "unknown" else row.bound,
            wording.types_text(source, row),
            ", ".join(row.op_kinds) or row.kind,
            source.profile["layers"][row.index]["tactic"] or "-",
        ]
        rows.append((_fitted(row), cells))
    hidden = _fill(console, "layer (its nodes)", _LAYER, rows)
    left = len(source.analysis.rows) - len(rows)
    if left:
        rest = f" ({1 - passed / whole:.0%} of the time)" if whole else ""
        _line(console, f"{left} more layers{rest}: --all prints them, --top N so many.")
    _say_hidden(console, hidden)


def _fitted(row: LayerRow) -> Callable[[int], str]:
    return lambda width: wording.fitted(row, width)


def _clipped(text: str) -> Callable[[int], str]:
    return lambda width: wording.clipped(text, width)


_SUM = (
    _Column(head="us", width=9, keep=0),
    _Column(head="share", width=6, keep=1),
    _Column(head="layers", width=6, keep=2),
    _Column(head="", width=60, keep=3, left=True),
)


def _print_sums(console: Console, source: Source, by: str, top: int | None) -> None:
    made = sums(source, by)
    shown = made if top is None else made[:top]
    rows = [
        (_clipped(item.name), [wording.amount(item.time_us), f"{item.share:.1%}", str(item.layers), item.detail])
        for item in shown
    ]
    _fill(console, by, _SUM, rows)
    if len(made) > len(shown):
        _line(console, f"{len(made) - len(shown)} more: --all prints them, --top N so many.")


def _print_findings(console: Console, source: Source, *, every: bool) -> None:
    findings = [finding for finding in source.analysis.findings if every or not finding.small]
    small = len(source.analysis.findings) - len(findings)
    console.print()
    if not findings:
        _line(console, "Findings: none that costs much.")
    for number, finding in enumerate(findings, 1):
        saving = "" if finding.saving_us is None else f", of which up to {us(finding.saving_us)} may go"
        _line(console, f"{number}. {finding.title}", style="bold")
        _line(
            console,
            f"{_INDENT}{us(finding.cost_us)} ({finding.share:.1%} of an inference){saving}: {_names(source, finding)}",
        )
        _line(console, f"{_INDENT}{finding.explanation}")
        _line(console, f"{_INDENT}Try: {finding.advice}")
        _line(console, f"{_INDENT}Source: {finding.source}")
    if small:
        _line(console, f"{small} more that cost little: --all prints them.")


def _names(source: Source, finding: Finding) -> str:
    names = wording.places(source, finding)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


_CAUSE = (
    _Column(head="A us", width=9, keep=1),
    _Column(head="B us", width=9, keep=2),
    _Column(head="B - A", width=9, keep=0),
    _Column(head="B / A", width=6, keep=3),
    _Column(head="layers", width=7, keep=4),
)


def _print_causes(console: Console, difference: LayerDifference) -> None:
    rows = []
    for cause in difference.causes:
        cells = [*_pair(cause.a_us, cause.b_us, cause.presence), str(cause.layers) if cause.layers else "-"]
        rows.append((_clipped(cause.text), cells))
    total = [*_pair(difference.a_us, difference.b_us, "both"), "-"]
    rows.append((_clipped(f"all of {difference.unit}"), total))
    _fill(console, "kind of layer", _CAUSE, rows)


def _pair(a: float, b: float, presence: str) -> list[str]:
    ratio = f"{b / a:.2f}" if presence == "both" and a > 0 and b > 0 else "-"
    first, second = ("-" if presence == missing else wording.amount(value) for value, missing in ((a, "B"), (b, "A")))
    return [first, second, f"{'+' if b > a else ''}{wording.amount(b - a)}", ratio]


_GROUP = (
    _Column(head="A us", width=9, keep=1),
    _Column(head="B us", width=9, keep=2),
    _Column(head="B - A", width=9, keep=0),
    _Column(head="B / A", width=6, keep=3),
    _Column(head="kind", width=24, keep=4, left=True),
    _Column(head="A", width=30, keep=6, left=True),
    _Column(head="B", width=30, keep=5, left=True),
)


def _print_groups(console: Console, difference: LayerDifference, top: int | None) -> None:
    groups = difference.groups if top is None else difference.groups[:top]
    rows = [
        (
            _clipped(group.name),
            [
                *_pair(group.a_us, group.b_us, group.presence),
                group.what,
                side_text(difference.a, group.a),
                side_text(difference.b, group.b),
            ],
        )
        for group in groups
    ]
    hidden = _fill(console, "node", _GROUP, rows)
    left = difference.groups[len(groups) :]
    if left:
        change = sum(group.change_us for group in left)
        _line(console, f"{len(left)} more rows ({us(change)} together): --all prints them, --top N so many.")
    _say_hidden(console, hidden)


def side_text(source: Source, rows: Sequence[LayerRow]) -> str:
    """Return what a side has of a group: types of its longest layer, and how many more; ``-`` for none."""
    if not rows:
        return "-"
    longest = max(rows, key=lambda row: row.time_us or 0.0)
    return wording.types_text(source, longest) + (f" +{len(rows) - 1}" if len(rows) > 1 else "") or "1 layer"


def _print_scopes(console: Console, difference: LayerDifference, top: int | None) -> None:
    made = by_scope(difference)
    shown = made if top is None else made[:top]
    _fill(console, "scope", _CAUSE[:4], [(_clipped(name), _pair(a, b, "both")) for name, a, b in shown])
    if len(made) > len(shown):
        _line(console, f"{len(made) - len(shown)} more: --all prints them, --top N so many.")


def _say_hidden(console: Console, hidden: Sequence[str]) -> None:
    if hidden:
        _line(console, f"Not shown for want of room: {', '.join(hidden)}; --csv and --html have them.")

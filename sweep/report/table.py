"""The tables of the terminal: the plan before a sweep, the outcome after it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep import spec
from sweep.analysis import carried_tail, drifted, fairness, joules, light, near, prediction_errors, score
from sweep.report.comparison import compared
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from sweep.report.ranking import Answer
    from sweep.spec import Axis, Comparison, PercentileName, Slo
    from sweep.storage import Peak, Point, Record, SloResult

_SHOWN_ALWAYS = ("model.name", "precision.name", "batch")  # where nothing varies
_FOOTNOTED = "precision.name"  # column of the marks that lead to a record's notes
_MILLION = 1_000_000
_SMALL_GMACS = 0.1


def print_outcome(console: Console, records: Sequence[Record], found: Answer, slo: Slo | None) -> None:
    """One row a variant, the one to take marked, then the answer in words."""
    comparison = compared(records)
    shown = comparison.axes or [spec.keyed()[key] for key in _SHOWN_ALWAYS]
    tail: PercentileName = carried_tail(point for record in records for point in record.points) or "p99"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("")
    for axis in shown:
        table.add_column(axis.column, no_wrap=True)
    for name in ("status", "peak\nsamples/s", "p50 ms\nlight", f"{tail} ms\nlight", f"{tail} ms\nat 80%"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    if slo:
        table.add_column(f"samples/s at\n{slo}", justify="right")
    table.add_column("SQNR dB", justify="right")
    scored = any(score(record) is not None for record in records)
    if scored:
        table.add_column("top-1", justify="right")
    watched = any(joules(record) is not None for record in records)
    if watched:
        table.add_column("mJ per\nsample", justify="right")
    notes: list[str] = []
    for record in records:
        mark = ">" if found.best is record else "=" if record in found.tied else ""
        right = [format_number(score(record), "{:.2%}")] if scored else []
        energy = [_energy(record)] if watched else []
        table.add_row(mark, *_axis_cells(record, shown, comparison, notes), *_cells(record, tail, slo), *right, *energy)
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(f"{'*' * number} {escape(note)}", highlight=False, soft_wrap=True)
    _print_models(console, records)
    _print_verdicts(console, records, comparison.labels)
    _print_prediction(console, records)
    console.print(f"\n[bold]{escape(found.text)}[/bold]", highlight=False, soft_wrap=True)
    if found.settings:
        console.print(escape(found.settings), highlight=False, soft_wrap=True)


def _axis_cells(record: Record, axes: Sequence[Axis], comparison: Comparison, notes: list[str]) -> list[str]:
    cells = []
    for axis in axes:
        text = comparison.cell(record.key, axis)
        if axis.info.key == _FOOTNOTED and record.realised:
            said = record.realised.get("notes") or []
            notes.extend(note for note in dict.fromkeys(said) if note not in notes)
            text += ",".join("*" * (notes.index(note) + 1) for note in said)
        cells.append(escape(text))
    return cells


def _cells(record: Record, tail: PercentileName, slo: Slo | None) -> list[str]:
    calm, busy = light(record), near(record, 0.8)
    cells = [
        f"{record.status}, drift" if drifted(record) else record.status,
        format_number(record.peak["ips"] if record.peak else None, "{:,.0f}"),
        _latency(calm, "p50"),
        _latency(calm, tail),
        _latency(busy, tail),
    ]
    if slo:
        cells.append(_capacity(record.slo))
    cells.append(format_number(record.accuracy["sqnr_db"] if record.accuracy else None, "{:.1f}"))
    return cells


def _latency(point: Point | None, percentile: PercentileName) -> str:
    """In ms; ``~`` before it where the point is not ok."""
    value = None if point is None else point["latency_ms"][percentile]
    if point is None or value is None:
        return "-"
    return f"{'' if point['verdict'] == Verdict.OK else '~'}{value:.3g}"


def _capacity(slo: SloResult | None) -> str:
    """In samples/s; ``~`` before it where no run at that very rate confirmed it."""
    if slo is None or slo["capacity_ips"] is None:
        return "-"
    return f"{'' if slo.get('confirmed') else '~'}{slo['capacity_ips']:,.0f}"


def _energy(record: Record) -> str:
    found = joules(record)
    return format_number(None if found is None else found * 1e3, "{:.3g}")


def format_number(value: float | None, form: str) -> str:
    """Format a number for a table; ``-`` for one that is unknown."""
    return "-" if value is None else form.format(value)


def _print_models(console: Console, records: Sequence[Record]) -> None:
    """What each network costs, and what its score was taken on."""
    told = dict.fromkeys(line for record in records if (line := cost_line(record)))
    for line in (*told, *score_lines(records)):
        console.print(escape(line), highlight=False, soft_wrap=True)


def score_lines(records: Sequence[Record]) -> list[str]:
    """``top-1 on 597 samples of held.npz; fp32 97.49%``: what scores were taken on; with the network if several are."""
    scored = {
        (record.variant["model"], found["scored_on"], found["reference_score"])
        for record in records
        if (found := record.accuracy) and score(record) is not None
    }
    several = len({model for model, _, _ in scored}) > 1
    return [
        f"{f'{model}: ' if several else ''}top-1 on {what}; fp32 {right:.2%}" for model, what, right in sorted(scored)
    ]


def cost_line(record: Record) -> str | None:
    """``resnet50: 25.5 M parameters, 4.09 GMACs a sample``; None where the record does not say."""
    model = record.model
    if model is None:
        return None
    weights = model["parameters"]
    size = f"{weights / 1e6:.3g} M" if weights >= _MILLION else f"{weights:,}"
    return f"{record.variant['model']}: {size} parameters, {_multiply_adds(model['gmacs'])}"


def _multiply_adds(gmacs: float | None) -> str:
    if gmacs is None:
        return "multiply-adds not counted"
    return f"{gmacs:.3g} GMACs a sample" if gmacs >= _SMALL_GMACS else f"{gmacs * 1e3:.3g} MMACs a sample"


def _print_verdicts(console: Console, records: Sequence[Record], labels: Mapping[str, str]) -> None:
    """A line for every variant that did not end ok or drifted, and one for points that do not count in full."""
    for record in records:
        label = labels[record.key]
        if record.error is not None:
            error = record.error
            line = f"{label}: {record.status} at {error['stage']}: {error['message']}"
            console.print(escape(line), highlight=False, soft_wrap=True)
        elif record.slo is not None and record.slo.get("reason"):
            line = f"{label}: {record.slo['reason']}"
            console.print(escape(line), highlight=False, soft_wrap=True)
        if record.drift is not None and drifted(record):
            line = f"{label}: the machine drifted: {record.drift['reason']}"
            console.print(escape(line), highlight=False, soft_wrap=True)
        _print_unfair(console, record, label)
    odd: dict[str, int] = {}
    parts: list[Point | Peak] = [point for record in records for point in record.points]
    parts += [record.peak for record in records if record.peak]
    for part in parts:
        if part["verdict"] not in {Verdict.OK, Verdict.OVERLOADED}:
            odd[part["verdict"]] = odd.get(part["verdict"], 0) + 1
    if odd:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(odd.items()))
        total = len(parts)
        console.print(
            f"Of {total} points: {counts} (~ in the table; each has its reason in its record).", highlight=False
        )


def _print_unfair(console: Console, record: Record, label: str) -> None:
    """A line where the clients were not served alike, of the first part that says so."""
    parts: list[tuple[str, Peak | Point]] = [("in the closed loop", record.peak)] if record.peak else []
    parts += [
        (f"at {point['offered_ips']:,.0f} samples/s", point)
        for point in record.points
        if point["verdict"] not in {Verdict.OVERLOADED, Verdict.INVALID}
    ]
    for where, part in parts:
        why = fairness.unfair(part)
        if why is not None:
            line = f"{label}: its clients were not served alike {where}: {why}"
            console.print(escape(line), highlight=False, soft_wrap=True)
            return


def _print_prediction(console: Console, records: Sequence[Record]) -> None:
    """How far the curves that were predicted from service times lay from those that were measured."""
    errors = [error for record in records for error in prediction_errors(record)]
    if errors:
        text = f"Predicted from service times: p99 within {statistics.median(errors):.0%} of the measured (median of"
        console.print(f"{text} {len(errors)} steady rungs up to 90% of the peak).", highlight=False, soft_wrap=True)

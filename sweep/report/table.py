"""Print the outcome of a sweep on the terminal."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep import spec
from sweep.analysis import (
    carried_tail,
    curve_is_unusable,
    drifted,
    fairness,
    joules,
    light,
    near,
    prediction_errors,
    probably_higher,
    score,
    sqnr_text,
)
from sweep.report.comparison import builds_line, compared, same_engine_note, same_engines, speedups
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from sweep.report.recommendation import Answer
    from sweep.spec import Axis, Comparison, PercentileName, Slo
    from sweep.storage import Peak, Point, Record, SloResult

_DEFAULT_AXES = ("model.name", "precision.name", "batch")  # columns of a sweep in which nothing varies
_FOOTNOTED = "precision.name"  # column of the marks that refer to a record's notes
_MILLION = 1_000_000
_SMALL_GMACS = 0.1


def print_outcome(console: Console, records: Sequence[Record], recommendation: Answer, slo: Slo | None) -> None:
    """Print one row per variant, with the recommended one marked, then the recommendation in words.

    Args:
        console: where to print.
        records: records of the sweep, in the order of the rows.
        recommendation: answer of the sweep.
        slo: latency objective, which adds a column; None without one.
    """
    comparison = compared(records)
    axes = comparison.axes or [spec.keyed()[key] for key in _DEFAULT_AXES]
    tail: PercentileName = carried_tail(point for record in records for point in record.points) or "p99"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("")
    for axis in axes:
        table.add_column(axis.column, no_wrap=True)
    ratios = speedups(records)
    peaks = ("peak\nsamples/s", *(["peak over\nfp32"] if ratios else []))
    for name in ("status", *peaks, "p50 ms\nlight", f"{tail} ms\nlight", f"{tail} ms\nat 80%"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    with_ratio = any(ratio.low != ratio.high for ratio in recommendation.ratios.values())
    if with_ratio:
        table.add_column("of the best\n(95%)", justify="right", no_wrap=True)
    if slo:
        table.add_column(f"samples/s at\n{slo}", justify="right")
    table.add_column("SQNR dB", justify="right")
    with_score = any(score(record) is not None for record in records)
    if with_score:
        table.add_column("top-1", justify="right")
    with_energy = any(joules(record) is not None for record in records)
    if with_energy:
        table.add_column("mJ per\nsample", justify="right")
    notes: list[str] = []
    same = same_engines(records)
    for record in records:
        ratio = [recommendation.ratio_text(record)] if with_ratio else []
        top1 = [format_number(score(record), "{:.2%}")] if with_score else []
        energy = [_energy(record)] if with_energy else []
        table.add_row(
            recommendation.mark(record),
            *_axis_cells(record, axes, comparison, notes, same.get(record.key)),
            *_cells(record, tail, ratio, slo, [format_speedup(ratios.get(record.key))] if ratios else []),
            *top1,
            *energy,
        )
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(f"{'*' * number} {escape(note)}", highlight=False, soft_wrap=True)
    _print_models(console, records)
    _print_verdicts(console, records, comparison.labels)
    _print_higher(console, records, tail)
    _print_prediction(console, records)
    console.print(f"\n[bold]{escape(recommendation.text)}[/bold]", highlight=False, soft_wrap=True)
    if recommendation.settings:
        console.print(escape(recommendation.settings), highlight=False, soft_wrap=True)


def _axis_cells(
    record: Record, axes: Sequence[Axis], comparison: Comparison, notes: list[str], same: str | None
) -> list[str]:
    """Format the axes of a record, with marks at the precision; without it, whose engine it is at the last axis.

    Args:
        record: the record of the row.
        axes: axes that have a column.
        comparison: what differs between the records.
        notes: footnotes so far, which grow.
        same: label of the variant whose engine this is; None if it has its own.
    """
    precision_column = next((axis for axis in axes if axis.info.key == _FOOTNOTED), None)
    marked = precision_column or axes[-1]
    footnotes = list((record.realised or {}).get("notes") or []) if precision_column else []
    footnotes += [same_engine_note(same)] if same else []
    cells = []
    for axis in axes:
        text = comparison.cell(record.key, axis)
        if axis is marked:
            notes.extend(note for note in dict.fromkeys(footnotes) if note not in notes)
            text += ",".join("*" * (notes.index(note) + 1) for note in footnotes)
        cells.append(escape(text))
    return cells


def _cells(
    record: Record, tail: PercentileName, ratio: Sequence[str], slo: Slo | None, speedup: Sequence[str]
) -> list[str]:
    light_point, loaded_point = light(record), near(record, 0.8)
    cells = [
        status_text(record),
        peak_text(record),
        *speedup,
        _latency(light_point, "p50"),
        _latency(light_point, tail),
        _latency(loaded_point, tail),
        *ratio,
    ]
    if slo:
        cells.append(_capacity(record.slo))
    cells.append(sqnr_text(record))
    return cells


def status_text(record: Record) -> str:
    """Format the status of a record, with what qualifies an ``ok``: a drift of the machine, a curve without a point."""
    remarks: list[str] = [str(record.status)]
    remarks += ["drift"] if drifted(record) else []
    remarks += ["no usable curve"] if record.status == "ok" and curve_is_unusable(record) else []
    return ", ".join(remarks)


def peak_text(record: Record) -> str:
    """Format the peak of a record, samples/s, with ``~`` in front if its verdict is not ok."""
    if record.peak is None or record.peak["ips"] is None:
        return "-"
    return f"{'' if record.peak['verdict'] == Verdict.OK else '~'}{record.peak['ips']:,.0f}"


def format_speedup(ratio: float | None) -> str:
    """Format a peak over that of fp32, as in ``1.83x``."""
    return format_number(ratio, "{:.2f}x")


def _latency(point: Point | None, percentile: PercentileName) -> str:
    """Format the latency of a point, ms: ``~`` in front if the point is not ok, ``>`` if it is probably higher."""
    value = None if point is None else point["latency_ms"][percentile]
    if point is None or value is None:
        return "-"
    mark = ">" if probably_higher(point, percentile) else ""
    return f"{mark if point['verdict'] == Verdict.OK else '~'}{value:.3g}"


def _capacity(slo: SloResult | None) -> str:
    """Format the capacity, samples/s, with ``~`` in front if no run at that very rate confirmed it."""
    if slo is None or slo["capacity_ips"] is None:
        return "-"
    return f"{'' if slo.get('confirmed') else '~'}{slo['capacity_ips']:,.0f}"


def _energy(record: Record) -> str:
    energy_j = joules(record)
    return format_number(None if energy_j is None else energy_j * 1e3, "{:.3g}")


def format_number(value: float | None, form: str) -> str:
    """Format a number for a table; ``-`` for one that is unknown."""
    return "-" if value is None else form.format(value)


def _print_models(console: Console, records: Sequence[Record]) -> None:
    """Print the cost of each network and the data on which it was scored."""
    costs = dict.fromkeys(line for record in records if (line := cost_line(record)))
    for line in (*costs, *score_lines(records)):
        console.print(escape(line), highlight=False, soft_wrap=True)


def score_lines(records: Sequence[Record]) -> list[str]:
    """Return a line per set of labelled samples, as ``top-1 on 597 samples of held.npz; fp32 97.49%``.

    The network stands in front if several networks were scored.
    """
    rows = {
        (record.variant.get("model", record.key), accuracy["scored_on"], accuracy["reference_score"])
        for record in records
        if (accuracy := record.accuracy) and score(record) is not None
    }
    several = len({model for model, _, _ in rows}) > 1
    return [
        f"{f'{model}: ' if several else ''}top-1 on {samples}; fp32 {top1:.2%}" for model, samples, top1 in sorted(rows)
    ]


def cost_line(record: Record) -> str | None:
    """Return the cost of the network, as ``resnet50: 25.5 M parameters, 4.09 GMACs a sample``; None if unknown."""
    model = record.model
    if model is None:
        return None
    weights = model["parameters"]
    size = f"{weights / 1e6:.3g} M" if weights >= _MILLION else f"{weights:,}"
    return f"{record.variant.get('model', record.key)}: {size} parameters, {_multiply_adds(model['gmacs'])}"


def _multiply_adds(gmacs: float | None) -> str:
    if gmacs is None:
        return "multiply-adds not counted"
    return f"{gmacs:.3g} GMACs a sample" if gmacs >= _SMALL_GMACS else f"{gmacs * 1e3:.3g} MMACs a sample"


def _print_verdicts(console: Console, records: Sequence[Record], labels: Mapping[str, str]) -> None:
    """Print a line per variant that did not end ok or drifted, and one that counts the points that are not ok."""
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
        _print_estimate(console, record, label)
        built = builds_line(record)
        if built is not None:
            console.print(escape(f"{label}: {built}"), highlight=False, soft_wrap=True)
        _print_unfair(console, record, label)
    counts: dict[str, int] = {}
    parts: list[Point | Peak] = [point for record in records for point in record.points]
    parts += [record.peak for record in records if record.peak]
    for part in parts:
        if part["verdict"] not in {Verdict.OK, Verdict.OVERLOADED}:
            counts[part["verdict"]] = counts.get(part["verdict"], 0) + 1
    if counts:
        verdict_counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        total = len(parts)
        console.print(
            f"Of {total} points: {verdict_counts} (~ in the table; each has its reason in its record).", highlight=False
        )


def _print_estimate(console: Console, record: Record, label: str) -> None:
    """Print the likeliest capacity, which lies above the confirmed one: that errs on the safe side."""
    interval = record.slo.get("estimate_interval") if record.slo else None
    likeliest = record.slo.get("estimate_ips") if record.slo else None
    if interval and likeliest:
        text = f"{label}: its capacity is estimated at {likeliest:,.0f} samples/s"
        line = f"{text} (95%: {interval[0]:,.0f} to {interval[1]:,.0f}), not confirmed"
        console.print(escape(line), highlight=False, soft_wrap=True)


def _print_unfair(console: Console, record: Record, label: str) -> None:
    """Print a line about the first part of a record in which the clients were not served equally."""
    parts: list[tuple[str, Peak | Point]] = [("in the closed loop", record.peak)] if record.peak else []
    parts += [
        (f"at {point['offered_ips']:,.0f} samples/s", point)
        for point in record.points
        if point["verdict"] not in {Verdict.OVERLOADED, Verdict.INVALID}
    ]
    for load, part in parts:
        reason = fairness.unfair(part)
        if reason is not None:
            line = f"{label}: its clients were not served alike {load}: {reason}"
            console.print(escape(line), highlight=False, soft_wrap=True)
            return


def _print_higher(console: Console, records: Sequence[Record], tail: PercentileName) -> None:
    """Explain the mark ``>`` where a latency has it."""
    shown = [point for record in records for point in (light(record), near(record, 0.8)) if point is not None]
    if any(probably_higher(point, name) for point in shown for name in ("p50", tail)):
        text = "> in front of a latency: too few of its requests are independent; it is probably higher. Longer windows"
        console.print(f"{text} (load.min_s=10) say.", highlight=False, soft_wrap=True)


def _print_prediction(console: Console, records: Sequence[Record]) -> None:
    """Print the error of the latencies that were predicted from service times."""
    errors = [error for record in records for error in prediction_errors(record)]
    if errors:
        text = f"Predicted from service times: p99 within {statistics.median(errors):.0%} of the measured (median of"
        console.print(f"{text} {len(errors)} steady rungs up to 90% of the peak).", highlight=False, soft_wrap=True)

"""Word what stands below the table of an outcome: footnotes, verdicts, the networks and what the marks mean."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

from sweep.analysis import drifted, fairness, find_bottleneck, light, near, prediction_errors, probably_higher, score
from sweep.report.columns import shown_axes, tail_of
from sweep.report.comparison import builds_line, compared, same_engine_note, same_engines
from sweep.report.recommendation import names
from sweep.report.stage_shares import stage_lines
from sweep.spec import Verdict
from sweep.system import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.report.recommendation import Answer
    from sweep.spec import Axis, PercentileName
    from sweep.storage import Peak, Point, Record, ShapeChange

_FOOTNOTED = "precision.name"  # column of the marks that refer to a record's notes
_MILLION = 1_000_000
_SMALL_GMACS = 0.1
_SAME_SPEED = ("host", "os", "python", "sweep")  # facts that may differ within one sweep
_MOST_MACHINES = 4  # values of a fact that are named


class Footnotes:
    """Number the footnotes of a table, each once, and tell which of them a record refers to.

    Args:
        records: records of the table, in the order of the rows.

    Attributes:
        axes: axes that have a column.
        texts: the footnotes, in the order of their numbers, from 1.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.axes: Sequence[Axis] = shown_axes(records)
        self._comparison = compared(records)
        self._same = same_engines(records)
        precision = next((axis for axis in self.axes if axis.info.key == _FOOTNOTED), None)
        self._marked = precision or self.axes[-1]
        notes = {record.key: self._notes(record) for record in records}
        self.texts: tuple[str, ...] = tuple(dict.fromkeys(note for own in notes.values() for note in own))
        self._numbers = {key: [self.texts.index(note) + 1 for note in own] for key, own in notes.items()}

    def _notes(self, record: Record) -> list[str]:
        notes = list((record.realised or {}).get("notes") or [])
        same = self._same.get(record.key)
        return [*notes, *([same_engine_note(same)] if same else [])]

    def numbers(self, record: Record) -> list[int]:
        """Return the numbers of the footnotes of a record."""
        return self._numbers[record.key]

    def is_marked(self, axis: Axis) -> bool:
        """Tell whether the column of `axis` has the marks."""
        return axis is self._marked

    def cell(self, record: Record, axis: Axis) -> str:
        """Return the value of an axis, without marks."""
        return self._comparison.cell(record.key, axis)


def below_table(records: Sequence[Record]) -> list[str]:
    """Return the lines below the table: networks, verdicts, what the marks of latencies mean, predictions."""
    return [
        *dict.fromkeys(line for record in records if (line := cost_line(record))),
        *score_lines(records),
        *verdict_lines(records, compared(records).labels),
        *_unsteady_line(records),
        *_higher_line(records, tail_of(records)),
        *_prediction_line(records),
        *shape_lines(records, compared(records).labels),
        *stage_lines(records, compared(records).labels),
        *_machines_line(records),
    ]


def shape_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """Return a line for each record whose requests have several shapes: the latency of each, and what padding costs.

    The closed loop's, or those of the lowest rate where there is none; a second line has the dearest change of shape.
    """
    lines = []
    for record in records:
        part: Peak | Point | None = record.peak or next(iter(record.points), None)
        if part is None or "shapes" not in part:
            continue
        figures = []
        for item in part["shapes"]:
            known = [(name, item["latency_ms"][name]) for name in ("p50", "p99")]
            texts = [f"{name} {value:.3g} ms" for name, value in known if value is not None]
            figures.append(f"{item['shape']} ({item['share']:.0%}) {', '.join(texts) or 'too few requests'}")
        load = "closed loop" if record.peak else "lowest rate"
        padding = f"{part.get('padding', 0.0):.1%} of the computed elements are padding"
        lines.append(f"{labels[record.key]}: {load} by shape: {'; '.join(figures)}; {padding}")
        changes = (record.realised or {}).get("shape_changes") or []
        if changes:
            worst = max(changes, key=lambda change: change["change_ms"] - change["stay_ms"])
            lines.append(
                f"{labels[record.key]}: the dearest change of shape is {worst['after']} to {worst['shape']}: "
                f"{worst['change_ms']:.3g} ms after it, {worst['stay_ms']:.3g} ms when the shape stays"
                f"{_by_events(worst)}"
            )
    return lines


def _by_events(change: ShapeChange) -> str:
    """Word what CUDA events and the host's clock say of a change of shape; "" without a GPU."""
    if "gpu_change_ms" not in change or "enqueue_change_ms" not in change:
        return ""
    return (
        f"; between CUDA events {change['gpu_change_ms']:.3g} and {change['gpu_stay_ms']:.3g} ms, in the enqueue "
        f"{change['enqueue_change_ms']:.3g} and {change['enqueue_stay_ms']:.3g} ms"
    )


def _machines_line(records: Sequence[Record]) -> list[str]:
    """Return a line where rows were measured on machines that differ in what decides their speed, else none."""
    parts = []
    for name in environment.COMPARED:
        counts = Counter(str(value) for record in records if (value := dict(record.facts).get(name)) is not None)
        if len(counts) > 1 and name not in _SAME_SPEED:
            texts = [f"{value} ({count})" for value, count in counts.most_common(_MOST_MACHINES)]
            more = f" and {len(counts) - _MOST_MACHINES} more" if len(counts) > _MOST_MACHINES else ""
            parts.append(f"{name} {', '.join(texts)}{more}")
    return [f"not all variants were measured on one machine: {'; '.join(parts)}"] if parts else []


def bottleneck_lines(recommendation: Answer) -> list[str]:
    """Return what limits the best variant of each sweep and model, with the experiment that would move it."""
    lines = []
    several = len({part.best.sweep for part in recommendation.parts if part.best is not None}) > 1
    for part in recommendation.parts:
        limit = None if part.best is None else find_bottleneck(part.best)
        if limit is not None and part.best is not None:
            sweep = f" {part.best.sweep}:" if several else ""
            model = f" {part.best.variant.get('model')}" if len(recommendation.parts) > 1 else ""
            lines.append(f"What limits{sweep}{model or ' it'}: {limit.text}")
    return lines


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


def verdict_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """Return a line for each thing that qualifies variants: an error, a drift, an estimate, builds, unfairness.

    Variants of which the same is to be said share a line.
    """
    concerned: dict[str, list[Record]] = {}
    for record in records:
        remarks = []
        if record.error is not None:
            remarks.append(f"{record.status} at {record.error['stage']}: {record.error['message']}")
        elif record.slo is not None and record.slo.get("reason"):
            remarks.append(str(record.slo["reason"]))
        if record.drift is not None and drifted(record):
            remarks.append(f"the machine drifted: {record.drift['reason']}")
        remarks += [line for line in (_estimate(record), builds_line(record), _unfair(record)) if line is not None]
        for remark in remarks:
            concerned.setdefault(remark, []).append(record)
    return [f"{names(those, labels)}: {remark}" for remark, those in concerned.items()]


def _unsteady_line(records: Sequence[Record]) -> list[str]:
    """Return a line that counts the points that are not ok; none where all are."""
    counts: dict[str, int] = {}
    parts: list[Point | Peak] = [point for record in records for point in record.points]
    parts += [record.peak for record in records if record.peak]
    for part in parts:
        if part["verdict"] not in {Verdict.OK, Verdict.OVERLOADED}:
            counts[part["verdict"]] = counts.get(part["verdict"], 0) + 1
    verdict_counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    line = f"Of {len(parts)} points: {verdict_counts} (~ in the table; each has its reason in its record)."
    return [line] if counts else []


def _estimate(record: Record) -> str | None:
    """Word the likeliest capacity, which lies above the confirmed one: that errs on the safe side."""
    interval = record.slo.get("estimate_interval") if record.slo else None
    likeliest = record.slo.get("estimate_ips") if record.slo else None
    if not interval or not likeliest:
        return None
    text = f"its capacity is estimated at {likeliest:,.0f} samples/s"
    return f"{text} (95%: {interval[0]:,.0f} to {interval[1]:,.0f}), not confirmed"


def _unfair(record: Record) -> str | None:
    """Word the first part of a record in which the clients were not served equally; None where they were."""
    parts: list[tuple[str, Peak | Point]] = [("in the closed loop", record.peak)] if record.peak else []
    parts += [
        (f"at {point['offered_ips']:,.0f} samples/s", point)
        for point in record.points
        if point["verdict"] not in {Verdict.OVERLOADED, Verdict.INVALID}
    ]
    for load, part in parts:
        reason = fairness.unfair(part)
        if reason is not None:
            return f"its clients were not served alike {load}: {reason}"
    return None


def _higher_line(records: Sequence[Record], tail: PercentileName) -> list[str]:
    """Return the explanation of the mark ``>`` where a latency has it."""
    points = [point for record in records for point in (light(record), near(record, 0.8)) if point is not None]
    if not any(probably_higher(point, name) for point in points for name in ("p50", tail)):
        return []
    text = "> in front of a latency: too few of its requests are independent; it is probably higher. Longer windows"
    return [f"{text} (load.min_s=10) say."]


def _prediction_line(records: Sequence[Record]) -> list[str]:
    """Return the error of the latencies that were predicted from service times."""
    errors = [error for record in records for error in prediction_errors(record)]
    if not errors:
        return []
    text = f"Predicted from service times: p99 within {statistics.median(errors):.0%} of the measured (median of"
    return [f"{text} {len(errors)} steady rungs up to 90% of the peak)."]

"""Record + raw samples -> record with its peak, points and SLO. Run again, it gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep import capacity, fairness, gpu_state, predict, samples, stats, summary
from sweep.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.axes import JsonDict
    from sweep.record import Record, Store

_KNEE = 0.9  # of the peak, up to which a prediction is held to what was measured
_NEAR = 0.1  # of the peak, that a rung may be off and still stand for a fraction


def summarised(made: Record, points: Sequence[samples.PointSamples], slo: tuple[str, float] | None) -> Record:
    """The record with its peak, points and SLO recomputed from raw samples."""
    if not points:
        return made
    closed = [point for point in points if point.kind == "closed"]
    service = predict.service_of(points)
    found = replace(
        made,
        peak={**summary.closed_summary(closed), **fairness.shared(closed)} if closed else None,
        points=[_point(rung, service) for rung in _ladder(points)],
        telemetry=_telemetry(points),
    )
    return _with_slo(found, points, slo) if slo else found


def _point(rung: Sequence[samples.PointSamples], service: predict.Service | None) -> JsonDict:
    """A rung's summary, and what was predicted of it where the closed loop says enough."""
    found = {**summary.open_summary(rung), **fairness.shared(rung)}
    known = service if rung[0].gathers is None else None  # a queue that gathers is not predicted
    found["prediction"] = predict.point_prediction(known, rung, found["latency_ms"]) if known else None
    return found


def _telemetry(points: Sequence[samples.PointSamples]) -> JsonDict | None:
    """GPU state over all windows; the energy of a sample is the closed loop's, where there is one."""
    found = gpu_state.merged([point.telemetry for point in points])
    closed = gpu_state.merged([point.telemetry for point in points if point.kind == "closed"])
    if found is None or closed is None:
        return found
    return found | {name: closed[name] for name in ("energy_j", "samples", "energy_j_per_sample")}


def rejudged(store: Store, key: str, slo: tuple[str, float] | None) -> Record | None:
    """The record of ``key`` judged by ``slo``; rewritten if that changes it. None if it cannot be read.

    Without an SLO the record stays as it is, an earlier judgement included.
    """
    try:
        found = store.read(key)
    except RecordError:
        return None
    if slo is None or not found.points or _judged_by(found, slo):
        return found
    try:
        points = samples.load(store.samples_path(key))
    except RecordError:
        return found
    judged = _with_slo(found, points, slo)
    store.write(judged)
    return judged


def _judged_by(found: Record, slo: tuple[str, float]) -> bool:
    known = found.slo or {}
    return (known.get("percentile"), known.get("limit_ms")) == (stats.PERCENTILES[slo[0]] * 100, slo[1])


def _with_slo(found: Record, points: Sequence[samples.PointSamples], slo: tuple[str, float]) -> Record:
    searched = capacity.searched(points, *slo)
    if searched is not None:
        return replace(found, slo=searched)
    verdicts = [point["verdict"] for point in found.points]
    judged = summary.slo_summary(_ladder(points), verdicts, stats.PERCENTILES[slo[0]], slo[1])
    return replace(found, slo=judged if verdicts else None)


def _ladder(points: Sequence[samples.PointSamples]) -> list[list[samples.PointSamples]]:
    """Open-loop samples by rung, lowest rate first; each with one entry a pass."""
    rungs: dict[int, list[samples.PointSamples]] = {}
    for point in points:
        if point.kind not in samples.ASIDE:
            rungs.setdefault(point.index, []).append(point)
    return [rungs[index] for index in sorted(rungs)]


def joules(record: Record) -> float | None:
    """Energy of a sample, where a GPU's counter told it."""
    return (record.telemetry or {}).get("energy_j_per_sample")


def score(record: Record) -> float | None:
    """Share of labelled samples that the engine got right, where there are some."""
    return (record.accuracy or {}).get("score")


def light(record: Record) -> JsonDict | None:
    """The lowest rung that has a median and was not spoilt by the generator or by overload."""
    return next((point for point in record.points if _shown(point)), None)


def near(record: Record, fraction: float) -> JsonDict | None:
    """The rung offered nearest to ``fraction`` of the peak, within a tenth of it, under the same condition."""
    if record.peak is None or not record.peak["ips"]:
        return None
    peak = record.peak["ips"]
    offset = {
        round(abs(point["offered_ips"] / peak - fraction), 6): point
        for point in reversed(record.points)
        if _shown(point)
    }
    nearest = min(offset, default=None)
    return offset[nearest] if nearest is not None and nearest <= _NEAR else None


def prediction_errors(record: Record) -> list[float]:
    """|predicted / measured - 1| of the p99 of each rung below the knee: up to 90% of the peak, verdict ``ok``."""
    peak = (record.peak or {}).get("ips") or 0.0
    counted = [item for item in record.points if item["verdict"] == "ok" and item["offered_ips"] <= _KNEE * peak]
    errors = [(item.get("prediction") or {}).get("error", {}).get("p99") for item in counted]
    return [abs(error) for error in errors if error is not None]


def _shown(point: JsonDict) -> bool:
    return point["verdict"] in {"ok", "unstable", "short"} and point["latency_ms"]["p50"] is not None


def drifted(record: Record) -> bool:
    """Whether the machine changed while the variant was measured."""
    return record.drift is not None and record.drift["verdict"] == "drifted"


def carried_tail(points: Iterable[JsonDict]) -> str | None:
    """The highest percentile, up to p99, that any of the points carries; None for none."""
    known = [point["latency_ms"] for point in points if _shown(point)]
    return next((name for name in ("p99", "p95", "p90", "p50") if any(item[name] is not None for item in known)), None)

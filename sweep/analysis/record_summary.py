"""Record + raw samples -> record with its peak, points and SLO. Run again, it gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.analysis import fairness, gpu_telemetry, percentiles, point_summary, queue_model, slo_capacity
from sweep.storage import samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict
    from sweep.storage.record import Record


def summarised(made: Record, points: Sequence[samples.PointSamples], slo: tuple[str, float] | None) -> Record:
    """The record with its peak, points and SLO recomputed from raw samples."""
    if not points:
        return made
    closed = [point for point in points if point.kind == "closed"]
    service = queue_model.estimate_service(points)
    found = replace(
        made,
        peak={**point_summary.closed_summary(closed), **fairness.shared(closed)} if closed else None,
        points=[_point(rung, service) for rung in _ladder(points)],
        telemetry=_telemetry(points),
    )
    return with_slo(found, points, slo) if slo else found


def _point(rung: Sequence[samples.PointSamples], service: queue_model.Service | None) -> JsonDict:
    """A rung's summary, and what was predicted of it where the closed loop says enough."""
    found = {**point_summary.open_summary(rung), **fairness.shared(rung)}
    known = service if rung[0].gathers is None else None  # a queue that gathers is not predicted
    found["prediction"] = queue_model.predict_point(known, rung, found["latency_ms"]) if known else None
    return found


def _telemetry(points: Sequence[samples.PointSamples]) -> JsonDict | None:
    """GPU state over all windows; the energy of a sample is the closed loop's, where there is one."""
    found = gpu_telemetry.merged([point.telemetry for point in points])
    closed = gpu_telemetry.merged([point.telemetry for point in points if point.kind == "closed"])
    if found is None or closed is None:
        return found
    return found | {name: closed[name] for name in ("energy_j", "samples", "energy_j_per_sample")}


def with_slo(found: Record, points: Sequence[samples.PointSamples], slo: tuple[str, float]) -> Record:
    """Return `found` judged by `slo`: by its searched capacity if it was searched, else by its rungs."""
    searched = slo_capacity.searched(points, *slo)
    if searched is not None:
        return replace(found, slo=searched)
    verdicts = [point["verdict"] for point in found.points]
    judged = slo_capacity.slo_summary(_ladder(points), verdicts, percentiles.PERCENTILES[slo[0]], slo[1])
    return replace(found, slo=judged if verdicts else None)


def _ladder(points: Sequence[samples.PointSamples]) -> list[list[samples.PointSamples]]:
    """Open-loop samples by rung, lowest rate first; each with one entry a pass."""
    rungs: dict[int, list[samples.PointSamples]] = {}
    for point in points:
        if point.kind not in samples.ASIDE:
            rungs.setdefault(point.index, []).append(point)
    return [rungs[index] for index in sorted(rungs)]

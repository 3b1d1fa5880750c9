"""Summarise raw samples into a record. Run again, it gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.analysis import (
    fairness,
    gpu_telemetry,
    point_summary,
    queue_model,
    shape_summary,
    slo_capacity,
    stage_summary,
    start_spread,
)
from sweep.spec import LoadAxes, Pipeline, from_record
from sweep.storage import samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import Slo
    from sweep.storage import GpuState, Peak, Point, Record


def summarise(record: Record, points: Sequence[samples.PointSamples], slo: Slo | None) -> Record:
    """Return `record` with its peak, points and SLO computed from raw samples."""
    if not points:
        return record
    closed = [point for point in points if point.kind == "closed"]
    service, load, pipeline = queue_model.estimate_service(points), _load(record), _pipeline(record)
    summary = replace(
        record,
        peak=_peak(closed, load, pipeline) if closed else None,
        points=[_point(rung, service, load, pipeline) for rung in _ladder(points)],
        telemetry=_telemetry(points),
    )
    return with_slo(summary, points, slo) if slo else summary


def _load(record: Record) -> LoadAxes:
    """Return the load of a record; that of the defaults where a damaged record holds something else."""
    load: object = from_record(record.variant).load
    return load if isinstance(load, LoadAxes) else LoadAxes()


def _pipeline(record: Record) -> Pipeline | None:
    """Return the pipeline of a record; None for one network, and where a damaged record holds something else."""
    pipeline: object = from_record(record.variant).pipeline
    return pipeline if isinstance(pipeline, Pipeline) else None


def _peak(closed: Sequence[samples.PointSamples], load: LoadAxes, pipeline: Pipeline | None) -> Peak:
    """Summarise the closed loop of every pass, with what starts and engines differ by."""
    peak: Peak = {
        **point_summary.closed_summary(closed),
        **fairness.shared(closed),
        **shape_summary.shaped(closed, load),
        **stage_summary.staged(closed, pipeline),
    }
    spread = start_spread.levels_of(peak.get("passes_ips") or [], load.builds)
    if spread is not None:
        peak["start_cv"], peak["build_cv"] = spread["start_cv"], spread["build_cv"]
    return peak


def _point(
    rung: Sequence[samples.PointSamples],
    service: queue_model.Service | None,
    load: LoadAxes,
    pipeline: Pipeline | None,
) -> Point:
    """Summarise a rung, and predict it where the closed loop has the service times."""
    summary = point_summary.open_summary(rung)
    predictable = service if rung[0].gathers is None else None  # a queue that gathers is not predicted
    prediction = queue_model.predict_point(predictable, rung, summary["latency_ms"]) if predictable else None
    shared: Point = {
        **summary,
        **fairness.shared(rung),
        **shape_summary.shaped(rung, load),
        **stage_summary.staged(rung, pipeline),
    }
    return {**shared, "prediction": prediction}


def _telemetry(points: Sequence[samples.PointSamples]) -> GpuState | None:
    """Summarise the GPU over all windows; the energy of a sample is the closed loop's, where there is one."""
    state = gpu_telemetry.merged([point.telemetry for point in points])
    closed = gpu_telemetry.merged([point.telemetry for point in points if point.kind == "closed"])
    if state is None or closed is None:
        return state
    return {
        **state,
        "energy_j": closed["energy_j"],
        "samples": closed["samples"],
        "energy_j_per_sample": closed["energy_j_per_sample"],
    }


def with_slo(record: Record, points: Sequence[samples.PointSamples], slo: Slo) -> Record:
    """Return `record` judged by `slo`: by its searched capacity if it was searched, else by its rungs."""
    searched = slo_capacity.slo_result(points, slo)
    if searched is not None:
        return replace(record, slo=searched)
    verdicts = [point["verdict"] for point in record.points]
    judged = slo_capacity.slo_summary(_ladder(points), verdicts, slo)
    return replace(record, slo=judged if verdicts else None)


def _ladder(points: Sequence[samples.PointSamples]) -> list[list[samples.PointSamples]]:
    """Group the open-loop samples by rung, lowest rate first; each with one entry a pass."""
    rungs: dict[int, list[samples.PointSamples]] = {}
    for point in points:
        if point.kind not in samples.ASIDE:
            rungs.setdefault(point.index, []).append(point)
    return [rungs[index] for index in sorted(rungs)]

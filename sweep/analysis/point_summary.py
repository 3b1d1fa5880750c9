"""Summarise raw samples into the record's peak and points, each with a verdict and its reason.

Pure: the same samples give the same summary for as long as they are on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import gpu_telemetry, intervals, percentiles
from sweep.analysis.measured_window import completions, issue_lag_ms, window_ips
from sweep.analysis.verdicts import closed_verdict, open_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Batching, ClosedRate, CpuLoad, GpuMs, GpuTimes, PartTimes, Peak, Point, PointSamples


def closed_summary(passes: Sequence[PointSamples]) -> Peak:
    """Return the record's ``peak`` from the closed-loop samples of every pass, pooled.

    Its interval is that of ``intervals.rate_interval``.
    """
    latencies = [samples.latency_ms for samples in passes]
    telemetry = gpu_telemetry.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_telemetry.marked(closed_verdict(passes), telemetry)
    rate = closed_rate(passes)
    return {
        "ips": rate["ips"],
        "interval": rate["interval"],
        "batches": rate["batches"],
        "passes_ips": rate["passes_ips"],
        "requests": sum(map(len, latencies)),
        "latency_ms": percentiles.passes_summary(latencies),
        "p99_interval": intervals.percentile_intervals(latencies)["p99"],
        "gpu_ms": _gpu_ms(passes),
        "enqueue_ms": _part_ms([samples.enqueue_ms for samples in passes], passes),
        "telemetry": telemetry,
        "cpu_load": _cpu_load(passes),
        "verdict": verdict,
        "reason": reason,
    }


def closed_rate(passes: Sequence[PointSamples]) -> ClosedRate:
    """Return the throughput of the closed loop, and of each pass."""
    each = [window_ips(samples) for samples in passes]
    ips = _mean(each)
    interval, batches = intervals.rate_interval(ips or 0.0, [completions(samples) for samples in passes])
    return {"ips": ips, "interval": interval, "batches": batches, "passes_ips": each}


def _gpu_ms(passes: Sequence[PointSamples]) -> GpuTimes | None:
    """Return the time of each part on the GPU; None where a pass did not time one of them."""
    h2d = [samples.gpu_h2d_ms for samples in passes]
    compute = [samples.gpu_compute_ms for samples in passes]
    d2h = [samples.gpu_d2h_ms for samples in passes]
    if any(values is None for values in (*h2d, *compute, *d2h)):
        return None
    return {"h2d": _part_ms(h2d, passes), "compute": _part_ms(compute, passes), "d2h": _part_ms(d2h, passes)}


def _part_ms(timed_ms: Sequence[GpuMs | None], passes: Sequence[PointSamples]) -> PartTimes | None:
    """Summarise one timed part over the measured requests of every pass; None where a pass did not time it."""
    timed = [values for values in timed_ms if values is not None]
    if len(timed) < len(passes):
        return None
    measured = [values[samples.measured] for values, samples in zip(timed, passes, strict=True)]
    pooled = np.concatenate(measured).astype(np.float64)
    pooled = pooled[~np.isnan(pooled)]
    summary = percentiles.latency_summary(pooled)
    return {"mean": summary["mean"], "p50": summary["p50"], "p99": summary["p99"]} if len(pooled) else None


def _cpu_load(passes: Sequence[PointSamples]) -> CpuLoad | None:
    """Return the mean use of the cores; None where a pass did not measure it."""
    loads = [samples.cpu_load for samples in passes if samples.cpu_load is not None]
    if len(loads) < len(passes):
        return None
    return {
        "own": sum(load["own"] for load in loads) / len(loads),
        "other": sum(load["other"] for load in loads) / len(loads),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def open_summary(passes: Sequence[PointSamples]) -> Point:
    """Return one of the record's ``points`` from the samples of every pass at that rate."""
    first = passes[0]
    latencies = [samples.latency_ms for samples in passes]
    telemetry = gpu_telemetry.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_telemetry.marked(open_verdict(passes), telemetry)
    return {
        "offered_ips": (first.offered_rps or 0.0) * first.batch,
        "achieved_ips": _mean([window_ips(samples) for samples in passes]),
        "requests": sum(map(len, latencies)),
        "latency_ms": percentiles.passes_summary(latencies),
        "interval": intervals.percentile_intervals(latencies),
        "independent": intervals.independent_counts(latencies),
        "issue_lag_ms": issue_lag_ms(passes),
        "batching": batch_fill(passes),
        "telemetry": telemetry,
        "cpu_load": _cpu_load(passes),
        "verdict": verdict,
        "reason": reason,
    }


def batch_fill(passes: Sequence[PointSamples]) -> Batching | None:
    """Compute how full the gathered batches of the measured requests were, each inference counted once.

    None where the server gathers none.
    """
    ran = [samples.ran_with[samples.measured] for samples in passes if samples.ran_with is not None]
    most = passes[0].gathers
    inferences = float(sum((1 / part).sum() for part in ran))
    if most is None or not inferences:
        return None
    mean = sum(len(part) for part in ran) / inferences
    return {"mean_batch": mean, "fill": mean / most}

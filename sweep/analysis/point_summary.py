"""Raw samples -> what the record says of the peak, each point and the SLO, with a verdict and its reason.

Pure: the same samples give the same summary for as long as they are on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import gpu_telemetry, intervals, percentiles
from sweep.analysis.measured_window import completions, issue_lag_ms, window_ips
from sweep.analysis.verdicts import closed_verdict, open_verdict
from sweep.storage.samples import GPU_ARRAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict
    from sweep.storage.samples import PointSamples


def closed_summary(passes: Sequence[PointSamples]) -> JsonDict:
    """The record's ``peak`` from the closed-loop samples of every pass, pooled.

    Returns:
        {ips, interval, batches, passes_ips, requests, latency_ms, gpu_ms, enqueue_ms, telemetry, verdict, reason};
        interval is the 95% interval of the throughput from that many batch means (``intervals.rate_interval``); gpu_ms
        and enqueue_ms are None where the backend does not time them.
    """
    latency = np.concatenate([samples.latency_ms for samples in passes])
    telemetry = gpu_telemetry.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_telemetry.marked(closed_verdict(passes), telemetry)
    return {
        **closed_rate(passes),
        "requests": len(latency),
        "latency_ms": percentiles.latency_summary(latency),
        "gpu_ms": _gpu_ms(passes),
        "enqueue_ms": _part_ms(passes, "enqueue_ms"),
        "telemetry": telemetry,
        "verdict": verdict,
        "reason": reason,
    }


def closed_rate(passes: Sequence[PointSamples]) -> JsonDict:
    """{ips, interval, batches, passes_ips}: the throughput of the closed loop, and of each pass."""
    each = [window_ips(samples) for samples in passes]
    ips = _mean(each)
    interval, batches = intervals.rate_interval(ips or 0.0, [completions(samples) for samples in passes])
    return {"ips": ips, "interval": interval, "batches": batches, "passes_ips": each}


def _gpu_ms(passes: Sequence[PointSamples]) -> JsonDict | None:
    """{h2d, compute, d2h}, each {mean, p50, p99} in ms over the measured requests of every pass, or None."""
    if any(getattr(samples, name) is None for samples in passes for name in GPU_ARRAYS):
        return None
    return {name.removeprefix("gpu_").removesuffix("_ms"): _part_ms(passes, name) for name in GPU_ARRAYS}


def _part_ms(passes: Sequence[PointSamples], name: str) -> JsonDict | None:
    """{mean, p50, p99} in ms of one timed part over the measured requests of every pass; None where none was timed."""
    timed = [(getattr(samples, name), samples.measured) for samples in passes]
    if any(values is None for values, _ in timed):
        return None
    pooled = np.concatenate([values[keep] for values, keep in timed]).astype(np.float64)
    pooled = pooled[~np.isnan(pooled)]
    said = percentiles.latency_summary(pooled)
    return {key: said[key] for key in ("mean", "p50", "p99")} if len(pooled) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def open_summary(passes: Sequence[PointSamples]) -> JsonDict:
    """One of the record's ``points`` from the samples of every pass at that rate, pooled.

    Returns:
        {offered_ips, achieved_ips, requests, latency_ms, interval, issue_lag_ms, batching, telemetry, verdict, reason};
        batching is {mean_batch, fill} where the server gathered requests, else None.
    """
    first = passes[0]
    latency = np.concatenate([samples.latency_ms for samples in passes])
    telemetry = gpu_telemetry.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_telemetry.marked(open_verdict(passes), telemetry)
    return {
        "offered_ips": (first.offered_rps or 0.0) * first.batch,
        "achieved_ips": _mean([window_ips(samples) for samples in passes]),
        "requests": len(latency),
        "latency_ms": percentiles.latency_summary(latency),
        "interval": intervals.percentile_intervals([samples.latency_ms for samples in passes]),
        "issue_lag_ms": issue_lag_ms(passes),
        "batching": batch_fill(passes),
        "telemetry": telemetry,
        "verdict": verdict,
        "reason": reason,
    }


def batch_fill(passes: Sequence[PointSamples]) -> JsonDict | None:
    """How full the gathered batches of the measured requests were; None where the server gathers none.

    Returns:
        {mean_batch, fill}: mean requests per inference (each inference counted once), and that over the batch.
    """
    ran = [samples.ran_with[samples.measured] for samples in passes if samples.ran_with is not None]
    most = passes[0].gathers
    inferences = float(sum((1 / part).sum() for part in ran))
    if most is None or not inferences:
        return None
    mean = sum(len(part) for part in ran) / inferences
    return {"mean_batch": mean, "fill": mean / most}

"""Raw samples -> what the record says of the peak, each point and the SLO, with a verdict and its reason.

Pure: the same samples give the same summary for as long as they are on disk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep import gpu_state, intervals, stats
from sweep.samples import GPU_ARRAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.axes import JsonDict
    from sweep.samples import Ints, PointSamples

WINDOWS = 3
STABLE_WITHIN = 0.05
LAG_SHARE = 0.25  # of the p99 latency that may be the generator's own issue lag
LAG_FLOOR_MS = 0.1
_CHANCE = 3.0  # standard deviations of a Poisson count


def window_ips(samples: PointSamples) -> float | None:
    """Samples/s completed inside the measured window; None where nothing was measured."""
    start, end = window(samples)
    if end <= start:
        return None
    inside = (samples.done_ns > start) & (samples.done_ns <= end)
    return float(np.count_nonzero(inside) * samples.batch / ((end - start) / 1e9))


def window(samples: PointSamples) -> tuple[int, int]:
    """Start and end of the measured window in ns: first to last measured arrival (closed: until a stream ends)."""
    keep = samples.measured
    if not keep.any():
        return 0, 0
    start = int(samples.scheduled_ns[keep].min())
    if samples.kind != "closed":
        return start, int(samples.scheduled_ns[keep].max())
    lanes = samples.lane
    return start, min(int(samples.done_ns[keep & (lanes == lane)].max()) for lane in np.unique(lanes[keep]))


def measured_window(samples: PointSamples) -> tuple[int, int, int] | None:
    """Start and end of the measured window in ns on the session's clock, and the samples completed in it.

    None where nothing was measured, or in a file that does not tell when.
    """
    start, end = window(samples)
    rate_ips = window_ips(samples)
    if rate_ips is None or samples.origin_ns is None:
        return None
    return samples.origin_ns + start, samples.origin_ns + end, round(rate_ips * (end - start) / 1e9)


def closed_summary(passes: Sequence[PointSamples]) -> JsonDict:
    """The record's ``peak`` from the closed-loop samples of every pass, pooled.

    Returns:
        {ips, interval, batches, passes_ips, requests, latency_ms, gpu_ms, enqueue_ms, telemetry, verdict, reason};
        interval is the 95% interval of the throughput from that many batch means (``intervals.rate_interval``); gpu_ms
        and enqueue_ms are None where the backend does not time them.
    """
    latency = np.concatenate([samples.latency_ms for samples in passes])
    telemetry = gpu_state.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_state.marked(closed_verdict(passes), telemetry)
    return {
        **closed_rate(passes),
        "requests": len(latency),
        "latency_ms": stats.latency_summary(latency),
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
    interval, batches = intervals.rate_interval(ips or 0.0, [_completions(samples) for samples in passes])
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
    said = stats.latency_summary(pooled)
    return {key: said[key] for key in ("mean", "p50", "p99")} if len(pooled) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _completions(samples: PointSamples, third: int | None = None) -> stats.Floats:
    """Start of the measured window, or of a third of it, and each completion in it: ns, ascending."""
    start, end = window(samples)
    if third is not None:
        start, end = (start + (end - start) * (third + edge) // WINDOWS for edge in (0, 1))
    done = samples.done_ns[samples.measured]
    return np.sort(np.append(done[(done > start) & (done <= end)], start)).astype(np.float64)


def closed_verdict(passes: Sequence[PointSamples]) -> tuple[str, str | None]:
    """``ok``, or ``unstable`` / ``short`` with the reason."""
    if not all(samples.complete for samples in passes):
        return "short", "stopped at load.max_s before load.min_requests were done"
    for samples in passes:
        slow, fast = _extreme_thirds(samples)
        if fast > slow * (1 + STABLE_WITHIN):
            return "unstable", f"throughput moved between {slow:,.0f} and {fast:,.0f} samples/s in thirds of the window"
    return _tail_verdict(passes)


def _extreme_thirds(samples: PointSamples) -> tuple[float, float]:
    """Samples/s of the slowest and the fastest third of the window; the same twice where chance explains them.

    Chance explains them where their 99% intervals overlap (docs/decisions/0004, 0014).
    """
    start, end = window(samples)
    thirds = [_completions(samples, third) for third in range(WINDOWS)]
    rates = [(len(times) - 1) * samples.batch / max((end - start) / WINDOWS / 1e9, 1e-9) for times in thirds]
    slow, fast = int(np.argmin(rates)), int(np.argmax(rates))
    low, _ = intervals.rate_interval(rates[slow], thirds[slow : slow + 1], stats.CONFIDENCE)
    high, _ = intervals.rate_interval(rates[fast], thirds[fast : fast + 1], stats.CONFIDENCE)
    if low is not None and high is not None and low[1] >= high[0]:
        return rates[slow], rates[slow]
    return rates[slow], rates[fast]


def open_summary(passes: Sequence[PointSamples]) -> JsonDict:
    """One of the record's ``points`` from the samples of every pass at that rate, pooled.

    Returns:
        {offered_ips, achieved_ips, requests, latency_ms, interval, issue_lag_ms, batching, telemetry, verdict, reason};
        batching is {mean_batch, fill} where the server gathered requests, else None.
    """
    first = passes[0]
    latency = np.concatenate([samples.latency_ms for samples in passes])
    telemetry = gpu_state.merged([samples.telemetry for samples in passes])
    verdict, reason = gpu_state.marked(open_verdict(passes), telemetry)
    return {
        "offered_ips": (first.offered_rps or 0.0) * first.batch,
        "achieved_ips": _mean([window_ips(samples) for samples in passes]),
        "requests": len(latency),
        "latency_ms": stats.latency_summary(latency),
        "interval": intervals.percentile_intervals([samples.latency_ms for samples in passes]),
        "issue_lag_ms": issue_lag_ms(passes),
        "batching": batch_fill(passes),
        "telemetry": telemetry,
        "verdict": verdict,
        "reason": reason,
    }


def issue_lag_ms(passes: Sequence[PointSamples]) -> float | None:
    """p99 of issued - due over measured requests that found a free slot: the generator's own delay.

    Due is the scheduled arrival or, where the server gathers, when the batch was to leave.
    """
    lags = [_lag_ns(samples) for samples in passes]
    pooled = np.sort(np.concatenate(lags)) / 1e6
    return stats.percentile(pooled, 0.99) if len(pooled) else None


def _lag_ns(samples: PointSamples) -> Ints:
    keep = samples.measured & samples.slot_free
    due = samples.scheduled_ns if samples.ready_ns is None else samples.ready_ns
    return np.asarray(samples.issued_ns[keep] - due[keep])


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


def open_verdict(passes: Sequence[PointSamples]) -> tuple[str, str | None]:
    """``ok``, or ``overloaded`` / ``invalid`` / ``short`` / ``unstable`` with the reason."""
    if any(samples.overloaded for samples in passes):
        return "overloaded", "a request waited longer than load.max_wait_s for a free stream"
    traced = passes[0].kind == "trace"  # one replay of arrivals that need not be steady, nor end with the queue empty
    behind = 0.0 if traced else max(_behind(samples) for samples in passes)
    if behind > 0:
        return "overloaded", f"completions fell {behind:.0%} behind the arrivals inside the window"
    lag = issue_lag_ms(passes)
    ordered = np.sort(np.concatenate([samples.latency_ms for samples in passes]))
    if lag is not None and lag > max(LAG_FLOOR_MS, LAG_SHARE * stats.percentile(ordered, 0.99)):
        return "invalid", f"the load generator was the bottleneck: it issued {lag:.3f} ms late at p99"
    if not all(samples.complete for samples in passes):
        why = "the trace ended" if traced else "stopped at load.max_s"
        return "short", f"{why} before load.min_requests were done"
    return ("ok", None) if traced else _tail_verdict(passes)


def _behind(samples: PointSamples) -> float:
    """Share of the window's arrivals that the completions fell behind by; 0 where that is within 5% or chance."""
    start, end = window(samples)
    arrived = int(np.count_nonzero((samples.scheduled_ns >= start) & (samples.scheduled_ns <= end)))
    inside = int(np.count_nonzero((samples.done_ns > start) & (samples.done_ns <= end)))
    together = 1 if samples.ran_with is None else int(samples.ran_with.max(initial=1))
    in_flight = (int(samples.lane.max(initial=0)) + 1) * together
    behind = arrived - inside - in_flight
    if behind <= max(STABLE_WITHIN * arrived, _CHANCE * math.sqrt(arrived)):
        return 0.0
    return behind / arrived


def _tail_verdict(passes: Sequence[PointSamples]) -> tuple[str, str | None]:
    """``unstable`` where a percentile of two thirds of a window differs by more than 5% and more than chance.

    A plain 5% limit flags nearly every point of a queue that is perfectly steady (docs/decisions/0004), so the 99%
    intervals of the two thirds must also be apart. Looked at from the highest percentile that a third carries, up
    to p99, down to the median, which sees a slow drift that the few requests of the tail cannot.
    """
    for samples in passes:
        thirds = np.array_split(samples.latency_ms, WINDOWS)
        for name in _carried(min(len(part) for part in thirds)):
            moved = _moved(thirds, stats.PERCENTILES[name])
            if moved:
                return "unstable", f"{name} moved {moved:.0%} between thirds of the window"
    return "ok", None


def _moved(thirds: Sequence[stats.Floats], p: float) -> float:
    """By how much percentile ``p`` moved between the thirds; 0 where that is within 5% or chance."""
    tails = [stats.percentile(np.sort(part), p) for part in thirds]
    least, most = int(np.argmin(tails)), int(np.argmax(tails))
    if tails[most] <= tails[least] * (1 + STABLE_WITHIN):
        return 0.0
    below = intervals.order_statistics([thirds[least]], p, stats.CONFIDENCE)
    above = intervals.order_statistics([thirds[most]], p, stats.CONFIDENCE)
    return tails[most] / tails[least] - 1 if below[1] < above[0] else 0.0


def _carried(count: int) -> list[str]:
    """Names of the percentiles, from p99 down, that ``count`` samples carry."""
    return [name for name in ("p99", "p95", "p90", "p50") if count >= stats.min_count(stats.PERCENTILES[name])]


def slo_summary(
    points: Sequence[Sequence[PointSamples]], verdicts: Sequence[str], p: float, limit_ms: float
) -> JsonDict:
    """The record's ``slo``: the highest rung of the ladder that holds the SLO at 99% confidence.

    ``points`` holds the passes of each rung, lowest rate first, ``verdicts`` what ``open_verdict`` said of it.
    ``next_ips`` is the lowest rung that did not hold, so the capacity lies between the two; None means that no
    rung failed. Nothing is ``confirmed`` here: that takes a search (``sweep.capacity``).
    """
    capacity = confidence = following = None
    monotonic = True
    for passes, verdict in zip(points, verdicts, strict=True):
        rate = (passes[0].offered_rps or 0.0) * passes[0].batch
        latency = np.concatenate([samples.latency_ms for samples in passes])
        sure = stats.slo_confidence(latency, p, limit_ms) if len(latency) else 0.0
        if verdict in {"overloaded", "invalid"} or sure < stats.CONFIDENCE:
            following = rate if following is None else following
        elif following is None:
            capacity, confidence = rate, sure
        else:
            monotonic = False
    return {
        "percentile": p * 100,
        "limit_ms": limit_ms,
        "capacity_ips": capacity,
        "confidence": confidence,
        "next_ips": following,
        "monotonic": monotonic,
        "confirmed": False,
        "reason": None,
        "probes": [],
    }

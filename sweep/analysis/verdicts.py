"""Decide the verdict of a load point from its samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import intervals, percentiles
from sweep.analysis.measured_window import WINDOWS, completions, issue_lag_ms, window
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import PercentileName
    from sweep.storage import PointSamples

STABLE_WITHIN = 0.05
LAG_SHARE = 0.25  # of the p99 latency that may be the generator's own issue lag
LAG_FLOOR_MS = 0.1
_LOOKED_AT: tuple[PercentileName, ...] = ("p99", "p95", "p90", "p50")
_CHANCE = 3.0  # standard deviations of a Poisson count


def closed_verdict(passes: Sequence[PointSamples]) -> tuple[Verdict, str | None]:
    """Decide what the closed loop is worth: ``ok``, or ``unstable`` or ``short`` with the reason."""
    if not all(samples.complete for samples in passes):
        return Verdict.SHORT, "stopped at load.max_s before load.min_requests were done"
    for samples in passes:
        slow, fast = _extreme_thirds(samples)
        if fast > slow * (1 + STABLE_WITHIN):
            moved = f"throughput moved between {slow:,.0f} and {fast:,.0f} samples/s in thirds of the window"
            return Verdict.UNSTABLE, moved
    return _tail_verdict(passes)


def _extreme_thirds(samples: PointSamples) -> tuple[float, float]:
    """Return samples/s of the slowest and the fastest third of the window; the same twice where chance explains them.

    Chance explains them where their 99% intervals overlap (docs/decisions/0004, 0014).
    """
    start, end = window(samples)
    thirds = [completions(samples, third) for third in range(WINDOWS)]
    rates = [(len(times) - 1) * samples.batch / max((end - start) / WINDOWS / 1e9, 1e-9) for times in thirds]
    slow, fast = int(np.argmin(rates)), int(np.argmax(rates))
    low, _ = intervals.rate_interval(rates[slow], thirds[slow : slow + 1], percentiles.CONFIDENCE)
    high, _ = intervals.rate_interval(rates[fast], thirds[fast : fast + 1], percentiles.CONFIDENCE)
    if low is not None and high is not None and low[1] >= high[0]:
        return rates[slow], rates[slow]
    return rates[slow], rates[fast]


def open_verdict(passes: Sequence[PointSamples]) -> tuple[Verdict, str | None]:
    """Decide what a point is worth: ``ok``, or another verdict with the reason."""
    if any(samples.overloaded for samples in passes):
        return Verdict.OVERLOADED, "a request waited longer than load.max_wait_s for a free stream"
    traced = passes[0].kind == "trace"  # one replay of arrivals that need not be steady, nor end with the queue empty
    behind = 0.0 if traced else max(_behind(samples) for samples in passes)
    if behind > 0:
        return Verdict.OVERLOADED, f"completions fell {behind:.0%} behind the arrivals inside the window"
    lag = issue_lag_ms(passes)
    ordered = np.sort(np.concatenate([samples.latency_ms for samples in passes]))
    if lag is not None and lag > max(LAG_FLOOR_MS, LAG_SHARE * percentiles.percentile(ordered, 0.99)):
        return Verdict.INVALID, f"the load generator was the bottleneck: it issued {lag:.3f} ms late at p99"
    if not all(samples.complete for samples in passes):
        ending = "the trace ended" if traced else "stopped at load.max_s"
        return Verdict.SHORT, f"{ending} before load.min_requests were done"
    return (Verdict.OK, None) if traced else _tail_verdict(passes)


def _behind(samples: PointSamples) -> float:
    """Return the share of the arrivals that the completions fell behind by; 0 where that is within 5% or chance."""
    start, end = window(samples)
    arrived = int(np.count_nonzero((samples.scheduled_ns >= start) & (samples.scheduled_ns <= end)))
    inside = int(np.count_nonzero((samples.done_ns > start) & (samples.done_ns <= end)))
    together = 1 if samples.ran_with is None else int(samples.ran_with.max(initial=1))
    in_flight = (int(samples.stream_id.max(initial=0)) + 1) * together
    behind = arrived - inside - in_flight
    if behind <= max(STABLE_WITHIN * arrived, _CHANCE * math.sqrt(arrived)):
        return 0.0
    return behind / arrived


def _tail_verdict(passes: Sequence[PointSamples]) -> tuple[Verdict, str | None]:
    """Return ``unstable`` where a percentile of two thirds of a window differs by more than 5% and more than chance.

    A plain 5% limit flags nearly every point of a queue that is perfectly steady (docs/decisions/0004), so the 99%
    intervals of the two thirds must also be apart. Looked at from the highest percentile that a third carries, up
    to p99, down to the median, which sees a slow drift that the few requests of the tail cannot.
    """
    for samples in passes:
        thirds = np.array_split(samples.latency_ms, WINDOWS)
        for name in _carried(min(len(part) for part in thirds)):
            moved = _moved(thirds, percentiles.PERCENTILES[name])
            if moved:
                return Verdict.UNSTABLE, f"{name} moved {moved:.0%} between thirds of the window"
    return Verdict.OK, None


def _moved(thirds: Sequence[percentiles.Floats], p: float) -> float:
    """Return by how much percentile ``p`` moved between the thirds; 0 where that is within 5% or chance."""
    tails = [percentiles.percentile(np.sort(part), p) for part in thirds]
    least, most = int(np.argmin(tails)), int(np.argmax(tails))
    if tails[most] <= tails[least] * (1 + STABLE_WITHIN):
        return 0.0
    below = intervals.order_statistics([thirds[least]], p, percentiles.CONFIDENCE)
    above = intervals.order_statistics([thirds[most]], p, percentiles.CONFIDENCE)
    return tails[most] / tails[least] - 1 if below[1] < above[0] else 0.0


def _carried(count: int) -> list[PercentileName]:
    """Return the names of the percentiles, from p99 down, that ``count`` samples carry."""
    return [name for name in _LOOKED_AT if count >= percentiles.min_count(percentiles.PERCENTILES[name])]

"""Decide the verdict of a load point from its samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles, stability
from sweep.analysis.measured_window import completions, issue_lag_ms, window
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import PointSamples

STABLE_WITHIN = 0.05
LAG_SHARE = 0.25  # of the p99 latency that may be the generator's own issue lag
LAG_FLOOR_MS = 0.1
_CHANCE = 3.0  # standard deviations of a Poisson count


def closed_verdict(passes: Sequence[PointSamples]) -> tuple[Verdict, str | None]:
    """Decide what the closed loop is worth: ``ok``, or ``unstable`` or ``short`` with the reason."""
    if not all(samples.complete for samples in passes):
        return Verdict.SHORT, "stopped at load.max_s before load.min_requests were done"
    gaps = [np.diff(completions(samples)) for samples in passes]
    stalled = max(map(stability.stall_share, gaps))
    if stalled:
        return Verdict.UNSTABLE, f"nothing was completed for {stalled:.0%} of the window"
    changed = stability.unsteady(gaps)
    if changed:
        return Verdict.UNSTABLE, f"throughput moved by {changed:.0%} within the window"
    return Verdict.OK, None


def open_verdict(passes: Sequence[PointSamples]) -> tuple[Verdict, str | None]:
    """Decide what a point is worth: ``ok``, or another verdict with the reason."""
    if any(samples.overloaded for samples in passes):
        return Verdict.OVERLOADED, "a request waited longer than load.max_wait_s for a free stream"
    traced = passes[0].kind == "trace"  # one replay of arrivals that need not be steady, nor end with the queue empty
    behind = falls_behind(passes)
    if behind > 0:
        return Verdict.OVERLOADED, f"completions fell {behind:.0%} behind the arrivals inside the window"
    lag = issue_lag_ms(passes)
    ordered = np.sort(np.concatenate([samples.latency_ms for samples in passes]))
    if lag is not None and lag > max(LAG_FLOOR_MS, LAG_SHARE * percentiles.percentile(ordered, 0.99)):
        return Verdict.INVALID, f"the load generator was the bottleneck: it issued {lag:.3f} ms late at p99"
    if not all(samples.complete for samples in passes):
        ending = "the trace ended" if traced else "stopped at load.max_s"
        return Verdict.SHORT, f"{ending} before load.min_requests were done"
    changed = 0.0 if traced else stability.unsteady([stability.service_times_ms(samples) for samples in passes])
    if changed:
        return Verdict.UNSTABLE, f"the service time moved by {changed:.0%} within the window"
    return Verdict.OK, None


def falls_behind(passes: Sequence[PointSamples]) -> float:
    """Return the share of the arrivals by which the backlog grew in the worst pass; 0 where the server kept up."""
    if passes[0].kind == "trace":
        return 0.0
    return max(*map(_behind, passes), stability.falls_behind(passes))


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

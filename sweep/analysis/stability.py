"""Decide whether the server stayed the same during a measured window, from the times that it took to serve.

Latencies of a steady queue wander on their own: at 90% load the backlog of one third of a window says little of the
next. The times of service do not, so that a change in them is the server's. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import intervals, percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Ints, PointSamples

RISK = 0.02  # of calling any pass of a steady point unstable
_WITHIN = 0.05  # a change of the mean service time that is smaller makes no point unstable
_SLOPE_WITHIN = 0.075  # the same from end to end of a line, which overstates a step by a half
_BATCHES = 40  # means of consecutive services, among which a change is looked for
_FEWEST_BATCHES = 16
_EDGE = 8  # a change in the first or the last 1 / 8 of a window is not told from noise
_STALLED = 0.25  # of the window without any completion
_STALL_GAPS = 5  # usual gaps between completions, below which a long one is no stall
_SLOPE_BATCHES = 10  # means of consecutive services, through which a line is laid
_LEAST_INDEPENDENT = 60  # services that count as one by themselves, once a change is taken out
_MIN_SERVICES = 3 * _FEWEST_BATCHES
_FALLING_BEHIND = 0.01  # of the offered rate, which the server has to miss for its backlog to grow for certain
_RISK_BEHIND = 0.01  # of calling any pass overloaded at exactly the rate that the server can serve
# Risk of one look, and the statistic of a steady series that is exceeded with it (60,000 simulations of 40 batches).
_RISKS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_STATISTICS = (138.0, 118.0, 100.0, 81.0, 67.0, 54.5, 38.5)


def service_times_ms(samples: PointSamples) -> percentiles.Floats:
    """Return how long each measured inference took its stream, in the order of completion, shape (n,), ms.

    It begins when it was issued, or when the one before it on its stream was done. Requests of a gathered batch are one
    inference.
    """
    keep = samples.measured
    done, issued, stream = samples.done_ns[keep], samples.issued_ns[keep], samples.stream_id[keep]
    if samples.ran_with is not None:
        _, first = np.unique(np.stack([stream, done]), axis=1, return_index=True)
        done, issued, stream = done[first], issued[first], stream[first]
    order = np.lexsort((done, stream))
    done, issued, stream = done[order], issued[order], stream[order]
    before = np.concatenate([issued[:1], done[:-1]])
    same = np.concatenate([[False], stream[1:] == stream[:-1]])
    times = done - np.where(same, np.maximum(issued, before), issued)
    return np.asarray(times[np.argsort(done, kind="stable")] / 1e6)


def unsteady(series: Sequence[percentiles.Floats]) -> float:
    """Return by how much the mean of a series changed within a pass, as a share; 0 where chance explains it.

    Looks for a step and for a slope, in each pass, and shares one risk, ``RISK``, among these looks. A change counts
    only where enough of what is left after it is taken out is independent: a server that visits a slow state a few
    times in a window is not told from one that changed.

    Args:
        series: of each pass, positive values in order.
    """
    risk = RISK / (2 * max(len(series), 1))
    judged = [values for values in series if len(values) >= _MIN_SERVICES and values.mean() > 0]
    return max((_step(values, risk) or _slope(values, risk) for values in judged), default=0.0)


def stall_share(gaps: percentiles.Floats) -> float:
    """Return the share of the window that its longest gap between completions took; 0 where that is no stall."""
    longest = float(gaps.max(initial=0.0))
    share = longest / max(float(gaps.sum()), 1e-12)
    return share if share > _STALLED and longest > _STALL_GAPS * float(np.median(gaps)) else 0.0


def _step(values: percentiles.Floats, risk: float) -> float:
    """Return the change of the mean at the likeliest place of a step; 0 where it is small or chance explains it.

    The largest sum of deviations from the mean is held against the wandering of the sums before and after it (the
    self-normalised statistic of Shao and Zhang, 2010), which needs no estimate of the correlation.
    """
    means, size = _batch_means(values, _BATCHES)
    count, sums = len(means), np.cumsum(means)
    best, place = 0.0, 0
    edge = max(2, count // _EDGE)
    for before in range(edge, count - edge + 1):
        after = count - before
        deviation = float(sums[before - 1] - before / count * sums[-1])
        head = sums[:before] - np.arange(1, before + 1) / before * sums[before - 1]
        tail = sums[before:] - sums[before - 1] - np.arange(1, after + 1) / after * (sums[-1] - sums[before - 1])
        wandering = max(float(head @ head + tail @ tail) / count, 1e-18 * float(sums[-1]) ** 2)
        if deviation**2 / wandering > best:
            best, place = deviation**2 / wandering, before
    if best <= float(np.interp(math.log(risk), np.log(_RISKS), _STATISTICS)):
        return 0.0
    parts = values[: place * size], values[place * size :]
    low, high = sorted(float(part.mean()) for part in parts)
    return _counted(high / max(low, 1e-12) - 1, _WITHIN, [part - part.mean() for part in parts])


def _slope(values: percentiles.Floats, risk: float) -> float:
    """Return the change along a straight line from end to end; 0 where it is small or chance explains it."""
    means, _ = _batch_means(values, _SLOPE_BATCHES)
    at = np.arange(len(means)) - (len(means) - 1) / 2
    slope = float(at @ means / (at @ at))
    residual = means - means.mean() - slope * at
    freedom = len(means) - 2
    error = math.sqrt(float(residual @ residual) / freedom / float(at @ at))
    if abs(slope) <= scipy.special.stdtrit(freedom, 1 - risk / 2) * error or abs(slope) <= 1e-9 * float(means.mean()):
        return 0.0
    line = slope / (len(values) / len(means)) * (np.arange(len(values)) - (len(values) - 1) / 2)
    change = abs(slope) * len(means)
    relative = change / max(float(values.mean()) - change / 2, 1e-12)
    return _counted(relative, _SLOPE_WITHIN, [values - values.mean() - line])


def _batch_means(values: percentiles.Floats, most: int) -> tuple[percentiles.Floats, int]:
    """Return the means of consecutive batches of equal size, at most ``most`` of them, and that size."""
    count = min(most, len(values) // (_MIN_SERVICES // _FEWEST_BATCHES))
    size = len(values) // count
    return np.asarray(values[: count * size].reshape(count, size).mean(axis=1)), size


def _counted(change: float, within: float, residuals: Sequence[percentiles.Floats]) -> float:
    """Return ``change``, or 0 where it is ``within`` or what is left without it is too correlated to tell."""
    if change <= within:
        return 0.0
    independent = sum(map(len, residuals)) / intervals.within_passes(residuals)
    return change if independent >= _LEAST_INDEPENDENT else 0.0


def falls_behind(passes: Sequence[PointSamples]) -> float:
    """Return the share of the arrivals by which a backlog grows; 0 where the server can serve what is offered.

    The slope of the backlog is what arrives less what the streams can serve, by the times that they took in this very
    window. It counts where it is more than chance, by the spread of batch means and at 1% for all passes together, and
    the backlog did grow.
    """
    deviations = float(scipy.special.stdtrit(_FEWEST_BATCHES - 1, 1 - _RISK_BEHIND / max(len(passes), 1)))
    return max((_behind(samples, deviations) for samples in passes), default=0.0)


def _behind(samples: PointSamples, deviations: float) -> float:
    if samples.gathers is not None or not samples.offered_rps:
        return 0.0
    times = service_times_ms(samples)
    if len(times) < _MIN_SERVICES:
        return 0.0
    streams = int(samples.stream_id[samples.measured].max(initial=0)) + 1
    load = samples.offered_rps * float(times.mean()) / 1e3 / streams
    size = len(times) // _FEWEST_BATCHES
    means = times[: size * _FEWEST_BATCHES].reshape(_FEWEST_BATCHES, size).mean(axis=1)
    error = float(means.std(ddof=1)) / math.sqrt(_FEWEST_BATCHES) / float(times.mean()) if times.mean() > 0 else 0.0
    growth = 1 - 1 / load if load > 0 else 0.0
    if load * (1 - deviations * error) <= 1 + _FALLING_BEHIND:
        return 0.0
    return growth if _backlog_growth(samples) > growth / 2 else 0.0


def _backlog_growth(samples: PointSamples) -> float:
    """Return the slope of the backlog that arrivals met in the window, by least squares, in requests per arrival."""
    due: Ints = samples.scheduled_ns[samples.measured]
    done = np.sort(samples.done_ns[samples.done_ns >= 0])
    before = np.searchsorted(np.sort(samples.scheduled_ns), due)
    backlog = before - np.searchsorted(done, due)
    return float(np.polyfit(np.arange(len(due)), backlog, 1)[0]) if len(due) > 1 else 0.0

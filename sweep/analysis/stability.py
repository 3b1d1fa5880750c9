"""Decide whether the server stayed the same during a measured window, from the times that it took to serve.

Latencies of a steady queue wander on their own: at 90% load the backlog of one third of a window says little of the
next. The times of service do not, so that a change in them is the server's. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import intervals, percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Ints, PointSamples

RISK = 0.04  # of calling any pass of a steady point unstable
_CORRELATED_RISK = 0.65  # of that where services hang together, since how much they do is estimated too
_WITHIN = 0.05  # a change of the service time that is smaller makes no point unstable
_SLOPE_WITHIN = 0.075  # the same from end to end of a line, which overstates a step by a half
_HALVES = 0.6  # of the risk, spent on the comparison of the two halves; the rest is for all other places
_PLACES = 31  # of a step that is looked for anywhere
_EDGE = 8  # a change in the first or the last 1 / 8 of a window is not told from noise
_STALLED = 0.25  # of the window without any completion
_STALL_GAPS = 5  # usual gaps between completions, below which a long one is no stall
_LEAST_INDEPENDENT = 28  # services of a pass that count as one by themselves, once a change is taken out
_FREEDOM = 0.35  # degrees of freedom of a correlated series' variance for each service that counts as one
_BATCH_COUNTS = (7, 10, 16)  # of a pass; a period of one length is seen by another
_FAR_LESS = 0.1  # of the variance, below which batch means show that values make up for each other: bursts, a rhythm
_NEGLIGIBLE = 1e-6  # relative deviation that is rounding to nanoseconds
_MIN_SERVICES = 48
_BEHIND_BATCHES = 16
_FALLING_BEHIND = 0.01  # of the offered rate, which the server has to miss for its backlog to grow for certain
_RISK_BEHIND = 0.01  # of calling any pass overloaded at exactly the rate that the server can serve


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Hold the series of all passes on one scale, with what chance moves their means by.

    Attributes:
        series: values of each pass: over their mean, or logarithms.
        places: likeliest place of a step in each.
        inflation: services that count as one, from all passes once their changes are taken out.
        variance: variance of what is left then.
        batched: the variance of batch means of what is left, times the values of a batch: the largest of three lengths.
        logs: whether the values are logarithms.
    """

    series: Sequence[percentiles.Floats]
    places: Sequence[int]
    inflation: float
    variance: float
    batched: float
    logs: bool


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
    """Return by how much a series changed within a pass, as a share; 0 where chance explains it.

    The two halves of each pass are compared, and the parts before and after any other place (the largest sum of
    deviations from the mean); these looks at all passes share one risk, ``RISK``. How strongly services hang together
    is taken from all passes, once the likeliest step or line is taken out of each. Times are compared by their means or
    by their logarithms, on the scale on which chance moves them less: a pause now and then hides a step from means.
    A change counts only where enough services of a pass are independent: a server that visits a slow state a few times
    in a window is not told from one that changed. Completions that come in bursts make up for each other, which batch
    means show.

    Args:
        series: of each pass, positive values in order.
    """
    judged = [values for values in series if len(values) >= _MIN_SERVICES and values.mean() > 0]
    if not judged:
        return 0.0
    scales = [_scale([values / values.mean() for values in judged], logs=False)]
    if min(float(values.min()) for values in judged) > 0:
        scales.append(_scale([np.log(values) for values in judged], logs=True))
    scale = min(scales, key=lambda each: each.inflation * each.variance)
    return max(_change(scale, number, RISK / len(series)) for number in range(len(judged)))


def stall_share(gaps: percentiles.Floats) -> float:
    """Return the share of the window that its longest gap between completions took; 0 where that is no stall."""
    longest = float(gaps.max(initial=0.0))
    share = longest / max(float(gaps.sum()), 1e-12)
    return share if share > _STALLED and longest > _STALL_GAPS * float(np.median(gaps)) else 0.0


def _scale(series: Sequence[percentiles.Floats], *, logs: bool) -> _Scale:
    """Return what chance does to the series, once the likeliest step or line is taken out of each."""
    places = [_place(values) for values in series]
    residuals = [_without_change(values, place)[0] for values, place in zip(series, places, strict=True)]
    variance = max(float(np.mean(np.square(np.concatenate(residuals)))), _NEGLIGIBLE**2)
    inflation = intervals.within_passes(residuals) if variance > _NEGLIGIBLE**2 else 1.0
    batched = max(_NEGLIGIBLE**2, *map(_batched, residuals))
    return _Scale(series=series, places=places, inflation=inflation, variance=variance, batched=batched, logs=logs)


def _batched(residuals: percentiles.Floats) -> float:
    """Return the variance of batch means times the values of a batch, the largest of three lengths."""
    parts = [np.array_split(residuals, number) for number in _BATCH_COUNTS]
    return max(len(residuals) / len(part) * float(np.var([each.mean() for each in part], ddof=1)) for part in parts)


def _place(values: percentiles.Floats) -> int:
    """Return the number of values before the likeliest step."""
    places = _candidates(len(values))
    return int(places[np.argmax(np.abs(_deviations(values, places)))])


def _candidates(count: int) -> Ints:
    """Return the places at which a step is looked for: values before it."""
    return np.linspace(count / _EDGE, count - count / _EDGE, _PLACES).astype(np.int64)


def _deviations(values: percentiles.Floats, places: Ints) -> percentiles.Floats:
    """Return the sum of deviations from the mean up to each place."""
    sums = np.cumsum(values)
    return np.asarray(sums[places - 1] - places / len(values) * sums[-1])


def _without_change(values: percentiles.Floats, place: int) -> tuple[percentiles.Floats, float]:
    """Return what is left without a step at ``place`` or without a line, whichever fits better.

    With it the slope of the line, 0 where the step fits better.
    """
    at = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(at @ values / (at @ at))
    beside = values - values.mean() - slope * at
    parted = np.concatenate([part - part.mean() for part in (values[:place], values[place:])])
    return (beside, slope) if float(beside @ beside) < float(parted @ parted) else (parted, 0.0)


def _change(scale: _Scale, number: int, risk: float) -> float:
    """Return the change within one pass; 0 where it is small, chance explains it, or too few services say so.

    Args:
        scale: all passes.
        number: which pass.
        risk: of calling this pass changed.
    """
    values, place = scale.series[number], scale.places[number]
    count, half = len(values), len(values) // 2
    risk *= 1 if scale.inflation == 1 else _CORRELATED_RISK
    if count / scale.inflation < _LEAST_INDEPENDENT:
        return 0.0
    freedom = count - 3.0 if scale.inflation == 1 else _FREEDOM * count / scale.inflation - 3
    own = float(np.mean(np.square(_without_change(values, place)[0])))
    variance = scale.inflation * max(own, scale.variance)
    if scale.batched < _FAR_LESS * variance:
        variance, freedom = scale.batched, _BATCH_COUNTS[0] - 1.0
    error = math.sqrt(variance)
    moved = abs(float(_deviations(values, np.array([half]))[0])) / (error * math.sqrt(half * (count - half) / count))
    anywhere = abs(float(_deviations(values, np.array([place]))[0])) / (error * math.sqrt(count))
    if moved > scipy.special.stdtrit(freedom, 1 - _HALVES * risk / 2):
        return _size(values, half, logs=scale.logs)
    if anywhere > _highest_bridge((1 - _HALVES) * risk, freedom):
        return _size(values, place, logs=scale.logs)
    return 0.0


def _highest_bridge(risk: float, freedom: float) -> float:
    """Return what the largest sum of deviations exceeds with this risk: of a Brownian bridge, with Student's factor."""
    student = scipy.special.stdtrit(freedom, 1 - risk / 2) / scipy.special.ndtri(1 - risk / 2)
    return float(math.sqrt(-math.log(risk / 2) / 2) * student)


def _size(values: percentiles.Floats, place: int, *, logs: bool) -> float:
    """Return the change at a step or along a line, whichever fits better, as a share; 0 where it is small."""
    _, slope = _without_change(values, place)
    low, high = sorted(float(part.mean()) for part in (values[:place], values[place:]))
    if slope:
        low, high = (float(values.mean()) + side * abs(slope) * len(values) / 2 for side in (-1, 1))
    change = math.expm1(high - low) if logs else high / max(low, 1e-12) - 1
    return change if change > (_SLOPE_WITHIN if slope else _WITHIN) else 0.0


def falls_behind(passes: Sequence[PointSamples]) -> float:
    """Return the share of the arrivals by which a backlog grows; 0 where the server can serve what is offered.

    The slope of the backlog is what arrives less what the streams can serve, by the times that they took in this very
    window. It counts where it is more than chance, by the spread of batch means and at 1% for all passes together, and
    the backlog did grow.
    """
    deviations = float(scipy.special.stdtrit(_BEHIND_BATCHES - 1, 1 - _RISK_BEHIND / max(len(passes), 1)))
    return max((_behind(samples, deviations) for samples in passes), default=0.0)


def _behind(samples: PointSamples, deviations: float) -> float:
    if samples.gathers is not None or not samples.offered_rps:
        return 0.0
    times = service_times_ms(samples)
    if len(times) < _MIN_SERVICES:
        return 0.0
    streams = int(samples.stream_id[samples.measured].max(initial=0)) + 1
    load = samples.offered_rps * float(times.mean()) / 1e3 / streams
    size = len(times) // _BEHIND_BATCHES
    means = times[: size * _BEHIND_BATCHES].reshape(_BEHIND_BATCHES, size).mean(axis=1)
    error = float(means.std(ddof=1)) / math.sqrt(_BEHIND_BATCHES) / float(times.mean()) if times.mean() > 0 else 0.0
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

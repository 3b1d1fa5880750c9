"""Compute percentiles, the counts that carry them, and confidence of latencies. Pure (docs/explanation/method.md).

One percentile everywhere: nearest rank, ``sorted[ceil(p * n) - 1]``, over pooled raw samples, and printed
only where the count can carry it at 99% confidence.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import scipy  # its submodules load when they are used; scipy.stats would take a second
from numpy.typing import NDArray

from sweep.spec import slo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import LatencySummary

PERCENTILES = slo.PERCENTILES
CONFIDENCE = 0.99  # behind a printed percentile and behind an SLO that holds
INTERVAL = 0.95  # of every interval in a record
PASSES_AS_BATCHES = 3  # passes from which on the spread between them is measured, and is the interval
_BATCHES = 25  # batches behind a variance inflation: long enough to hold a busy period, enough to average
_WIDER = 3  # times as many requests as may be slow, among which clusters are looked for too
_LEAST_EXCEEDING = 20  # slow requests that show how slow ones cluster
_LEAST_CLUSTERS = 5  # of requests over the limit, from which on they themselves show how they cluster
_CLUSTER_GAP = 50  # requests between two slow ones, from which on they belong to different clusters

Floats = NDArray[np.float64]


def percentile(ordered: Floats, p: float) -> float:
    """Return the nearest-rank percentile of ascending values, ``ordered[ceil(p * n) - 1]``."""
    return float(ordered[math.ceil(p * len(ordered)) - 1])


def pass_percentiles(passes: Sequence[Floats], p: float) -> Floats | None:
    """Return percentile ``p`` of each pass, shape (passes,); None where a pass has too few for it (``min_count``).

    Args:
        passes: latencies of each pass, ms.
        p: percentile as a share.
    """
    if min(map(len, passes)) < min_count(p):
        return None
    return np.array([percentile(np.sort(values), p) for values in passes])


@cache
def min_count(p: float, over: int = 1) -> int:
    """Return the fewest samples that carry percentile ``p`` at 99% confidence with ``over`` of them above the mark.

    The binomial early-stopping bound of MLPerf LoadGen (early_stopping.cc): the smallest n with
    P(Binomial(n, 1 - p) <= over) <= 1%. For one over the mark: p90 64, p99 662, p99.9 6636.
    """
    low, high = over + 1, 2 * (over + 1)
    while scipy.special.bdtr(over, high, 1 - p) > 1 - CONFIDENCE:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if scipy.special.bdtr(over, middle, 1 - p) > 1 - CONFIDENCE:
            low = middle + 1
        else:
            high = middle
    return low


def latency_summary(latency_ms: Floats) -> LatencySummary:
    """Summarise latencies; a percentile that the count cannot carry is None.

    Args:
        latency_ms: shape (n,), any order, ms.
    """
    ordered = np.sort(latency_ms)
    at = {name: percentile(ordered, p) if len(ordered) >= min_count(p) else None for name, p in PERCENTILES.items()}
    return {
        "mean": float(ordered.mean()) if len(ordered) else None,
        "p50": at["p50"],
        "p90": at["p90"],
        "p95": at["p95"],
        "p99": at["p99"],
        "p999": at["p999"],
        "max": float(ordered[-1]) if len(ordered) else None,
    }


def passes_summary(passes: Sequence[Floats]) -> LatencySummary:
    """Summarise the latencies of all passes.

    From ``PASSES_AS_BATCHES`` passes on, a percentile that each pass carries is the geometric mean of the passes' own:
    the percentile of a typical start, of which ``intervals.percentile_interval`` is the interval.

    Args:
        passes: latencies of each pass, ms.
    """
    pooled = latency_summary(np.concatenate(passes))
    if len(passes) < PASSES_AS_BATCHES:
        return pooled
    at = {name: _typical(passes, p, pooled[name]) for name, p in PERCENTILES.items()}
    return {**pooled, "p50": at["p50"], "p90": at["p90"], "p95": at["p95"], "p99": at["p99"], "p999": at["p999"]}


def _typical(passes: Sequence[Floats], p: float, pooled: float | None) -> float | None:
    values = pass_percentiles(passes, p)
    return pooled if values is None or values.min() <= 0 else float(np.exp(np.log(values).mean()))


def slo_confidence(latency_ms: Floats, p: float, limit_ms: float) -> float:
    """Return the confidence that a share ``p`` of all requests stays within ``limit_ms`` (binomial, one-sided)."""
    over = int(np.count_nonzero(latency_ms > limit_ms))
    return float(1 - scipy.special.bdtr(over, len(latency_ms), 1 - p))


def inflation(latency_ms: Floats, p: float, limit_ms: float) -> float:
    """Estimate the variance inflation factor of P(latency > limit_ms) by batch means and by a lag window.

    Slow requests come together, so that several count as one. If fewer than ``_LEAST_EXCEEDING`` are slower, the
    threshold is lowered until that many are, since less slow requests show too how they cluster. Looked at as well are
    the slowest ``_WIDER`` times as many, of which a window holds more clusters. The factor of batch means is itself
    uncertain, which Student's factor carries. Where fewer are slower than may be, and those are spread over
    ``_LEAST_CLUSTERS`` clusters, they themselves bound the factor: behind a stall many requests wait, of which one only
    may wait for longer than the limit.

    Args:
        latency_ms: shape (n,), in arrival order, ms.
        p: share of the requests that has to stay within the limit.
        limit_ms: limit of the latency, ms.

    Returns:
        Factor >= 1; 1 means independent.
    """
    count = len(latency_ms)
    exceeding = min(max(_LEAST_EXCEEDING, math.ceil((1 - p) * count)), count // 4)
    if exceeding < _LEAST_EXCEEDING:
        return 1.0
    slow = _slowest(latency_ms, exceeding, limit_ms)
    slower = _slowest(latency_ms, min(_WIDER * exceeding, count // 4), math.inf)
    few = _BATCHES * 2 // 5
    at_lower_limits = max(
        1.0,
        *(_uncertain(_BATCHES) * _batch_inflation(series, _BATCHES) for series in (slow, slower)),
        _batch_inflation(slower, few),
        *(inflation_of_mean(series) for series in (slow, slower)),
    )
    over = latency_ms > limit_ms
    if np.count_nonzero(over) >= exceeding:
        return at_lower_limits
    return min(at_lower_limits, _inflation_of_clusters(over))


def _inflation_of_clusters(over: NDArray[np.bool_]) -> float:
    """Return the factor by the requests over the limit alone; infinity where they form too few clusters to show it."""
    at = np.flatnonzero(over)
    clusters = np.count_nonzero(np.diff(at) >= _CLUSTER_GAP) + bool(len(at))
    if clusters < _LEAST_CLUSTERS:
        return math.inf
    series = over.astype(np.float64)
    batches = _uncertain(_BATCHES) * _batch_inflation(series, _BATCHES)
    return _uncertain(int(clusters)) * max(1.0, batches, inflation_of_mean(series))


def _slowest(latency_ms: Floats, least: int, limit_ms: float) -> Floats:
    """Return 1 for the requests over the limit or, if fewer than ``least`` are, for that many with their ties."""
    nth_ms = float(np.partition(latency_ms, len(latency_ms) - least)[len(latency_ms) - least])
    return np.asarray(latency_ms > min(limit_ms, math.nextafter(nth_ms, -math.inf)), dtype=np.float64)


def _batch_inflation(series: Floats, batches: int) -> float:
    """Return the variance of batch means over that of independent ones; 0 for a constant series."""
    share, size = float(series.mean()), len(series) // batches
    if not 0 < share < 1 or not size:
        return 0.0
    means = series[: size * batches].reshape(batches, size).mean(axis=1)
    return float(size * means.var(ddof=1) / (share * (1 - share)))


def _uncertain(batches: int) -> float:
    """Return Student's factor on a variance that ``batches`` means estimate, at ``CONFIDENCE``."""
    return float((scipy.special.stdtrit(batches - 1, CONFIDENCE) / scipy.special.ndtri(CONFIDENCE)) ** 2)


def inflation_of_mean(*passes: Floats) -> float:
    """Estimate the factor, at least 1, by which correlation inflates the variance of the mean of a series.

    Flat-top lag window with the automatic bandwidth of Politis and White (2004), lags up to 4 sqrt(n). Of several
    passes the autocorrelations are averaged, each around its own pass's mean.
    """
    count = sum(map(len, passes))
    shortest = min(map(len, passes), default=0)
    run = max(5, math.ceil(math.sqrt(math.log10(max(count, 1)))))
    most = min(shortest - 1, 4 * math.ceil(math.sqrt(shortest)) + run)
    if most < run:
        return 1.0
    weights = np.array([len(values) / count for values in passes])
    correlations = weights @ np.stack([_autocorrelations(values - values.mean(), most) for values in passes])
    quiet = np.abs(correlations) < 2 * math.sqrt(math.log10(count) / count)
    starts_quiet_run = np.convolve(quiet, np.ones(run), "valid") == run  # lags after which `run` in a row are noise
    last = int(starts_quiet_run.argmax()) if starts_quiet_run.any() else most
    if last == 0:
        return 1.0
    width = min(2 * last, most)
    window = np.clip(2 * (1 - np.arange(1, most + 1) / width), 0, 1)
    bias = (1 + 2 * window.sum()) * len(passes) / count  # a sample's own mean takes this much of each correlation
    return float(max(1 + 2 * window @ correlations, 1.0) / (1 - min(bias, 0.5)))


def _autocorrelations(centred: Floats, most: int) -> Floats:
    """Return the autocorrelations at lags 1 to ``most``; zero for a constant series."""
    count = len(centred)
    transformed = np.fft.rfft(centred, 1 << (count + most).bit_length())
    products = np.fft.irfft(np.abs(transformed) ** 2)[: most + 1]
    power = float(centred @ centred)
    return np.asarray(products[1:] / power if power > 0 else np.zeros(most))


def held_confidence(requests: int, over: int, p: float, inflated: float = 1.0) -> float:
    """Return the confidence that a share ``p`` stays within the limit, ``over`` of ``requests`` having not.

    One-sided binomial; ``inflated`` requests count as one, so that 1 gives ``slo_confidence``.
    """
    if over >= requests:
        return 0.0
    return float(1 - scipy.special.betainc((requests - over) / inflated, over / inflated + 1, p))


def broken_confidence(requests: int, over: int, p: float, inflated: float = 1.0) -> float:
    """Return the confidence that less than a share ``p`` stays within the limit."""
    return float(scipy.special.betainc((requests - over) / inflated + 1, over / inflated, p)) if over else 0.0

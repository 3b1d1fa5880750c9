"""Compute 95% intervals of correlated latencies and throughputs.

A percentile's interval is the binomial one of order statistics with the count replaced by an effective count:
the count over the factor by which correlation inflates the variance of "share of requests above the mark".
That factor comes from batch means, whose own uncertainty a Student quantile carries. docs: statistics has the
coverage that was measured, and docs/decisions/0014 why the block bootstrap went.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis.percentiles import INTERVAL, PERCENTILES, min_count, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sweep.analysis.percentiles import Floats
    from sweep.storage import LatencyIntervals

BATCHES = 10  # of a pass, where passes are too few to be the batches
PASSES_AS_BATCHES = 3  # from here on the spread between passes is measured, and is the interval
RISK = 0.03  # nominal, so that equal ones are called different in at most 5% where batches still correlate
_LEAST_EFFECTIVE = 60  # below it even a median's interval covers too little (docs/evidence/statistics.md)
_LEAST_INFLATION = 0.1  # ten batches that agree by chance prove no more than this
_OVER = 5  # of the binomial bound where latencies are correlated
_TAIL = 0.9  # level at which the tail's correlation is looked at, beside the percentile's own
_BISECTIONS = 50


def percentile_intervals(passes: Sequence[Floats]) -> LatencyIntervals:
    """Return the 95% interval of the median and of the p99: [low, high] in ms, None where the latencies carry none.

    Args:
        passes: latencies of each pass in arrival order, ms.
    """
    median, tail = (percentile_interval(passes, p) for p in (PERCENTILES["p50"], PERCENTILES["p99"]))
    return {"p50": None if median is None else list(median), "p99": None if tail is None else list(tail)}


def percentile_interval(passes: Sequence[Floats], p: float) -> tuple[float, float] | None:
    """Return the 95% interval of percentile ``p`` of latencies in arrival order, one array a pass.

    None where fewer requests than ``percentiles.min_count`` asks for count as independent, or where the upper end would
    lie beyond the longest latency.
    """
    values = np.concatenate(passes)
    if len(values) < max(min_count(p), _LEAST_EFFECTIVE) or not _carried(values, p):
        return None
    low, high = order_statistics(passes, p, INTERVAL)
    return None if math.isinf(high) else (low, high)


def order_statistics(passes: Sequence[Floats], p: float, level: float) -> tuple[float, float]:
    """Return the interval of percentile ``p`` at ``level``, however few requests carry it.

    It is infinite where it has no upper end. Fractional order statistics (Hutson 1999) with the effective count of
    batch means (Heidelberger and Lewis 1984).
    """
    ordered = np.sort(np.concatenate(passes))
    count, mark = len(ordered), percentile(ordered, p)
    inflation, freedom = _batch_inflation([part > mark for part in passes])
    low, high = _ranks(count / (inflation * _student_over_normal(freedom, level) ** 2), p, level)
    upper = _at_rank(ordered, high * (count + 1)) if high * (count + 1) <= count else math.inf
    return _at_rank(ordered, low * (count + 1)), upper


def _carried(values: Floats, p: float) -> bool:
    """Tell whether enough of the values count as independent for an interval of percentile ``p``.

    Correlation is looked for in the ranks, above the 90th percentile and above ``p`` itself. Where it is found, its
    factor is uncertain too, and five over the mark are asked for in place of one.
    """
    ordered = np.sort(values)
    ranks = np.searchsorted(ordered, values).astype(np.float64)
    marks = {percentile(ordered, level) for level in (p, _TAIL)}
    worst = max(inflation_of_mean(series) for series in (ranks, *((values > mark).astype(float) for mark in marks)))
    return len(values) / worst >= max(min_count(p, 1 if worst == 1 else _OVER), _LEAST_EFFECTIVE)


def _batch_inflation(over: Sequence[NDArray[np.bool_]]) -> tuple[float, int]:
    """Return the factor on the variance of the share over the mark, from batch means, and its degrees of freedom."""
    batches = 1 if len(over) >= PASSES_AS_BATCHES else BATCHES
    parts = [part for values in over for part in np.array_split(values, batches)]
    shares = np.array([part.mean() for part in parts])
    count = sum(map(len, parts))
    share = sum(map(np.count_nonzero, parts)) / count
    if share == 0:
        return 1.0, len(parts) - 1
    independent = share * (1 - share) / (count / len(parts))
    return max(float(shares.var(ddof=1)) / independent, _LEAST_INFLATION), len(parts) - 1


def inflation_of_mean(values: Floats) -> float:
    """Estimate the factor, at least 1, by which correlation inflates the variance of the mean of a series.

    Flat-top lag window with the automatic bandwidth of Politis and White (2004), lags up to 4 sqrt(n).
    """
    count = len(values)
    run = max(5, math.ceil(math.sqrt(math.log10(count))))
    most = min(count - 1, 4 * math.ceil(math.sqrt(count)) + run)
    if most < run:
        return 1.0
    correlations = _autocorrelations(values - values.mean(), most)
    quiet = np.abs(correlations) < 2 * math.sqrt(math.log10(count) / count)
    starts_quiet_run = np.convolve(quiet, np.ones(run), "valid") == run  # lags after which `run` in a row are noise
    last = int(starts_quiet_run.argmax()) if starts_quiet_run.any() else most
    if last == 0:
        return 1.0
    width = min(2 * last, most)
    window = np.clip(2 * (1 - np.arange(1, most + 1) / width), 0, 1)
    bias = (1 + 2 * window.sum()) / count  # the sample's own mean takes this much of each correlation
    return float(max(1 + 2 * window @ correlations, 1.0) / (1 - min(bias, 0.5)))


def _autocorrelations(centred: Floats, most: int) -> Floats:
    """Return the autocorrelations at lags 1 to ``most``; zero for a constant series."""
    count = len(centred)
    transformed = np.fft.rfft(centred, 1 << (count + most).bit_length())
    products = np.fft.irfft(np.abs(transformed) ** 2)[: most + 1]
    power = float(centred @ centred)
    return np.asarray(products[1:] / power if power > 0 else np.zeros(most))


def _student_over_normal(freedom: int, level: float) -> float:
    return float(scipy.special.stdtrit(freedom, (1 + level) / 2) / scipy.special.ndtri((1 + level) / 2))


def _ranks(count: float, p: float, level: float) -> tuple[float, float]:
    """Return the shares of the ordered values between which percentile ``p`` lies: fractional order statistics."""

    def share(confidence: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):  # P(order statistic at `share` <= the percentile) falls as the share grows
            middle = (low + high) / 2
            if scipy.special.betainc((count + 1) * middle, (count + 1) * (1 - middle), p) > confidence:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return share((1 + level) / 2), share((1 - level) / 2)


def _at_rank(ordered: Floats, rank: float) -> float:
    """Interpolate the value at a fractional rank from 1 between its two neighbours."""
    return float(np.interp(rank, np.arange(1, len(ordered) + 1), ordered))


def rate_interval(rate: float, passes: Sequence[Floats], level: float = INTERVAL) -> tuple[list[float] | None, int]:
    """Return the interval of a throughput and the number of batch means behind it; None below two.

    Student on the logarithm of the batches' rates, centred on ``rate``. Batches hold equal counts rather than equal
    times: cutting requests at the edge adds noise that is not the variant's.

    Args:
        rate: the throughput, in any unit; the interval has the same.
        passes: one ascending array a pass: when the window began, then each completion in it.
        level: confidence.
    """
    batches = 1 if len(passes) >= PASSES_AS_BATCHES else BATCHES
    logs = np.concatenate([_log_rates(times, batches) for times in passes])
    if len(logs) <= 1 or not np.isfinite(logs).all() or rate <= 0:
        return None, len(logs)
    half = scipy.special.stdtrit(len(logs) - 1, (1 + level) / 2) * logs.std(ddof=1) / math.sqrt(len(logs))
    return [float(rate * math.exp(-half)), float(rate * math.exp(half))], len(logs)


def _log_rates(times: Floats, batches: int) -> Floats:
    """Return the log of the completions per unit of time in each of at most ``batches`` batches of two or more."""
    count = len(times) - 1
    edges = np.linspace(0, count, min(batches, count // 2) + 1).astype(int)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.diff(edges) / np.diff(times[edges])))


def log_error(low: float, high: float, batches: int) -> float:
    """Return the standard error of the logarithm of a throughput, back from its ``rate_interval``.

    Args:
        low: lower end of the interval, in the unit of ``high``.
        high: upper end.
        batches: batch means behind it, two or more.
    """
    half = (math.log(high) - math.log(low)) / 2
    return half / float(scipy.special.stdtrit(batches - 1, (1 + INTERVAL) / 2))

"""Compute 95% intervals of correlated latencies and throughputs.

From three passes on, an interval is Student's over one value a pass: what differs between two starts is then part of
it. Of fewer passes, a percentile's interval is the binomial one of order statistics with the count replaced by an
effective count: the count over the factor by which correlation inflates the variance of "share of requests above the
mark". That factor comes from batch means, whose own uncertainty a Student quantile carries. Correlation is looked at
within passes only, never over their concatenation, where the difference of two starts would pass for it.
docs/evidence/statistics.md has the coverage that was measured, and docs/decisions/0014 why the block bootstrap went.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import percentiles
from sweep.analysis.percentiles import (
    INTERVAL,
    PERCENTILES,
    inflation_of_mean,
    min_count,
    pass_percentiles,
    percentile,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sweep.analysis.percentiles import Floats
    from sweep.storage import IndependentCounts, LatencyIntervals

PASSES_AS_BATCHES = percentiles.PASSES_AS_BATCHES
BATCHES = 10  # of a pass, where passes are too few to be the batches
RISK = 0.03  # nominal, so that equal ones are called different in at most 5% where batches still correlate
_BATCH_COUNTS = (7, 10, 16)  # of a pass; stalls with the period of one batch length are seen by another
_WIDEST_OF_THREE = 0.85  # brings the largest of the three standard errors back to 95% where requests are independent
WITHIN_SHARE = 0.8  # of the half-width from inside the passes, below which that between three or more does not fall
_LEAST_EFFECTIVE = 60  # below it even a median's interval covers too little (docs/evidence/statistics.md)
_LEAST_CORRELATED = 100  # of correlated completions: few visits of a slow state say little of how often it comes
_LEAST_INFLATION = 0.1  # ten batches that agree by chance prove no more than this
_OVER = 5  # of the binomial bound where latencies are correlated
_TAIL = 0.9  # level at which the tail's correlation is looked at, beside the percentile's own
_BISECTIONS = 50
_SCALES = (10, 25, 60)  # batches in which correlation is looked for that outlasts the lag window
_BY_CHANCE = 0.999  # of the variances of independent batch means are smaller than what counts as correlation


def percentile_intervals(passes: Sequence[Floats]) -> LatencyIntervals:
    """Return the 95% interval of the median and of the p99: [low, high] in ms, None where the latencies carry none.

    Args:
        passes: latencies of each pass in arrival order, ms.
    """
    median, tail = (percentile_interval(passes, p) for p in (PERCENTILES["p50"], PERCENTILES["p99"]))
    return {"p50": None if median is None else list(median), "p99": None if tail is None else list(tail)}


def percentile_interval(passes: Sequence[Floats], p: float) -> tuple[float, float] | None:
    """Return the 95% interval of percentile ``p`` of latencies in arrival order, one array a pass.

    From three passes on it is that of a typical start: Student's over the logarithms of the passes' percentiles, around
    their geometric mean. None where fewer requests (of each pass, from three on) than ``percentiles.min_count`` asks
    for count as independent, or where the upper end would lie beyond the longest latency.
    """
    if len(passes) >= PASSES_AS_BATCHES:
        return _between_passes(passes, p)
    count = sum(map(len, passes))
    if count < max(min_count(p), _LEAST_EFFECTIVE) or not _carried(passes, p, count):
        return None
    low, high = order_statistics(passes, p, INTERVAL)
    return None if math.isinf(high) else (low, high)


def _between_passes(passes: Sequence[Floats], p: float) -> tuple[float, float] | None:
    """Return the interval of the percentile of a typical start; None where a pass cannot carry its percentile.

    What is left of correlation inside a pass only biases its percentile, so that each pass has to carry it.
    """
    values = pass_percentiles(passes, p)
    least = min(map(len, passes))
    if values is None or least < _LEAST_EFFECTIVE or not _carried(passes, p, least):
        return None
    logs = np.log(values)
    if not np.isfinite(logs).all():
        return None
    half = _student(len(logs), INTERVAL) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    centre = float(logs.mean())
    return math.exp(centre - half), math.exp(centre + half)


def independent_counts(passes: Sequence[Floats]) -> IndependentCounts:
    """Return how many requests of a pass count as independent for each percentile, on average over the passes.

    Args:
        passes: latencies of each pass in arrival order, ms.
    """
    count = sum(map(len, passes)) / (len(passes) if len(passes) >= PASSES_AS_BATCHES else 1)
    series = [values for values in passes if len(values)]
    hanging = max(within_passes([_ranks_of(values) for values in series]), _tail_correlation(series, _TAIL))
    at = {
        name: count / max(hanging, _tail_correlation(series, PERCENTILES[name]))
        for name in ("p50", "p90", "p95", "p99")
    }
    return {"p50": at["p50"], "p90": at["p90"], "p95": at["p95"], "p99": at["p99"]}


def order_statistics(passes: Sequence[Floats], p: float, level: float) -> tuple[float, float]:
    """Return the interval of percentile ``p`` at ``level``, however few requests carry it.

    It is infinite where it has no upper end. Fractional order statistics (Hutson 1999) with the effective count of
    batch means (Heidelberger and Lewis 1984).
    """
    ordered = np.sort(np.concatenate(passes))
    count, mark = len(ordered), percentile(ordered, p)
    inflation, freedom = _batch_inflation(_all_above(passes, mark))
    low, high = _ranks(count / (inflation * _student_over_normal(freedom, level) ** 2), p, level)
    upper = _at_rank(ordered, high * (count + 1)) if high * (count + 1) <= count else math.inf
    return _at_rank(ordered, low * (count + 1)), upper


def _carried(passes: Sequence[Floats], p: float, count: int) -> bool:
    """Tell whether enough of ``count`` values count as independent for an interval of percentile ``p``.

    Where correlation is found, its factor is uncertain too, and five over the mark are asked for in place of one.
    """
    worst = correlation(passes, p)
    return count / worst >= max(min_count(p, 1 if worst == 1 else _OVER), _LEAST_EFFECTIVE)


def correlation(passes: Sequence[Floats], p: float) -> float:
    """Return how many requests count as one for percentile ``p``, at least 1, from within the passes alone.

    Correlation is looked for in the ranks, above the 90th percentile and above ``p`` itself.

    Args:
        passes: latencies of each pass in arrival order, ms.
        p: percentile as a share.
    """
    series = [values for values in passes if len(values)]
    if not series:
        return 1.0
    tails = (_tail_correlation(series, level) for level in (p, _TAIL))
    return max(within_passes([_ranks_of(values) for values in series]), *tails)


def _tail_correlation(series: Sequence[Floats], p: float) -> float:
    """Return how many requests count as one above percentile ``p`` of each pass."""
    return within_passes([_above(values, percentile(np.sort(values), p)) for values in series if len(values)])


def _ranks_of(values: Floats) -> Floats:
    """Return the ranks of values as shares; equal values have one rank."""
    order = np.argsort(values)
    ascending = values[order]
    ranks = np.empty(len(values), dtype=np.float64)
    ranks[order] = np.searchsorted(ascending, ascending) / max(len(values), 1)  # keys in order: a third of the time
    return ranks


def _above(values: Floats, mark: float) -> Floats:
    """Return 1 where a value lies above the mark, or at it if none lies above, as with ticks of a coarse clock."""
    over = values > mark
    return np.asarray(over if over.any() else values >= mark, dtype=np.float64)


def _all_above(passes: Sequence[Floats], mark: float) -> list[NDArray[np.bool_]]:
    """Return where each pass lies above the mark, or at it if no pass lies above (see ``_above``)."""
    over = [values > mark for values in passes]
    return over if any(part.any() for part in over) else [values >= mark for values in passes]


def _batch_inflation(over: Sequence[NDArray[np.bool_]]) -> tuple[float, int]:
    """Return the factor on the variance of the share over the mark, from batch means, and its degrees of freedom."""
    parts = [part for values in over for part in np.array_split(values, BATCHES)]
    shares = np.array([part.mean() for part in parts])
    count = sum(map(len, parts))
    share = sum(map(np.count_nonzero, parts)) / count
    if share in {0, 1}:
        return 1.0, len(parts) - 1
    independent = share * (1 - share) / (count / len(parts))
    return max(float(shares.var(ddof=1)) / independent, _LEAST_INFLATION), len(parts) - 1


def within_passes(passes: Sequence[Floats]) -> float:
    """Return the factor, at least 1, by which correlation inside the passes inflates the variance of a mean.

    The larger of a lag window's (``inflation_of_mean``) and that of batch means, which sees what outlasts every lag.
    """
    return _outlasting(passes, inflation_of_mean(*passes))


def _outlasting(passes: Sequence[Floats], worst: float) -> float:
    """Return the largest factor of the batch means of each scale that is more than ``worst`` and chance; else that."""
    for scale in _SCALES:
        between = within = 0.0
        freedom = 0
        for values in passes:
            size = len(values) // scale
            if size <= 1:
                continue
            batches = values[: size * scale].reshape(scale, size)
            between += size * float(batches.mean(axis=1).var(ddof=1)) * (scale - 1)
            within += float(values.var()) * (scale - 1)
            freedom += scale - 1
        chance = scipy.special.chdtri(freedom, 1 - _BY_CHANCE) / freedom if freedom else math.inf
        if within > 0 and between > within * chance * worst:
            worst = between / within
    return worst


def _student(count: int, level: float) -> float:
    """Return the two-sided Student quantile of ``count`` values at ``level``."""
    return float(scipy.special.stdtrit(count - 1, (1 + level) / 2))


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
    times: cutting requests at the edge adds noise that is not the variant's. Of one or two passes, the widest of three
    batch lengths counts: stalls that come once in every batch of one length vanish from it. From three passes on the
    spread between them counts, unless that within them is much wider, as where passes agree by chance on the number of
    stalls. None where fewer than ``_LEAST_CORRELATED`` of correlated completions count as independent.

    Args:
        rate: the throughput, in any unit; the interval has the same.
        passes: one ascending array a pass: when the window began, then each completion in it.
        level: confidence.
    """
    within = np.concatenate([_log_rates(times, BATCHES) for times in passes])
    half = _student(len(within), level) * _error_within(passes) if len(within) > 1 else math.inf
    batches = len(within)
    if len(passes) >= PASSES_AS_BATCHES:
        each = np.concatenate([_log_rates(times, 1) for times in passes])
        batches = len(each)
        between = _student(batches, level) * _standard_error(each)
        half = max(WITHIN_SHARE * half, between) if batches > 1 else math.inf
    if batches <= 1 or not math.isfinite(half) or rate <= 0 or not _carries_mean(passes):
        return None, batches
    return [float(rate * math.exp(-half)), float(rate * math.exp(half))], batches


def _error_within(passes: Sequence[Floats]) -> float:
    """Return the standard error of the mean log rate from batches inside the passes, the widest of three lengths."""
    lengths = [np.concatenate([_log_rates(times, each) for times in passes]) for each in _BATCH_COUNTS]
    return _WIDEST_OF_THREE * max(map(_standard_error, lengths))


def _standard_error(logs: Floats) -> float:
    if len(logs) <= 1 or not np.isfinite(logs).all():
        return math.inf
    return float(logs.std(ddof=1)) / math.sqrt(len(logs))


def _carries_mean(passes: Sequence[Floats]) -> bool:
    """Tell whether enough of the gaps between completions count as independent for an interval of their mean."""
    gaps = [np.diff(times) for times in passes]
    worst = max(within_passes(gaps), within_passes([_ranks_of(each) for each in gaps]))
    return worst == 1 or sum(map(len, gaps)) / worst >= _LEAST_CORRELATED


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

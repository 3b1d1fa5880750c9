"""Compare every variant of a table with the fastest one, on the logarithm of the throughput.

The unit of replication is the start (or the engine, where several were built): what is measured within one start says
nothing about how starts differ. The fastest one was picked, so its lead over each other variant is held to the range of
as many equal ones: two starts differ by 2.8 standard deviations in one of twenty cases, the extremes of twelve by 4.6.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import start_spread
from sweep.analysis.moderation import moderate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.start_spread import StartSpread

PAIR_RISK = 0.045  # of two variants, whose Student's test is exact: 5% with room for what is not quite normal
TABLE_RISK = 0.03  # of three or more: the prior is estimated too, which costs a third of the risk
LEAST_BAND = 2.8  # standard deviations of a start, within which single starts are never told apart
_FINE_FREEDOM = 40  # from here on degrees of freedom are rounded to ten: the range hardly changes
_ENDLESS = 400
_GRID = np.linspace(-7.0, 7.0, 85)
_DENSITY = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi) * (_GRID[1] - _GRID[0])
_SCALES = 100  # quantiles of the estimated standard deviation, over which the range is averaged
_MOST_LOG = 700.0
_BISECTIONS = 24
_NARROWEST, _WIDEST = 0.1, 4000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Describe one variant of the table.

    Attributes:
        value: its throughput, in any unit that the table shares.
        starts: throughput of each start (of each engine, where several were built), in the order of the rounds; one or
            more.
        within_error: standard error of the logarithm of a single start, from inside that start; 0 if it is unknown, or
            if what several starts differ by hides it.
        spread: what starts of this variant differ by, as measured elsewhere; None where nothing says.
        assumed_cv: standard deviation of the log throughput of a start where nothing says.
    """

    value: float
    starts: Sequence[float]
    within_error: float = 0.0
    spread: StartSpread | None = None
    assumed_cv: float = start_spread.UNKNOWN_CV


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Hold the throughput of a variant as a share of the fastest one's, with its simultaneous 95% interval.

    Attributes:
        low: lower end.
        high: upper end.
    """

    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Return whether the variant is slower than the fastest by more than chance explains."""
        return self.high < 1


def ratios(entries: Sequence[Entry], best: int) -> list[Ratio]:
    """Compare each variant with the fastest one.

    Where all have the same number of starts, two or more, what a round did to all of them is removed first.

    Args:
        entries: the variants.
        best: index of the one with the highest ``value``.

    Returns:
        A ratio per entry; 1 to 1 for the best itself.
    """
    errors, freedom = _errors(entries)
    risk = PAIR_RISK if len(entries) <= 2 else TABLE_RISK  # noqa: PLR2004 - two is what a pair is
    single = [len(entry.starts) == 1 for entry in entries]
    shares = []
    for number, entry in enumerate(entries):
        if number == best:
            shares.append(Ratio(low=1.0, high=1.0))
            continue
        error = math.hypot(errors[best], errors[number])
        factor = range_quantile(len(entries), min(freedom[best], freedom[number]), risk) / math.sqrt(2)
        if single[best] and single[number]:
            factor = max(factor, LEAST_BAND / math.sqrt(2))
        centre, half = math.log(entry.value) - math.log(entries[best].value), factor * error
        shares.append(Ratio(low=_exp(centre - half), high=_exp(centre + half)))
    return shares


def band(entries: Sequence[Entry], best: int) -> float:
    """Return the share of the fastest variant's throughput within which no other is told from it, as 0.07.

    It is that of the steadiest of the others, which have wider ones.

    Args:
        entries: the variants, two or more.
        best: index of the one with the highest ``value``.
    """
    others = [ratio for number, ratio in enumerate(ratios(entries, best)) if number != best]
    return 1 - math.sqrt(max(ratio.low / ratio.high if 0 < ratio.high < math.inf else 0.0 for ratio in others))


def _exp(logarithm: float) -> float:
    """Return the exponential; infinity for what a float cannot hold."""
    return math.exp(logarithm) if logarithm < _MOST_LOG else math.inf


def build_means(passes: Sequence[float], builds: int) -> list[float]:
    """Return the mean throughput of each engine; the passes themselves where one engine served them all.

    Args:
        passes: throughput of each pass, in any unit; pass n ran engine n modulo ``builds``.
        builds: engines that were built.
    """
    if builds == 1 or len(passes) < builds:
        return list(passes)
    return [float(np.mean(passes[number::builds])) for number in range(builds)]


def _errors(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Return the standard error of each variant's log throughput, and the degrees of freedom behind it."""
    counts = [len(entry.starts) for entry in entries]
    if max(counts) == 1:
        known = [start_cv(entry) for entry in entries]
        errors = [math.hypot(cv, entry.within_error) for (cv, _), entry in zip(known, entries, strict=True)]
        return errors, [freedom for _, freedom in known]
    logs = [np.log(np.asarray(entry.starts, dtype=np.float64)) for entry in entries]
    variants, rounds = len(entries), counts[0]
    if len(set(counts)) == 1 and variants > 1:
        table = np.stack(logs)
        residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
        sample = (residuals**2).sum(axis=1) * variants / ((variants - 1) * (rounds - 1))
        moderated = moderate(sample.tolist(), [rounds - 1] * variants, (variants - 1) * (rounds - 1))
    else:
        sample = np.array([values.var(ddof=1) if len(values) > 1 else 0.0 for values in logs])
        moderated = moderate(sample.tolist(), [count - 1 for count in counts])
    variances, freedom = moderated.variances.copy(), moderated.freedom.copy()
    for number, entry in enumerate(entries):
        if counts[number] == 1 and entry.spread is not None:  # its own figure says more than that of the table
            variances[number], freedom[number] = entry.spread.cv**2, entry.spread.freedom
    errors = [math.sqrt(variance / count) for variance, count in zip(variances, counts, strict=True)]
    return errors, freedom.tolist()


def start_cv(entry: Entry) -> tuple[float, float]:
    """Return what starts differ by (standard deviation of the log), with its degrees of freedom; assumed if unknown."""
    return (entry.assumed_cv, math.inf) if entry.spread is None else (entry.spread.cv, entry.spread.freedom)


def range_quantile(variants: int, freedom: float, risk: float) -> float:
    """Return the range of equal variants, in standard deviations of one, that is exceeded with probability ``risk``.

    Args:
        variants: number of variants, two or more for a figure above 0.
        freedom: degrees of freedom of the estimated standard deviation; infinite if it is known.
        risk: probability.
    """
    if variants < 2:  # noqa: PLR2004 - a range takes two
        return 0.0
    return _range_quantile(variants, _rounded(freedom), risk)


def _rounded(freedom: float) -> float:
    if freedom >= _ENDLESS:
        return math.inf
    return max(1.0, float(math.floor(freedom)) if freedom < _FINE_FREEDOM else float(freedom // 10 * 10))


@functools.lru_cache(maxsize=1024)
def _range_quantile(variants: int, freedom: float, risk: float) -> float:
    """Solve for the quantile of the studentized range by bisection, integrating over the minimum and the scale."""
    scales = np.ones(1)
    if not math.isinf(freedom):
        middles = (np.arange(_SCALES) + 0.5) / _SCALES
        scales = np.sqrt(scipy.special.chdtri(freedom, 1 - middles) / freedom)
    upper = scipy.special.ndtr(_GRID)[None]
    low, high = _NARROWEST, _WIDEST
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        between = upper - scipy.special.ndtr(_GRID[None] - middle * scales[:, None])
        within = float((variants * _DENSITY[None] * between ** (variants - 1)).sum(axis=1).mean())
        low, high = (middle, high) if 1 - within > risk else (low, middle)
    return high

"""Compare latencies of two measurements at one offered rate, on the logarithm.

From three passes on, the interval of a percentile is Student's between the passes, so that what starts differ by is in
it; the variances are moderated over all that is compared, as those of throughputs are (``run_comparison``). Of fewer
passes it holds what one start shows. A start that serves x% slower then has a latency that is longer by x% times a
sensitivity: at a fixed rate the queue is longer too. The curve itself says by how much, since
latency = service * f(rate * service).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import scipy

from sweep.analysis.best_comparison import LEAST_BAND
from sweep.analysis.intervals import PASSES_AS_BATCHES
from sweep.analysis.moderation import moderate
from sweep.analysis.run_comparison import Change, factor_of
from sweep.analysis.start_spread import UNKNOWN_CV

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_SENSITIVITY = 5.0  # where one rate shows no slope: that of M/M/1 at 80% of its capacity
_MOST_SENSITIVITY = 20.0  # beyond it a point is in the knee, where its neighbours say no more
_LEVEL = 0.95
_NORMAL_HALF = 1.96  # standard errors in half of an interval of many requests
_MOST_LOG = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Describe a percentile of one measurement at one rate.

    Attributes:
        value: the percentile, in any unit that both sides share.
        interval: its 95% interval.
        passes: passes behind it.
        start_cv: standard deviation of the log service time between starts.
        freedom: degrees of freedom behind ``start_cv``; infinite if it is assumed.
        sensitivity: by how many times that share the latency changes, from ``sensitivities``.
        error: further standard error of the logarithm, as that of a point that is not steady.
    """

    value: float
    interval: tuple[float, float]
    passes: int = 1
    start_cv: float = UNKNOWN_CV
    freedom: float = math.inf
    sensitivity: float = 1.0
    error: float = 0.0

    @property
    def shows_starts(self) -> bool:
        """Return whether the interval is that between passes."""
        return self.passes >= PASSES_AS_BATCHES

    @property
    def half(self) -> float:
        """Return half of the interval, on the logarithm."""
        return (math.log(self.interval[1]) - math.log(self.interval[0])) / 2

    @property
    def variance(self) -> float:
        """Return the variance of the logarithm between passes, back from the interval."""
        student = float(scipy.special.stdtrit(self.passes - 1, (1 + _LEVEL) / 2))
        return self.passes * (self.half / student) ** 2


def sensitivities(rates: Sequence[float], latencies: Sequence[float]) -> list[float]:
    """Return by how many times the latency at each rate changes what the service time does: 1 and the slope.

    Args:
        rates: offered rates, ascending.
        latencies: latency at each, in any unit.

    Returns:
        A number a rate, from the steeper side; ``UNKNOWN_SENSITIVITY`` for a single rate.
    """
    if len(rates) == 1:
        return [UNKNOWN_SENSITIVITY]
    slopes = [
        math.log(latencies[n + 1] / latencies[n]) / math.log(rates[n + 1] / rates[n]) for n in range(len(rates) - 1)
    ]
    sides = [slopes[max(n - 1, 0) : n + 1] for n in range(len(rates))]
    return [1 + min(max(0.0, *side), _MOST_SENSITIVITY) for side in sides]


def latency_changes(pairs: Sequence[tuple[Measured, Measured]], tables: float = 1) -> list[Change]:
    """Compare latencies, all with intervals that hold together.

    Args:
        pairs: earlier and later measurement of one percentile at one rate.
        tables: tables of as many tests between which the risk is shared.

    Returns:
        New latency over old, in the order of `pairs`.
    """
    whole = [all(side.shows_starts for side in pair) for pair in pairs]
    own = [sum(side.passes for side in pair) - 2 if known else 0 for pair, known in zip(pairs, whole, strict=True)]
    sample = [
        sum(side.variance * (side.passes - 1) for side in pair) / freedom if freedom else 0.0
        for pair, freedom in zip(pairs, own, strict=True)
    ]
    moderated = moderate(sample, own) if any(own) else None
    result = []
    for number, (old, new) in enumerate(pairs):
        further = math.hypot(old.error, new.error)
        if whole[number] and moderated is not None:
            between = math.sqrt(float(moderated.variances[number]) * (1 / old.passes + 1 / new.passes))
            error, freedom = math.hypot(between, further), float(moderated.freedom[number])
            factor = factor_of(len(pairs), freedom, tables)
        else:
            error = math.hypot(_error(old), _error(new), further)
            factor = factor_of(len(pairs), min(old.freedom, new.freedom), tables)
            factor = max(factor, LEAST_BAND / math.sqrt(2))
        centre, half = math.log(new.value / old.value), factor * error
        result.append(Change(ratio=math.exp(centre), low=_exp(centre - half), high=_exp(centre + half)))
    return result


def _error(side: Measured) -> float:
    """Return the standard error of the logarithm of one side, with what starts differ by."""
    if side.shows_starts:
        return side.half / float(scipy.special.stdtrit(side.passes - 1, (1 + _LEVEL) / 2))
    return math.hypot(side.half / _NORMAL_HALF, side.start_cv * side.sensitivity / math.sqrt(side.passes))


def _exp(logarithm: float) -> float:
    """Return the exponential; infinity for what a float cannot hold."""
    return math.exp(logarithm) if logarithm < _MOST_LOG else math.inf

"""Estimate the variance of each variant's starts from all variants of a table.

Three to five starts say little about the variance of one variant, and much about that of twelve. The variances are
moderated as limma does it (Smyth 2004): a scaled inverse chi-squared prior, fitted to the moments of the logarithms of
all of them, pulls each one towards that of the table. docs/decisions/0044 has why the prior's weight is bounded and
why a variance that stands out keeps its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.percentiles import Floats

_MOST_PRIOR = 8.0  # degrees of freedom that the table lends a variant: networks of one table differ by tens in variance
_STANDS_OUT = 0.05  # chance under the prior below which a variance stands out and borrows nothing
_NEWTON_STEPS = 50
_PRECISION = 1e-8
_SMALLEST = 1e-5  # of the pooled variance: what starts that agree by chance alone are taken for


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderated:
    """Hold the moderated variances of a table.

    Attributes:
        variances: variance of the log throughput of one start, shape (variants,).
        freedom: degrees of freedom behind each, shape (variants,).
    """

    variances: Floats
    freedom: Floats


def moderate(variances: Sequence[float], freedom: Sequence[int], most_freedom: float | None = None) -> Moderated:
    """Moderate variances over the table.

    Args:
        variances: sample variance of each variant; any number where ``freedom`` is 0.
        freedom: degrees of freedom of each, 0 for a variant with a single start; not all may be 0.
        most_freedom: degrees of freedom of all of them together, which bound those of each; None adds them up.

    Returns:
        The variances; that of the table for a variant with a single start.
    """
    own = np.asarray(freedom, dtype=np.float64)
    known = own > 0
    sample = np.where(known, np.asarray(variances, dtype=np.float64), 0.0)
    most = float(own.sum()) if most_freedom is None else most_freedom
    pooled = float((sample * own).sum() / own.sum())
    if pooled == 0 or np.ptp(sample[known]) < _PRECISION * pooled:  # also where the residuals of two mirror each other
        return Moderated(variances=np.full(len(own), pooled), freedom=np.full(len(own), most))
    prior, prior_freedom = _prior(sample[known], own[known], pooled)
    lent = np.full(len(own), min(prior_freedom, _MOST_PRIOR))
    chance = scipy.special.fdtrc(np.maximum(own, 1.0), max(float(lent[0]), 1.0), sample / prior)
    lent[known & (chance < _STANDS_OUT)] = 0.0
    weight = np.maximum(lent + own, _PRECISION)
    mixed = (lent * prior + own * sample) / weight
    return Moderated(
        variances=np.where(weight > _PRECISION, mixed, prior), freedom=np.clip(lent + own, 1.0, max(most, 1.0))
    )


def _prior(sample: Floats, own: Floats, pooled: float) -> tuple[float, float]:
    """Return the prior's variance and degrees of freedom, from the moments of the log variances (Smyth 2004, 6.2)."""
    logs = np.log(np.maximum(sample, _SMALLEST * pooled))
    centred = logs - scipy.special.digamma(own / 2) + np.log(own / 2)
    excess = float(centred.var(ddof=1) - scipy.special.polygamma(1, own / 2).mean())
    if excess <= 0:
        return pooled, math.inf
    half = _inverse_trigamma(excess)
    return math.exp(float(centred.mean()) + float(scipy.special.digamma(half)) - math.log(half)), 2 * half


def _inverse_trigamma(value: float) -> float:
    """Return y with trigamma(y) = ``value`` > 0, by Newton's steps on the reciprocal, which is nearly straight."""
    y = 0.5 + 1 / value
    for _ in range(_NEWTON_STEPS):
        trigamma = float(scipy.special.polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, y))
        y += step
        if abs(step) < _PRECISION * y:
            break
    return y

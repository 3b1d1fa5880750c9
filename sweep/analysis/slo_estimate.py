"""Estimate the capacity under an SLO from all runs of a search, with an interval. Pure.

A confirmed rate errs on the safe side, the more so the fewer requests confirmed it. The estimate says where the
capacity most likely lies: it is no promise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis.percentiles import INTERVAL
from sweep.spec import SloVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.slo_evidence import Evidence

_STEEPNESS = np.exp(np.linspace(math.log(2.0), math.log(40.0), 31))  # of the logit of the slow share, per log rate
_USUAL_STEEPNESS = 9.0  # of queues at half to nine tenths of their capacity
_STEEPNESS_SPREAD = 0.5  # standard deviation of its logarithm
_NEAR = 0.2  # standard deviation of a run's weight, in log rate from the estimate before
_FITS = 3
_RATES = 400  # capacities that are tried, from half the lowest rate to twice the highest


def estimate(items: Sequence[Evidence], p: float) -> tuple[float, list[float]] | None:
    """Return the likeliest capacity and its 95% interval, samples/s; None where no run came near it.

    The logit of the share of slow requests is taken to rise with the logarithm of the rate. Counts are divided by how
    many requests count as one.

    Args:
        items: evidence of the rungs and of the search.
        p: percentile of the SLO as a share.
    """
    used = [item for item in items if item.verdict != SloVerdict.INVALID and item.requests and item.rate_ips > 0]
    if not used:
        return None
    rates = np.log([item.rate_ips for item in used])
    counts = np.array([item.requests / item.inflated for item in used])
    shares = np.array([1.0 if item.verdict == SloVerdict.OVERLOADED else item.over / item.requests for item in used])
    tried = np.linspace(rates.min() - math.log(2), rates.max() + math.log(2), _RATES)
    pivot = math.log((1 - p) / p)
    logit = np.clip(pivot + _STEEPNESS[:, None, None] * (rates - tried[:, None]), -30, 30)  # (steepness, capacity, run)
    fit = shares * -np.log1p(np.exp(-logit)) + (1 - shares) * -np.log1p(np.exp(logit))
    prior = (np.log(_STEEPNESS / _USUAL_STEEPNESS) / _STEEPNESS_SPREAD)[:, None] ** 2 / 2
    around = None
    for _ in range(_FITS):  # runs far from the capacity lie on another part of the curve and weigh less
        near = 1.0 if around is None else np.exp(-(((rates - around) / _NEAR) ** 2) / 2)
        likelihood = (near * counts * fit).sum(axis=2) - prior
        around = float(tried[int(likelihood.max(axis=0).argmax())])
    profile = likelihood.max(axis=0)
    best = int(profile.argmax())
    inside = np.flatnonzero(profile >= profile[best] - float(scipy.special.chdtri(1, 1 - INTERVAL)) / 2)
    low, high = int(inside[0]), int(inside[-1])
    if low == 0 or high == _RATES - 1:
        return None  # open at one end: no run bounds it
    return math.exp(tried[best]), [math.exp(tried[low]), math.exp(tried[high])]

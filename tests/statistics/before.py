"""The intervals that were replaced, to show what changed (docs/evidence/statistics.md)."""

import math

import numpy as np
from scipy import special

RESAMPLES = 200


def percentile_interval(values, p):
    """The wider of independent order statistics and a moving-block bootstrap with blocks of sqrt(n)."""
    ordered, count = np.sort(values), len(values)
    low = ordered[max(int(special.bdtrik(0.025, count, p)) - 1, 0)]
    high = ordered[min(math.ceil(special.bdtrik(0.975, count, p)), count - 1)]
    resampled = np.quantile(_resamples(values, p), [0.025, 0.975])
    return min(low, resampled[0]), max(high, resampled[1])


def _resamples(values, p):
    count = len(values)
    length = max(1, math.isqrt(count))
    rank = math.ceil(p * count) - 1
    rng = np.random.default_rng(0)
    starts = rng.integers(0, count - length + 1, (RESAMPLES, math.ceil(count / length)))
    rows = values[(starts[..., None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count]]
    return np.partition(rows, rank, axis=1)[:, rank]


def rate_interval(done):
    """Student over ten stretches of equal time."""
    counts, edges = np.histogram(done, bins=10, range=(0, done[-1]))
    rates = counts / np.diff(edges)
    half = special.stdtrit(9, 0.975) * rates.std(ddof=1) / math.sqrt(10)
    return rates.mean() - half, rates.mean() + half

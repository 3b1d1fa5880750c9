"""Say what a rule could confirm that is told what only the simulation knows.

Three of them, each told more than the one before:

- *spotless*: how many runs at exactly the capacity hold no slow request at all. Nothing in such a run tells it from one
  of a server at half the load. Whoever confirms spotless runs is wrong in so many.
- *votes*: the product's rule, told how many requests count as one at its rate: the long-run variance of their count.
- *exact*: a run holds where it has so few slow requests as 1% of the runs at the capacity have, by their simulated
  distribution. No rule that counts slow requests does better at 1%.
"""

import functools

import families
import numpy as np

from sweep.analysis import percentiles

SHARES = (0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the capacity, among which an oracle takes the best
RISK = 0.01
_RUNS = 300  # of which the long-run variance and the distribution at the capacity are taken
_CHUNK = 25


def runs(sweeps, *, draw, rate, count, seed):
    """Yield the latencies of ``sweeps`` runs of ``count`` requests, drawn as the product draws them."""
    rng, warm, done = np.random.default_rng([seed, count]), max(count // 20, 300), 0
    while done < sweeps:
        size = min(_CHUNK, sweeps - done)
        gaps = families.product_gaps(rate, (warm, count), [(seed, count, done + n) for n in range(size)])
        yield from families.sojourn(gaps, draw(rng, size, warm + count))[:, warm:]
        done += size


@functools.cache
def slow_counts(draw, limit, rate, count, sweeps=_RUNS, seed=53):
    """Return how many requests were slow in each of ``sweeps`` runs, shape (sweeps,)."""
    each = runs(sweeps, draw=draw, rate=rate, count=count, seed=seed)
    return np.array([int(np.count_nonzero(row > limit)) for row in each])


def inflation(counts, requests):
    """Return how many requests count as one, by the variance of the slow ones over runs; at least 1."""
    share = counts.mean() / requests
    return max(float(counts.var(ddof=1) / (requests * share * (1 - share))), 1.0) if share else 1.0


def most_slow(counts):
    """Return the most slow requests that 1% of these runs stay within at most; -1 where more are spotless."""
    ordered = np.sort(counts)
    return int(ordered[int(RISK * len(counts))]) - 1


def votes_hold(counts, requests, inflated, p=0.99):
    """Tell of each run whether the product's rule confirms it, told ``inflated``."""
    held = [percentiles.held_confidence(requests, int(over), p, inflated) for over in counts]
    return np.array(held) >= percentiles.CONFIDENCE


def best_search(*, draw, limit, capacity, seconds, sweeps=_RUNS):
    """Return share of the capacity, runs that hold and runs, of the best single run that takes all the time.

    It is told the capacity and how many requests count as one at its rate; of the time, 5% is warm-up.

    Args:
        draw: service times, of mean 1 ms.
        limit: limit of the p99, ms.
        capacity: load at the capacity.
        seconds: time of the search, s.
        sweeps: runs at each rate.
    """
    held = {}
    for share in SHARES:
        requests = int(share * capacity * 1e3 * seconds / 1.05)
        counts = slow_counts(draw, limit, share * capacity, requests, sweeps)
        held[share] = int(votes_hold(counts, requests, inflation(counts, requests)).sum())
    best = max(held, key=lambda share: (held[share], share))
    return best, held[best], sweeps

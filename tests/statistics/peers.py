"""Other tools' rules, each as its authors published it, on the simulated machines of the study."""

import math

import families
import numpy as np
from coverages import closed_samples, stream
from harness import Share
from rankings import told
from scipy import special

WINDOW = 300  # requests of one of perf_analyzer's windows


def starts(rng, count, requests, *, between, slower=1.0, cv=0.1):
    """Return the service times of ``count`` process starts."""
    drawn = families.lognormal(cv)(rng, count, requests)
    return drawn * slower * np.exp(between * rng.standard_normal((count, 1)))


def perf_analyzer(rng, slower, between):
    """Three windows in a row within 10% of their mean; one start, and the reader compares two figures to 1%."""
    row = starts(rng, 1, 10 * WINDOW, between=between, slower=slower)[0]
    rates = WINDOW / row.reshape(-1, WINDOW).sum(axis=1)
    for last in range(3, len(rates) + 1):
        recent = rates[last - 3 : last]
        if np.all(np.abs(recent / recent.mean() - 1) <= 0.1):
            return float(recent.mean()), 0.01, last * WINDOW
    return float(rates.mean()), 0.01, len(row)


def nvbench(rng, slower, between):
    """Until the relative deviation of the samples is below 0.5%, or 15,000 of them; noise decides what differs."""
    row = starts(rng, 1, 15_000, between=between, slower=slower)[0]
    noise = float(row.std(ddof=1) / row.mean())
    return 1 / float(row.mean()), noise, len(row)


def pyperf(processes=20, loops=10):
    """Return pyperf's rule: processes of one warm-up and three values each; all values are taken for independent.

    Args:
        processes: starts of the program; 20 by default.
        loops: requests behind one value.
    """

    def rule(rng, slower, between):
        rows = starts(rng, processes, 4 * loops, between=between, slower=slower)
        values = rows[:, loops:].reshape(3 * processes, loops).mean(axis=1)
        return values, None, rows.size

    return rule


def _apart_by_t(first, second, risk=0.05):
    """Student's t with pooled variances, as pyperf's ``is_significant``."""
    pooled = (first.var(ddof=1) + second.var(ddof=1)) / 2
    t = abs(first.mean() - second.mean()) / math.sqrt(2 * pooled / len(first))
    return t > special.stdtrit(2 * len(first) - 2, 1 - risk / 2)


def calls(sweeps, rule, *, slower, between, seed=43, block=0):
    """Return the share of pairs that a peer's rule calls different, and the requests and starts that both took."""
    rng, count = stream(seed, 1e4 * between, 1e3 * slower, block=block), 0
    for _ in range(sweeps):
        (first, noise, _), (second, other_noise, _) = rule(rng, 1.0, between), rule(rng, slower, between)
        if noise is None:
            count += bool(_apart_by_t(first, second))
        else:
            count += abs(first / second - 1) > min(noise, other_noise)
    return Share(count, sweeps)


def requests(rule, pairs=20):
    """Return how many requests a pair of a rule takes."""
    rng = np.random.default_rng(7)
    return sum(rule(rng, 1.0, 0.0)[2] + rule(rng, 1.0, 0.0)[2] for _ in range(pairs)) / pairs


def our_calls(sweeps, *, slower, between, repeats=5, count=1000, seed=43, block=0):
    """Return the same of the product: samples, records and ranking."""
    rng, total = stream(seed, 1e4 * between, 1e3 * slower, repeats, block=block), 0
    for _ in range(sweeps):
        pair = [starts(rng, repeats, count, between=between, slower=factor) for factor in (1.0, slower)]
        total += bool(told([[closed_samples(row, n) for n, row in enumerate(rows)] for rows in pair]))
    return Share(total, sweeps)

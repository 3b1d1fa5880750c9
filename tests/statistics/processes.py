"""Processes whose truth is known, many sweeps at once: one row a sweep, service times of mean 1."""

import math

import numpy as np
from scipy import special

from sweep.loadgen.arrivals import draw_due_ns


def gaussian(rng, sweeps, count, phi):
    """Stationary AR(1) of unit variance: correlation ``phi ** lag``; 0 is independent."""
    noise = rng.standard_normal((sweeps, count))
    if not phi:
        return noise
    from scipy import signal  # a second to import, which the collection of all other tests does without

    noise[:, 1:] *= math.sqrt(1 - phi * phi)
    return signal.lfilter([1], [1, -phi], noise, axis=1)


def lognormal(rng, sweeps, count, *, cv, phi=0.0):
    """Mean 1, standard deviation ``cv``, neighbours correlated through AR(1)."""
    width = math.sqrt(math.log1p(cv * cv))
    return np.exp(width * gaussian(rng, sweeps, count, phi) - width * width / 2)


def lognormal_percentile(p, *, cv):
    width = math.sqrt(math.log1p(cv * cv))
    return math.exp(width * special.ndtri(p) - width * width / 2)


def queue(rng, sweeps, count, *, load, cv=None, warm=None):
    """Latencies of a first-in-first-out queue with one server under Poisson arrivals, after a warm-up.

    Lindley's recursion, W' = max(0, W + S - A), whole rows at once. Service times are constant (cv 0), exponential
    (None) or lognormal.
    """
    warm = 2000 if warm is None else warm
    total = warm + count
    gaps = rng.exponential(1 / load, (sweeps, total))
    return sojourn(gaps, service(rng, sweeps, total, cv))[:, warm:]


def service(rng, sweeps, count, cv):
    if cv is None:
        return rng.exponential(1.0, (sweeps, count))
    return lognormal(rng, sweeps, count, cv=cv) if cv else np.ones((sweeps, count))


def sojourn(gaps, served):
    """Waiting and service of each request, from the gap before it and its own service time."""
    steps = np.zeros_like(served)
    steps[:, 1:] = served[:, :-1] - gaps[:, 1:]
    walk = np.cumsum(steps, axis=1)
    return walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0) + served


def exponential_queue_percentile(p, load):
    """M/M/1: latency is exponential with mean 1 / (1 - load)."""
    return -math.log(1 - p) / (1 - load)


def long_run_percentiles(levels, *, load, cv):
    """Of 40 million requests of a queue without a closed form."""
    rng = np.random.default_rng(1_000_003)
    pooled = np.concatenate([queue(rng, 20, 100_000, load=load, cv=cv, warm=5000).ravel() for _ in range(20)])
    return [float(value) for value in np.quantile(pooled, levels)]


def scheduled(seed, count, *, load):
    """The product's own arrivals for one sweep, as gaps."""
    return np.diff(draw_due_ns("poisson", load, (count,), (seed,)) / 1e9, prepend=0.0)[None]

"""How often a point is called unstable or overloaded, with what a test that knows the truth would say beside it."""

import functools
import math

import families
import numpy as np
from coverages import stream
from harness import Share
from scipy import special

from sweep.analysis import stability, verdicts
from sweep.loadgen.load_point import request_counts
from sweep.spec import LoadAxes
from sweep.storage.samples import PointSamples

LOAD = LoadAxes()


def open_point(load, rate_rps, served_ns, counts, seed):
    """Return the samples of a point of the product's own schedule at a single server."""
    warm, count = counts
    gaps_ms = families.product_gaps(rate_rps / 1e3, (warm, count), [seed])[0]
    due = np.cumsum(gaps_ms * 1e6).astype(np.int64)
    done = due + families.sojourn(gaps_ms[None] * 1e6, served_ns[None])[0].astype(np.int64)
    start = done - served_ns.astype(np.int64)
    return PointSamples(
        kind="poisson",
        index=0,
        repeat=0,
        batch=1,
        offered_rps=rate_rps,
        overloaded=bool((start - due).max() > load.max_wait_s * 1e9),
        complete=count >= load.min_requests,
        scheduled_ns=due,
        issued_ns=np.maximum(start, due),
        done_ns=done,
        slot_free=np.zeros(len(due), dtype=bool),
        warmup=np.arange(len(due)) < warm,
        stream=np.zeros(len(due), dtype=np.int16),
    )


def called(sweeps, verdict, *, draw, load, passes=1, step=0.0, service_ms=1.0, seed=37, block=0):
    """Return the share of rungs at ``load`` of what one server can take that have the verdict.

    ``step`` slows the second half of the window down.
    """
    rng, mean = stream(seed, 100 * load, block=block), families.long_run(draw, [0.5])[1]
    rate, count_called = load * 1e3 / service_ms, 0
    warm, count = request_counts(LOAD, rate)
    slower = 1 + step * (np.arange(warm + count) > warm + count / 2)
    for sweep in range(sweeps):
        served = draw(rng, passes, warm + count) / mean * service_ms * 1e6 * slower
        seeds = [(seed, 1 + block, 1 + sweep, 1 + number) for number in range(passes)]
        points = [open_point(LOAD, rate, row, (warm, count), each) for row, each in zip(served, seeds, strict=True)]
        count_called += verdicts.open_verdict(points)[0] == verdict
    return Share(count_called, sweeps)


@functools.cache
def _means_error(draw, size, seed=1_000_039, rows=16, count=60_000):
    """Return the mean and the standard deviation of the mean of ``size`` consecutive service times."""
    drawn = draw(np.random.default_rng(seed), rows, count // size * size)
    means = drawn.reshape(-1, size).mean(axis=1)
    return float(drawn.mean()), float(means.std(ddof=1))


def step_oracle(*, draw, load, step=0.1, service_ms=1.0, anywhere=False):
    """Return the power of a test that knows where a step is and how the means of half windows scatter.

    ``anywhere`` does not know where: the largest sum of deviations is held against that of a Brownian bridge. Their
    risk is the product's.
    """
    _, count = request_counts(LOAD, load * 1e3 / service_ms)
    mean, error = _means_error(draw, max(count // 2, 1))
    shift = step * mean / max(error * math.hypot(1, 1 + step), 1e-12)
    bridge = 2 * math.sqrt(-math.log(stability.RISK / 2) / 2)
    return float(special.ndtr(shift - (bridge if anywhere else special.ndtri(1 - stability.RISK / 2))))


def step_oracles(**settings):
    """Return the text of both: that knows the place, and that does not."""
    return f"{step_oracle(**settings):.0%}, anywhere {step_oracle(anywhere=True, **settings):.0%}"


def overload_oracle(*, draw, load=1.1, service_ms=1.0):
    """Return the power of a test for more load than the server takes that knows how means of a window scatter.

    It knows the distribution of the mean service time of a window at exactly the rate that the server can serve, and
    calls a window overloaded beyond its 99th percentile.
    """
    _, count = request_counts(LOAD, load * 1e3 / service_ms)
    drawn = draw(np.random.default_rng(1_000_043), 400, count).mean(axis=1)
    ratio = drawn / families.long_run(draw, [0.5])[1]
    return float(np.mean(ratio * load > np.quantile(ratio, 0.99)))

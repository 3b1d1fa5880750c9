"""How often the intervals of percentiles and of peaks contain the truth, with an oracle's beside them."""

import functools
import math

import families
import numpy as np
from harness import Coverage, Median, Share

from sweep.analysis import intervals, percentiles
from sweep.analysis.point_summary import closed_summary, open_summary
from sweep.analysis.record_views import probably_higher
from sweep.storage.samples import PointSamples

NORMAL = 1.959964
ORACLE_ROWS = 400  # windows by which an oracle knows what one differs from the next by


def stream(seed, *numbers, block=0):
    """Return the random stream of one block of a cell; seeds that pad with zeros stay apart."""
    return np.random.default_rng([seed, *(round(number) for number in numbers), 1 + block])


def closed_samples(served_ms, repeat=0):
    """Return the samples of one closed loop of one stream, from the service time of each request in ms."""
    done = np.cumsum(served_ms * 1e6).astype(np.int64)
    issued = np.concatenate([[0], done[:-1]])
    return PointSamples(
        kind="closed",
        index=-1,
        repeat=repeat,
        batch=1,
        offered_rps=None,
        overloaded=False,
        complete=True,
        scheduled_ns=issued,
        issued_ns=issued,
        done_ns=done,
        slot_free=np.ones(len(done), dtype=bool),
        warmup=np.zeros(len(done), dtype=bool),
        stream=np.zeros(len(done), dtype=np.int16),
    )


def idle_samples(latency_ms, rate_rps=1.0, repeat=0):
    """Return the samples of an open-loop point in which no request waits for another: latencies and nothing else."""
    due = (np.arange(len(latency_ms)) * 1e9 / rate_rps).astype(np.int64)
    return PointSamples(
        kind="poisson",
        index=0,
        repeat=repeat,
        batch=1,
        offered_rps=rate_rps,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due,
        done_ns=due + (latency_ms * 1e6).astype(np.int64),
        slot_free=np.zeros(len(due), dtype=bool),
        warmup=np.zeros(len(due), dtype=bool),
        stream=np.zeros(len(due), dtype=np.int16),
    )


def repeats(sweeps, p, *, draw, passes, between, count=1000, seed=23, block=0):
    """Return the coverage of the interval of the percentile of a typical start."""
    truth = families.long_run(draw, [p])[0][0]
    rng = stream(seed, passes, 1e4 * between, block=block)
    held = printed = 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        bounds = intervals.percentile_interval(list(rows), p)
        if bounds is not None:
            printed += 1
            held += bounds[0] <= truth <= bounds[1]
    return Coverage(Share(held, printed), Share(sweeps - printed, sweeps))


@functools.cache
def _start_error(draw, p, between, count, seed=1_000_033):
    """Return the mean and the standard deviation of the log percentile of a start: what an oracle knows."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([draw(rng, 50, count) for _ in range(ORACLE_ROWS // 50)])
    logs = [math.log(percentiles.percentile(np.sort(row), p)) for row in rows]
    return math.hypot(float(np.std(logs, ddof=1)), between)


def repeats_oracle(sweeps, p, *, draw, passes, between, count=1000, seed=23, block=0):
    """Return the same of the normal interval whose standard deviation between starts is the true one.

    Its shortfall from 95% is the bias of a percentile of so few requests.
    """
    truth, error = families.long_run(draw, [p])[0][0], _start_error(draw, p, between, count) / math.sqrt(passes)
    rng, held = stream(seed, passes, 1e4 * between, block=block), 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        centre = np.mean([math.log(percentiles.percentile(np.sort(row), p)) for row in rows])
        held += abs(centre - math.log(truth)) <= NORMAL * error
    return Share(held, sweeps)


def peak(sweeps, *, draw, passes, between=0.0, count=2000, seed=29, block=0):
    """Return the coverage of the interval of the throughput of a typical start."""
    rate = 1 / families.long_run(draw, [0.5])[1]
    rng, held, printed = stream(seed, passes, count, block=block), 0, 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        times = [np.concatenate([[0.0], np.cumsum(row)]) for row in rows]
        bounds, _ = intervals.rate_interval(float(np.mean([count / each[-1] for each in times])), times)
        if bounds is not None:
            printed += 1
            held += bounds[0] <= rate <= bounds[1]
    return Coverage(Share(held, printed), Share(sweeps - printed, sweeps))


@functools.cache
def _rate_error(draw, count, seed=1_000_037):
    """Return the standard deviation of the log throughput of a window: one over the root of what counts in it."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([draw(rng, 50, count).mean(axis=1) for _ in range(ORACLE_ROWS // 50)])
    return float(np.std(np.log(rows), ddof=1))


def peak_oracle(sweeps, *, draw, passes, count=2000, seed=29, block=0):
    """Return the same of the normal interval with the true number of independent requests."""
    truth, error = math.log(families.long_run(draw, [0.5])[1]), _rate_error(draw, count) / math.sqrt(passes)
    rng, held = stream(seed, passes, count, block=block), 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(0.0 * rng.standard_normal((passes, 1)))
        held += abs(float(np.mean(np.log(rows.mean(axis=1)))) - truth) <= NORMAL * error
    return Share(held, sweeps)


def printed_peak(sweeps, *, draw, passes=1, count=2000, seed=29, block=0):
    """Return the coverage of what a record prints of a peak: no interval where it is unstable either."""
    rate = 1e3 / families.long_run(draw, [0.5])[1]
    rng, held, printed = stream(seed, passes, count, block=block), 0, 0
    for _ in range(sweeps):
        summary = closed_summary([closed_samples(row) for row in draw(rng, passes, count)])
        bounds = summary["interval"] if summary["verdict"] == "ok" else None
        if bounds is not None:
            printed += 1
            held += bounds[0] <= rate <= bounds[1]
    return Coverage(Share(held, printed), Share(sweeps - printed, sweeps))


def printed_repeats(sweeps, name, p, *, draw, passes, between, count=1000, seed=23, block=0):
    """Return the coverage of what a record prints of a percentile of repeats."""
    truth = families.long_run(draw, [p])[0][0]
    rng, held, printed = stream(seed, passes, 1e4 * between, block=block), 0, 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        bounds = open_summary([idle_samples(row, repeat=n) for n, row in enumerate(rows)])["interval"][name]
        if bounds is not None:
            printed += 1
            held += bounds[0] <= truth <= bounds[1]
    return Coverage(Share(held, printed), Share(sweeps - printed, sweeps))


def short_tail(sweeps, *, load=0.8, count=662, draw=families.exponential, seed=31, block=0):
    """Return the p99 of short windows of a busy queue: the share that is marked or has no figure.

    And the median of what is printed over the truth of M/M/1.
    """
    rng, marked, printed = stream(seed, 100 * load, block=block), 0, []
    truth = -math.log(0.01) / (1 - load)
    for row in families.queue(rng, sweeps, count, load=load, draw=draw):
        point = open_summary([idle_samples(row)])
        printed.append((point["latency_ms"]["p99"] or math.nan) / truth)
        marked += point["latency_ms"]["p99"] is None or probably_higher(point, "p99")
    return Share(marked, sweeps), Median(tuple(printed))

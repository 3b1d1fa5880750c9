"""Capacities under an SLO on simulated queues: families that constants were tuned on, and families held apart.

Each cell has its standard error. Where theory, not the rule, sets the bound, an oracle's value stands beside it: the
same rule given what the truth alone knows.
"""

import dataclasses
import math

import capacity_oracles
import families
import numpy as np
import queues
from harness import Share

from sweep.analysis import percentiles, slo_capacity
from sweep.backends.simulated import SimulatedStream
from sweep.loadgen import capacity_search, load_curve
from sweep.spec.slo import Slo

QUEUES = {"tuned": families.TUNED_QUEUES, "apart": families.APART_QUEUES}
LIMITS = {  # of the p99, in service times
    "M/Erlang(cv .5)/1": 6.0,
    "M/Weibull .6/1": 25.0,
    "M/steps of 60/1": 6.0,
    "M/D/1": 10.0,
    "M/M/1": 10.0,
    "M/H2/1": 30.0,
    "M/bimodal/1": 12.0,
    "M/Pareto 2.2/1": 20.0,
    "M/slow 10% x1.5, stays 200/1": 6.0,
    "M/stall of 20 in 500/1": 20.0,
    "M/inverse Gaussian .7/1": 8.0,
    "M/log-logistic 3/1": 15.0,
    "M/each 8th x2/1": 6.0,
    "M/neighbour 40 in 400, x1.4/1": 6.0,
}


def true_capacity(draw, limit, p=0.99, total=2_000_000, seed=5):
    """Load at which a share ``p`` stays within the limit, and the inflation there, from a long run."""
    rng = np.random.default_rng(seed)
    served = draw(rng, 10, total // 10)
    gaps = rng.exponential(1.0, served.shape)
    low, high = 0.05, 0.999
    for _ in range(14):
        middle = (low + high) / 2
        slow = families.sojourn(gaps / middle, served)[:, 5000:] > limit
        low, high = (middle, high) if slow.mean() <= 1 - p else (low, middle)
    slow = families.sojourn(gaps / low, served)[:, 5000:] > limit
    size = 20_000
    means = slow[:, : slow.shape[1] // size * size].reshape(-1, size).mean(axis=1)
    return low, float(size * means.var(ddof=1) / (slow.mean() * (1 - slow.mean())))


def confirms(sweeps, *, draw, limit, rate, count, oracle=None, p=0.99, seed=41):
    """Share of runs of ``count`` requests at ``rate`` that confirm; ``oracle`` is the true inflation, where given."""
    rng = np.random.default_rng([seed, count])
    warm, held, done = max(count // 20, 300), 0, 0
    while done < sweeps:
        size = min(25, sweeps - done)
        gaps = families.product_gaps(rate, (warm, count), [(seed, count, done + n) for n in range(size)])
        for row in families.sojourn(gaps, draw(rng, size, warm + count))[:, warm:]:
            inflated = oracle or percentiles.inflation(row, p, limit)
            over = int(np.count_nonzero(row > limit))
            held += percentiles.held_confidence(count, over, p, inflated) >= percentiles.CONFIDENCE
        done += size
    return Share(held, sweeps)


class _Stream(SimulatedStream):
    """A stream of the simulated backend whose service times are a family's, of mean 1 ms."""

    def _service_ns(self, samples):
        return int(next(self.times_ns))


def _session(draw, seed):
    session = queues.session(seed=seed)
    for stream in session.streams:
        stream.__class__, stream.times_ns = _Stream, _times_ns(draw, stream._rng)
    return session


def _times_ns(draw, rng):
    while True:
        yield from (draw(rng, 1, 20_000)[0] * 1e6).tolist()


def search(draw, limit_ms, seconds, seed):
    """The record's ``slo`` of one whole search, curve first."""
    load = dataclasses.replace(queues.LOAD, seed=seed)
    curve = load_curve.measure(_session(draw, 2 * seed), load, batch=1)
    request = capacity_search.SearchRequest(slo=Slo("p99", limit_ms), search_s=seconds)
    runs = capacity_search.run(_session(draw, 2 * seed + 1), load, request, curve)
    return slo_capacity.slo_result([*curve, *runs], Slo("p99", limit_ms))


def searches(sweeps, *, draw, limit, seconds=20.0):
    """Shares without an answer and above the truth, the answers over the truth, and the estimate's coverage."""
    truth = true_capacity(draw, limit)[0] * 1e3
    results = [search(draw, limit, seconds, seed) for seed in range(sweeps)]
    answers = [result["capacity_ips"] / truth for result in results if result["capacity_ips"]]
    bounds = [result["estimate_interval"] for result in results if result["estimate_interval"]]
    return (
        Share(sweeps - len(answers), sweeps),
        Share(sum(answer > 1 for answer in answers), sweeps),
        answers,
        Share(sum(low <= truth <= high for low, high in bounds), len(bounds)),
    )


def median_with_error(values):
    """The median and its standard error, by the order statistics one standard deviation to either side."""
    if len(values) < 3:
        return "-"
    ordered, half = np.sort(values), math.sqrt(len(values)) / 2
    low, high = (int(np.clip(round((len(ordered) - 1) / 2 + side * half), 0, len(ordered) - 1)) for side in (-1, 1))
    return f"{np.median(ordered):.2f} ± {(ordered[high] - ordered[low]) / 2:.2f}"


def side_by_side(say, title, columns, rows):
    """Print one table: ``rows`` maps each half to its lines."""
    say(f"**{title}**\n")
    say(f"| half | family | {' | '.join(columns)} |")
    say("|" + "---|" * (len(columns) + 2))
    for half, lines in rows.items():
        for name, cells in lines:
            say(f"| {half} | {name} | {' | '.join(str(cell) for cell in cells)} |")
    say("")


def confirm_table(say, sweeps):
    columns = [
        "2,000 requests",
        "spotless",
        "7,000",
        "spotless",
        "70%: 7,000",
        "oracle: votes",
        "oracle: exact",
    ]

    def cells(name, draw):
        limit = LIMITS[name]
        rate = true_capacity(draw, limit)[0]
        same = {"draw": draw, "limit": limit}
        for count in (2000, 7000):
            yield confirms(sweeps, **same, rate=rate, count=count)
            at = capacity_oracles.slow_counts(draw, limit, rate, count, sweeps)
            yield Share(int(np.count_nonzero(at == 0)), sweeps)
        yield confirms(sweeps, **same, rate=0.7 * rate, count=7000)
        below = capacity_oracles.slow_counts(draw, limit, 0.7 * rate, 7000, sweeps)
        votes = capacity_oracles.votes_hold(below, 7000, capacity_oracles.inflation(below, 7000))
        yield Share(int(votes.sum()), sweeps)
        yield Share(int(np.count_nonzero(below <= capacity_oracles.most_slow(at))), sweeps)

    rows = {half: [(name, cells(name, draw)) for name, draw in each.items()] for half, each in QUEUES.items()}
    title = (
        "Confirmed at exactly the capacity (at most 1% is meant; spotless: no slow request at all), and at 70% of it"
    )
    side_by_side(say, title, columns, rows)


def search_table(say, sweeps):
    columns = [
        "no answer",
        "oracle: no answer",
        "at",
        "above the truth",
        "median of the truth",
        "the estimate's interval covers",
    ]

    def cells(name, draw):
        none, above, answers, covers = searches(max(sweeps // 10, min(sweeps, 100)), draw=draw, limit=LIMITS[name])
        capacity = true_capacity(draw, LIMITS[name])[0]
        at, held, of = capacity_oracles.best_search(
            draw=draw, limit=LIMITS[name], capacity=capacity, seconds=20.0, sweeps=min(sweeps, 300)
        )
        yield from (none, Share(of - held, of), f"{at:g}", above, median_with_error(answers), covers)

    rows = {half: [(name, cells(name, draw)) for name, draw in each.items()] for half, each in QUEUES.items()}
    side_by_side(say, "Searches of 20 s at a service time of 1 ms", columns, rows)

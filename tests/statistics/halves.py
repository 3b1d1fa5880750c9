"""The study in two halves, side by side: families that constants were tuned on, and families held apart.

Each cell has its standard error. Where theory, not the rule, sets the bound, an oracle's value stands beside it: the
same rule given what the truth alone knows.
"""

import dataclasses
import math
from collections import Counter

import families
import numpy as np
import queues
from scipy import special

from sweep.analysis import intervals, percentiles, slo_capacity, stability, verdicts
from sweep.backends.simulated import SimulatedStream
from sweep.loadgen import capacity_search, load_curve
from sweep.loadgen.load_point import request_counts
from sweep.spec import LoadAxes
from sweep.spec.slo import Slo
from sweep.storage.samples import PointSamples

HALVES = {"tuned": families.TUNED, "apart": families.APART}
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
}
STEADY = {"tuned": ("lognormal cv .1", "gamma cv .5", "Weibull .6"), "apart": ("AR(1) .7, cv .3", "Pareto 2.2")}


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of simulated sweeps.

    Attributes:
        of: how many were simulated.
        count: how many of them.
    """

    count: int
    of: int

    @property
    def value(self):
        return self.count / self.of if self.of else math.nan

    def __str__(self):
        if not self.of:
            return "-"
        error = math.sqrt(max(self.value * (1 - self.value), 0.25 / self.of) / self.of)
        return f"{self.value:.1%} ± {error:.1%}"


def repeats_coverage(sweeps, p, *, draw, passes, between, count=1000, seed=23):
    """Coverage, and share without an interval, of the percentile of a typical start."""
    truth = families.long_run(draw, [p])[0][0]
    rng = np.random.default_rng([seed, passes, round(1e4 * between)])
    held = printed = 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        bounds = intervals.percentile_interval(list(rows), p)
        if bounds is not None:
            printed += 1
            held += bounds[0] <= truth <= bounds[1]
    return Share(held, printed), Share(sweeps - printed, sweeps)


def peak_coverage(sweeps, *, draw, passes, between=0.0, count=2000, seed=29):
    """Coverage, and share without an interval, of the throughput of a typical start."""
    rate = 1 / families.long_run(draw, [0.5])[1]
    rng = np.random.default_rng([seed, passes, count])
    held = printed = 0
    for _ in range(sweeps):
        rows = draw(rng, passes, count) * np.exp(between * rng.standard_normal((passes, 1)))
        times = [np.concatenate([[0.0], np.cumsum(row)]) for row in rows]
        bounds, _ = intervals.rate_interval(float(np.mean([count / each[-1] for each in times])), times)
        if bounds is not None:
            printed += 1
            held += bounds[0] <= rate <= bounds[1]
    return Share(held, printed), Share(sweeps - printed, sweeps)


def tail_is_marked(sweeps, *, load=0.8, count=662, draw=families.exponential, seed=31):
    """Share of short windows of a busy queue whose p99 is marked or has no figure; and the median of printed/true."""
    rng = np.random.default_rng(seed)
    rows = families.queue(rng, sweeps, count, load=load, draw=draw)
    fewest = percentiles.min_count(0.99, 0)
    marked = sum(intervals.independent_counts([row])["p99"] < fewest for row in rows)
    return Share(marked, sweeps)


def open_point(load, rate_rps, served_ns, counts, seed):
    """A point of the product's own schedule at a single server, as samples."""
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


def point_verdicts(sweeps, *, draw, load, passes=1, step=0.0, service_ms=1.0, seed=37):
    """Verdicts of a rung at ``load`` of what one server can take; ``step`` slows its second half down."""
    axes, counts, rng = LoadAxes(), Counter(), np.random.default_rng([seed, round(100 * load)])
    mean = families.long_run(draw, [0.5], rows=4)[1]
    rate = load * 1e3 / service_ms
    warm, count = request_counts(axes, rate)
    slower = 1 + step * (np.arange(warm + count) > warm + count / 2)
    for sweep in range(sweeps):
        served = draw(rng, passes, warm + count) / mean * service_ms * 1e6 * slower
        points = [open_point(axes, rate, row, (warm, count), (sweep, 3, n)) for n, row in enumerate(served)]
        counts[str(verdicts.open_verdict(points)[0])] += 1
    return {name: Share(value, sweeps) for name, value in counts.items()}


def step_oracle(*, draw, load, step=0.1, service_ms=1.0):
    """Power of a test that knows where the step is and how the service times scatter, at the product's risk."""
    axes = LoadAxes()
    _, count = request_counts(axes, load * 1e3 / service_ms)
    size, rows = 1000, draw(np.random.default_rng(3), 8, 50_000)
    means = rows.reshape(-1, size).mean(axis=1)
    error = 2 * math.sqrt(size * float(means.var(ddof=1)) / count) * (1 + step / 2)
    return float(special.ndtr(step * float(rows.mean()) / max(error, 1e-12) - special.ndtri(1 - stability.RISK / 2)))


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
        if not self._draws:
            self._draws.extend((self.family(self._rng, 1, 20_000)[0] * 1e6).tolist())
        return int(self._draws.popleft())


def _session(draw, seed):
    session = queues.session(seed=seed)
    for stream in session.streams:
        stream.__class__, stream.family = _Stream, draw
    return session


def search(draw, limit_ms, seconds, seed):
    """The record's ``slo`` of one whole search, curve first."""
    load = dataclasses.replace(queues.LOAD, seed=seed)
    curve = load_curve.measure(_session(draw, 2 * seed), load, batch=1)
    request = capacity_search.SearchRequest(slo=Slo("p99", limit_ms), search_s=seconds)
    runs = capacity_search.run(_session(draw, 2 * seed + 1), load, request, curve)
    return slo_capacity.slo_result([*curve, *runs], Slo("p99", limit_ms))


def searches(sweeps, *, draw, limit, seconds=20.0):
    """Shares without an answer and above the truth, the median over the truth, and the estimate's coverage."""
    truth = true_capacity(draw, limit)[0] * 1e3
    results = [search(draw, limit, seconds, seed) for seed in range(sweeps)]
    answers = [result["capacity_ips"] / truth for result in results if result["capacity_ips"]]
    bounds = [result["estimate_interval"] for result in results if result["estimate_interval"]]
    return (
        Share(sweeps - len(answers), sweeps),
        Share(sum(answer > 1 for answer in answers), sweeps),
        float(np.median(answers)) if answers else math.nan,
        Share(sum(low <= truth <= high for low, high in bounds), len(bounds)),
    )


def side_by_side(say, title, columns, rows):
    """Print one table: ``rows`` maps each half to its lines."""
    say(f"**{title}**\n")
    say(f"| half | family | {' | '.join(columns)} |")
    say("|" + "---|" * (len(columns) + 2))
    for half, lines in rows.items():
        for name, cells in lines:
            say(f"| {half} | {name} | {' | '.join(str(cell) for cell in cells)} |")
    say("")


def repeats_table(say, sweeps):
    columns = [f"{name}, {n} passes, cv {cv:.0%}" for name in ("p50", "p99") for n in (3, 5) for cv in (0.01, 0.02)]

    def cells(draw):
        for p in (0.5, 0.99):
            for passes in (3, 5):
                for between in (0.01, 0.02):
                    held, null = repeats_coverage(sweeps, p, draw=draw, passes=passes, between=between)
                    yield f"{held}, null {null.value:.0%}"

    rows = {half: [(name, cells(draw)) for name, draw in each.items()] for half, each in HALVES.items()}
    side_by_side(say, "Percentiles of repeats: coverage, 1,000 requests a pass", columns, rows)


def peak_half_table(say, sweeps):
    columns = [f"{n} pass{'es' * (n > 1)} of {count}" for n in (1, 3, 5) for count in (662, 2000)]

    def cells(draw):
        for passes in (1, 3, 5):
            for count in (662, 2000):
                held, null = peak_coverage(sweeps, draw=draw, passes=passes, count=count)
                yield f"{held}, null {null.value:.0%}"

    rows = {half: [(name, cells(draw)) for name, draw in each.items()] for half, each in HALVES.items()}
    side_by_side(say, "Peak: coverage", columns, rows)


def verdict_table(say, sweeps):
    columns = [
        "67%",
        "80%",
        "89%",
        "5 passes, 67%",
        "80%",
        "89%",
        "10% step at 48%",
        "oracle",
        "at 80%",
        "oracle",
        "110%: overloaded",
    ]

    def cells(draw):
        for passes in (1, 5):
            for load in (0.67, 0.8, 0.89):
                yield point_verdicts(sweeps, draw=draw, load=load, passes=passes).get("unstable", Share(0, sweeps))
        for load in (0.48, 0.8):
            yield point_verdicts(sweeps, draw=draw, load=load, step=0.1).get("unstable", Share(0, sweeps))
            yield f"{step_oracle(draw=draw, load=load):.0%}"
        yield point_verdicts(sweeps, draw=draw, load=1.1).get("overloaded", Share(0, sweeps))

    constant = {"tuned": {"constant": families.constant}, "apart": {"exponential": families.exponential}}
    rows = {half: [(n, cells(d)) for n, d in {**constant[half], **each}.items()] for half, each in HALVES.items()}
    side_by_side(say, "Called unstable on steady queues; a step; a rung past the knee (1 ms service)", columns, rows)


def confirm_table(say, sweeps):
    columns = ["2,000 requests", "7,000", "oracle, 7,000", "at 70%: 7,000", "oracle, 7,000"]

    def cells(name, draw):
        limit = LIMITS[name]
        rate, inflated = true_capacity(draw, limit)
        same = {"draw": draw, "limit": limit}
        yield confirms(sweeps, **same, rate=rate, count=2000)
        yield confirms(sweeps, **same, rate=rate, count=7000)
        yield confirms(sweeps, **same, rate=rate, count=7000, oracle=inflated)
        yield confirms(sweeps, **same, rate=0.7 * rate, count=7000)
        yield confirms(sweeps, **same, rate=0.7 * rate, count=7000, oracle=inflated)

    rows = {half: [(name, cells(name, draw)) for name, draw in each.items()] for half, each in QUEUES.items()}
    side_by_side(say, "Confirmed at exactly the capacity (at most 1% is meant), and at 70% of it", columns, rows)


def search_table(say, sweeps):
    columns = ["no answer", "above the truth", "median of the truth", "the estimate's interval covers"]
    rows = {
        half: [
            (name, [none, above, f"{median:.2f}", covers])
            for name, draw in each.items()
            for none, above, median, covers in [searches(max(sweeps // 10, 10), draw=draw, limit=LIMITS[name])]
        ]
        for half, each in QUEUES.items()
    }
    side_by_side(say, "Searches of 20 s at a service time of 1 ms", columns, rows)


# Peers, each by its own published rule, on the same simulated machines.

WINDOW = 300  # requests of one of perf_analyzer's windows


def starts(rng, count, requests, *, between, slower=1.0, cv=0.1):
    """Service times of ``count`` process starts."""
    drawn = families.lognormal(cv)(rng, count, requests)
    return drawn * slower * np.exp(between * rng.standard_normal((count, 1)))


def perf_analyzer(rng, slower, between):
    """Three windows in a row within 10% of their mean; one start, and the reader compares two figures to 1%."""
    row = starts(rng, 1, 10 * WINDOW, between=between, slower=slower)[0]
    rates = WINDOW / row.reshape(-1, WINDOW).sum(axis=1)
    for last in range(3, len(rates) + 1):
        recent = rates[last - 3 : last]
        if np.all(np.abs(recent / recent.mean() - 1) <= 0.1):
            return float(recent.mean()), 0.01, float(row[: last * WINDOW].sum())
    return float(rates.mean()), 0.01, float(row.sum())


def nvbench(rng, slower, between):
    """Until the relative deviation of the samples is below 0.5%, or 15,000 of them; noise decides what differs."""
    row = starts(rng, 1, 15_000, between=between, slower=slower)[0]
    noise = float(row.std(ddof=1) / row.mean())
    return 1 / float(row.mean()), noise, float(row.sum())


def pyperf(rng, slower, between):
    """20 processes of three values each, of which all 60 are taken for independent."""
    rows = starts(rng, 20, 3 * 10, between=between, slower=slower)
    return rows.reshape(60, 10).mean(axis=1), None, float(rows.sum())


def _apart_by_t(first, second, risk=0.05):
    pooled = (first.var(ddof=1) + second.var(ddof=1)) / 2
    t = abs(first.mean() - second.mean()) / math.sqrt(2 * pooled / len(first))
    return t > special.stdtrit(2 * len(first) - 2, 1 - risk / 2)


def peer_calls(rule, sweeps, *, slower, between, seed=43):
    """Share of pairs that a peer's rule calls different, and the time that both took, in service times."""
    rng, called, spent = np.random.default_rng(seed), 0, 0.0
    for _ in range(sweeps):
        (first, noise, cost), (second, other_noise, other_cost) = rule(rng, 1.0, between), rule(rng, slower, between)
        spent += cost + other_cost
        if noise is None:
            called += bool(_apart_by_t(first, second))
        else:
            called += abs(first / second - 1) > min(noise, other_noise)
    return Share(called, sweeps), spent / sweeps


def our_calls(sweeps, called, *, slower, between, seed=43, repeats=5, count=1000):
    """The same of the product: ``called`` decides over the peaks of its passes."""
    rng, told = np.random.default_rng(seed), 0
    for _ in range(sweeps):
        pair = [starts(rng, repeats, count, between=between, slower=factor) for factor in (1.0, slower)]
        told += called([[np.concatenate([[0.0], np.cumsum(row)]) for row in rows] for rows in pair])
    return Share(told, sweeps), 2.0 * repeats * count


def peers_table(say, sweeps, called):
    say("**Peers: two variants, one machine; service cv 0.1, starts that differ by the given cv**\n")
    say("| rule | equal, starts 0% | equal, 1% | 3% slower, starts 0% | 3% slower, 1% | requests |")
    say("|---|---|---|---|---|---|")
    rules = {
        "perf_analyzer: three stable windows, compared to 1%": perf_analyzer,
        "nvbench: noise below 0.5%, differs by more than the noise": nvbench,
        "pyperf: 20 processes, t-test over 60 values": pyperf,
    }
    for name, rule in rules.items():
        each = [peer_calls(rule, sweeps, slower=s, between=b) for s in (1.0, 1.03) for b in (0.0, 0.01)]
        say(f"| {name} | {' | '.join(str(share) for share, _ in each)} | {each[0][1]:,.0f} |")
    ours = [our_calls(sweeps, called, slower=s, between=b) for s in (1.0, 1.03) for b in (0.0, 0.01)]
    say(f"| sweep: 5 starts of 1,000 | {' | '.join(str(share) for share, _ in ours)} | {ours[0][1]:,.0f} |")
    say("")
    say("| rule | M/M/1, p99 <= 10 at exactly the capacity: passes | at 70% of it: passes | requests |")
    say("|---|---|---|---|")
    rate, _ = true_capacity(families.exponential, 10.0)
    same = {"draw": families.exponential, "limit": 10.0}
    for name, count, oracle in (("LoadGen: early stopping", 7000, 1.0), ("sweep: confirming run", 7000, None)):
        at, below = (confirms(sweeps, **same, rate=f * rate, count=count, oracle=oracle) for f in (1.0, 0.7))
        say(f"| {name} | {at} | {below} | {count:,} |")
    say("")

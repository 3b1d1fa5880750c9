"""The tables of docs/evidence/statistics.md: coverage, A/A, power and drift, over simulated sweeps with fixed seeds.

make bench-stats                                             # every table, 2,000 sweeps a cell: CPU-days
make bench-stats ARGS="200 marks peak"                       # two tables, coarser
make bench-stats ARGS="400 --jobs 16 --json statistics.json" # 16 processes; the figures are the same for any number

Markdown goes to stdout, a table at a time. ``--fresh`` adds the families that no constant has seen: print them once a
version, after every constant is chosen.
"""

import argparse
import functools
import sys
from dataclasses import dataclass

import before
import coverages
import families
import halves
import harness
import marks
import numpy as np
import peers
import processes
import rankings
import steadiness
from harness import Coverage, Printed, Share, Table, cell

from sweep.analysis import intervals

SWEEPS = 2000
OLD_SHARE = 10  # the old bootstrap is slow: one sweep in ten
CHUNK = 50
MEDIAN_AND_TAIL = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True)
class Process:
    """Latencies with a known truth.

    Attributes:
        name: what the table says.
        count: requests of a sweep.
        draw: (rng, sweeps) -> one row a sweep.
        truth: of each percentile.
    """

    name: str
    count: int
    draw: object
    truth: dict


@dataclass(frozen=True)
class Sides:
    """What became of the intervals of one percentile.

    Attributes:
        sweeps: how many were simulated.
        printed: how many printed an interval.
        below: of those, how many lay below the truth.
        above: how many lay above it.
    """

    sweeps: int
    printed: int
    below: int
    above: int

    def __add__(self, other):
        return Sides(
            self.sweeps + other.sweeps,
            self.printed + other.printed,
            self.below + other.below,
            self.above + other.above,
        )

    @property
    def covered(self):
        return self.held.value

    @property
    def held(self):
        return Share(self.printed - self.below - self.above, self.printed)

    @property
    def wrong(self):
        """Share of all sweeps that printed an interval without the truth."""
        return (self.below + self.above) / self.sweeps

    def __str__(self):
        sides = [f"{Share(count, self.sweeps).value:.1%}" for count in (self.below, self.above)]
        return f"{self.held}, null {1 - self.printed / self.sweeps:.0%}, below {sides[0]}, above {sides[1]}"

    def figures(self):
        return {**self.held.figures(), "null": 1 - self.printed / self.sweeps, "below": self.below, "above": self.above}


@functools.cache
def _long_run_percentiles(levels, load, cv):
    return processes.long_run_percentiles(levels, load=load, cv=cv)


def independent(count, phi=0.0):
    truth = {name: processes.lognormal_percentile(p, cv=0.5) for name, p in MEDIAN_AND_TAIL.items()}
    name = f"AR(1), {phi:g}" if phi else "independent"
    return Process(name, count, lambda rng, sweeps: processes.lognormal(rng, sweeps, count, cv=0.5, phi=phi), truth)


def queue(load, count, cv=None):
    levels = list(MEDIAN_AND_TAIL.values())
    known = [processes.exponential_queue_percentile(p, load) for p in levels]
    truth = known if cv is None else _long_run_percentiles(tuple(levels), load, cv)
    name = f"{'M/M/1' if cv is None else 'M/G/1'} at {load:.0%}"
    return Process(
        name,
        count,
        lambda rng, sweeps: processes.queue(rng, sweeps, count, load=load, cv=cv),
        dict(zip(MEDIAN_AND_TAIL, truth, strict=True)),
    )


def coverage(process, name, sweeps, seed=11, *, interval=None, block=0):
    """Return what became of the intervals of simulated sweeps."""
    p, truth = MEDIAN_AND_TAIL[name], process.truth[name]
    take = interval or (lambda row, level: intervals.percentile_interval([row], level))
    rng = coverages.stream(seed, process.count, block=block)
    printed = below = above = 0
    for start in range(0, sweeps, CHUNK):
        for row in process.draw(rng, min(CHUNK, sweeps - start)):
            bounds = take(row, p)
            printed += bounds is not None
            below += bounds is not None and bounds[1] < truth
            above += bounds is not None and bounds[0] > truth
    return Sides(sweeps, printed, below, above)


def rate_coverage(sweeps, count, *, cv, phi=0.0, interval=None, seed=13, block=0):
    """Return how often the interval of a closed loop contains the true throughput, 1."""
    rng, held, printed = coverages.stream(seed, count, 1000 * cv, block=block), 0, 0
    for served in processes.lognormal(rng, sweeps, count, cv=cv, phi=phi):
        times = np.concatenate([[0.0], np.cumsum(served)])
        bounds = interval(times[1:]) if interval else intervals.rate_interval(count / times[-1], [times])[0]
        if bounds is not None:
            printed += 1
            held += bounds[0] <= 1 <= bounds[1]
    return Coverage(Share(held, printed), Share(sweeps - printed, sweeps))


PROCESSES = (
    lambda: independent(662),
    lambda: independent(2000),
    lambda: independent(9000),
    lambda: independent(2000, 0.5),
    lambda: independent(9000, 0.5),
    lambda: independent(9000, 0.9),
    lambda: queue(0.2, 662, 0.1),
    lambda: queue(0.6, 662, 0.1),
    lambda: queue(0.8, 662, 0.1),
    lambda: queue(0.2, 9000, 0.1),
    lambda: queue(0.4, 9000, 0.1),
    lambda: queue(0.6, 9000, 0.1),
    lambda: queue(0.8, 9000, 0.1),
    lambda: queue(0.9, 9000, 0.1),
    lambda: queue(0.2, 9000),
    lambda: queue(0.4, 9000),
    lambda: queue(0.8, 9000),
    lambda: queue(0.7, 40_000, 0.1),
    lambda: queue(0.8, 40_000, 0.1),
)
LOOPS = ((0.005, 0.0), (0.1, 0.0), (0.3, 0.0), (1.0, 0.0), (0.1, 0.5), (0.1, 0.9))


HALVES = {"tuned": families.TUNED, "apart": families.APART, "fresh": families.FRESH}


def percentile_table(sweeps, _halves):
    """Return the coverage of single passes, with that of the bootstrap that was replaced."""
    rows = []
    for make in PROCESSES:
        process = make()
        for name in MEDIAN_AND_TAIL:
            old = cell(_coverage, max(sweeps // OLD_SHARE, 50), process=process, name=name, old=True)
            rows.append(
                ((process.name, f"{process.count:,}", name), (old, cell(_coverage, sweeps, process=process, name=name)))
            )
    return Table(
        "percentiles", "Percentiles of one pass", ("latencies", "requests", "percentile", "before", "today"), rows
    )


def _coverage(sweeps, *, process, name, old=False, block=0):
    return coverage(process, name, sweeps, interval=before.percentile_interval if old else None, block=block)


def loop_table(sweeps, _halves):
    """Return the coverage of the peak of one pass, with that of the interval that was replaced."""
    rows = []
    for count in (662, 9000):
        for cv, phi in LOOPS:
            same = {"count": count, "cv": cv, "phi": phi}
            cells = (
                cell(rate_coverage, sweeps, interval=before.rate_interval, **same),
                cell(rate_coverage, sweeps, **same),
            )
            rows.append(((f"{cv:g}", f"{phi:g}", f"{count:,}"), cells))
    heads = ("service times, cv", "correlation", "requests", "before", "today")
    return Table("peaks", "Peak of one pass", heads, rows)


def many_table(sweeps, _halves):
    """Return what equal variants are called, and one that is slower, by starts and by what starts differ by."""
    rows = []
    for variants, starts, cv, machine in (
        (2, 1, 0.01, 0.0),
        (12, 1, 0.01, 0.0),
        (2, 3, 0.01, 0.0),
        (12, 3, 0.01, 0.0),
        (2, 5, 0.01, 0.0),
        (12, 5, 0.01, 0.0),
        (2, 3, 0.01, 0.1),
        (2, 5, 0.01, 0.1),
        (2, 5, 0.001, 0.02),
        (2, 5, 0.05, 0.02),
        (12, 5, 0.05, 0.02),
    ):
        same = {"variants": variants, "starts": starts, "cv": cv, "machine": machine}
        labels = f"{variants}", f"{starts}", f"{cv:.1%}", f"{machine:.0%}"
        cells = [cell(rankings.alike, sweeps, **same)]
        cells += [
            cell(function, sweeps, **given)
            for function, given in ((rankings.slower_one, same), (rankings.slower_oracle, _less(same)))
        ]
        rows.append((labels, cells))
    heads = (
        "variants",
        "starts",
        "starts differ by",
        "rounds differ by",
        "equal: any called",
        "one 3% slower: called",
        "oracle",
    )
    return Table("many", "Variants called different from the best", heads, rows)


def _less(settings):
    return {key: value for key, value in settings.items() if key != "machine"}


def drift_table(sweeps, _halves):
    """Return how often a sweep is called drifted whose last third is slower."""
    rows = []
    for cv in (0.002, 0.01, 0.02):
        for sentinels in (2, 6, 20):
            same = {"cv": cv, "sentinels": sentinels}
            cells = [cell(rankings.drifted, sweeps, slower=slower, **same) for slower in (1.0, 1.03, 1.05, 1.1, 1.2)]
            rows.append(((f"{cv:.1%}", f"{sentinels}"), cells))
    heads = ("starts differ by", "sentinels", "steady machine", "3% slower", "5% slower", "10% slower", "20% slower")
    return Table("drift", "Sweeps called drifted", heads, rows)


def repeats_table(sweeps, groups):
    """Return the coverage of the p99 of repeats, and that of an interval with the true spread between starts."""
    heads = ["half", "family"]
    heads += [f"{n} passes, {cv:.0%}{who}" for n in (3, 5) for cv in (0.01, 0.02) for who in ("", ": oracle")]
    rows = []
    for half, name, draw in _families(groups):
        cells = []
        for passes in (3, 5):
            for between in (0.01, 0.02):
                same = {"p": 0.99, "draw": draw, "passes": passes, "between": between}
                cells += [cell(coverages.repeats, sweeps, **same), cell(coverages.repeats_oracle, sweeps, **same)]
        rows.append(((half, name), cells))
    return Table("repeats", "p99 of repeats of 1,000 requests: covered", heads, rows)


def peak_table(sweeps, groups):
    """Return the coverage of the peak, and that of an interval with the true number of independent requests."""
    sizes = [(passes, count) for passes in (1, 3, 5) for count in (662, 2000)]
    heads = ["half", "family"]
    heads += [f"{passes} of {count:,}{who}" for passes, count in sizes for who in ("", ": oracle")]
    rows = []
    for half, name, draw in _families(groups):
        cells = []
        for passes, count in sizes:
            same = {"draw": draw, "passes": passes, "count": count}
            cells += [cell(coverages.peak, sweeps, **same), cell(coverages.peak_oracle, sweeps, **same)]
        rows.append(((half, name), cells))
    return Table("peak", "Peak, passes of requests: covered", heads, rows)


def verdict_table(sweeps, groups):
    """Return who is called unstable or overloaded, with oracles of a step and of a rung past the knee."""
    heads = ["half", "family", "67%", "80%", "89%", "5 passes: 67%", "80%", "89%", "step at 48%", "oracle"]
    heads += ["at 80%", "oracle", "110%: overloaded", "oracle"]
    own = {"tuned": ("constant", families.constant), "apart": ("exponential", families.exponential)}
    rows = []
    for half, name, draw in [(half, *own[half]) for half in groups if half in own] + _families(groups):
        same = {"draw": draw, "verdict": "unstable"}
        cells = [
            cell(steadiness.called, sweeps, load=load, passes=passes, **same)
            for passes in (1, 5)
            for load in (0.67, 0.8, 0.89)
        ]
        for load in (0.48, 0.8):
            cells.append(cell(steadiness.called, sweeps, load=load, step=0.1, **same))
            cells.append(steadiness.step_oracles(draw=draw, load=load))
        cells.append(cell(steadiness.called, sweeps, draw=draw, verdict="overloaded", load=1.1))
        cells.append(f"{steadiness.overload_oracle(draw=draw):.0%}")
        rows.append(((half, name), cells))
    rows.sort(key=lambda row: list(groups).index(row[0][0]))
    return Table("verdicts", "Called unstable on steady queues; a 10% step; a rung past the knee", heads, rows)


def peer_table(sweeps, _halves):
    """Return what other tools' rules call two variants on the same machines."""
    five, twenty = {"repeats": 5, "count": 1000}, {"repeats": 20, "count": 250}
    rules = {
        "perf_analyzer: three stable windows, two figures compared to 1%": peers.perf_analyzer,
        "nvbench: noise below 0.5%, differs by more than the noise": peers.nvbench,
        "pyperf: 20 processes of 3 values, t-test over 60 values": peers.pyperf(),
        "pyperf, as many requests as sweep: 20 processes": peers.pyperf(20, 62),
        "pyperf, as many requests and starts as sweep: 5 processes": peers.pyperf(5, 250),
    }
    cases = [(slower, between) for slower in (1.0, 1.03) for between in (0.0, 0.01, 0.02)]
    rows = [
        (
            (name,),
            [
                *(cell(peers.calls, sweeps, rule=rule, slower=slower, between=between) for slower, between in cases),
                f"{peers.requests(rule):,.0f}",
            ],
        )
        for name, rule in rules.items()
    ]
    for name, size in (("sweep: 5 starts of 1,000", five), ("sweep: 20 starts of 250", twenty)):
        cells = [cell(peers.our_calls, sweeps, slower=slower, between=between, **size) for slower, between in cases]
        rows.append(((name,), [*cells, f"{2 * size['repeats'] * size['count']:,}"]))
    heads = ["rule", *(f"{'equal' if slower == 1 else '3% slower'}, starts {between:.0%}" for slower, between in cases)]
    return Table("peers", "Two variants called different; service cv 0.1", [*heads, "requests"], rows)


def loadgen_table(sweeps, _halves):
    """Return what passes at exactly the capacity and below by LoadGen's rule and by the product's."""
    rate, _ = halves.true_capacity(families.exponential, 10.0)
    rows = []
    for name, oracle in (("LoadGen: early stopping, plain binomial", 1.0), ("sweep: confirming run", None)):
        cells = [cell(_confirms, sweeps, rate=share * rate, oracle=oracle) for share in (1.0, 0.7)]
        rows.append(((name,), [*cells, "7,000"]))
    heads = ("rule", "at exactly the capacity", "at 70% of it", "requests")
    return Table("loadgen", "M/M/1, p99 <= 10 service times: passes", heads, rows)


def _confirms(sweeps, *, rate, oracle, block=0):
    settings = {"draw": families.exponential, "limit": 10.0, "count": 7000, "seed": 41 + 1000 * (1 + block)}
    return halves.confirms(sweeps, rate=rate, oracle=oracle, **settings)


def _families(groups):
    """Return half, name and draw of every family."""
    return [(half, name, draw) for half in groups for name, draw in HALVES[half].items()]


def _printed(name, title, print_table):
    """Return a table whose rows a function of ``halves`` prints, a queue at a time."""

    def build(sweeps, groups):
        queues = {"tuned": families.TUNED_QUEUES, "apart": families.APART_QUEUES, "fresh": families.FRESH_QUEUES}
        rows = [
            Printed(_one_queue(print_table, sweeps, half, each)) for half in groups for each in queues[half].items()
        ]
        return Table(name, title, (), rows)

    return build


def _one_queue(print_table, sweeps, half, named):
    def run(say):
        halves.QUEUES = {half: dict([named])}
        print_table(say, sweeps)

    return run


TABLES = {
    "marks": lambda sweeps, _halves: marks.table(sweeps),
    "repeats": repeats_table,
    "peak": peak_table,
    "verdicts": verdict_table,
    "confirms": _printed("confirms", "Confirmed at exactly the capacity and below", halves.confirm_table),
    "searches": _printed("searches", "Searches of 20 s at a service time of 1 ms", halves.search_table),
    "peers": peer_table,
    "loadgen": loadgen_table,
    "many": many_table,
    "drift": drift_table,
    "percentiles": percentile_table,
    "peaks": loop_table,
}


def main(arguments=None):
    """Print the tables that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweeps", type=int, nargs="?", default=SWEEPS, help="simulated sweeps of a cell")
    parser.add_argument("tables", nargs="*", metavar="table", help=f"all without any: {', '.join(TABLES)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--fresh", action="store_true", help="with the families that no constant has seen")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.tables if name not in TABLES]
    if unknown:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    groups = ("tuned", "apart", "fresh") if options.fresh else ("tuned", "apart")
    tables = [TABLES[name](options.sweeps, groups) for name in options.tables or TABLES]
    save = harness.saver(options.json) if options.json else None
    harness.measure(tables, options.jobs, _write, save)


def _write(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

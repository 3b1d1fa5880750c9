"""The table of docs/evidence/statistics.md: coverage, A/A, power and drift, over simulated sweeps with fixed seeds.

make bench-stats                            # 2,000 sweeps a row: half an hour
python tests/statistics/study.py 100 peaks  # quicker and coarser, and one of the four tables
"""

import math
import sys
from dataclasses import dataclass

import before
import halves
import numpy as np
import processes

from sweep.analysis import drift, intervals
from sweep.report.ranking import answer
from sweep.storage.record import Record

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
class Coverage:
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

    @property
    def covered(self):
        return 1 - (self.below + self.above) / self.printed if self.printed else math.nan

    @property
    def wrong(self):
        """Share of all sweeps that printed an interval without the truth."""
        return (self.below + self.above) / self.sweeps


def independent(count, phi=0.0):
    truth = {name: processes.lognormal_percentile(p, cv=0.5) for name, p in MEDIAN_AND_TAIL.items()}
    name = f"AR(1), {phi:g}" if phi else "independent"
    return Process(name, count, lambda rng, sweeps: processes.lognormal(rng, sweeps, count, cv=0.5, phi=phi), truth)


def queue(load, count, cv=None):
    levels = list(MEDIAN_AND_TAIL.values())
    known = [processes.exponential_queue_percentile(p, load) for p in levels]
    truth = known if cv is None else processes.long_run_percentiles(levels, load=load, cv=cv)
    name = f"{'M/M/1' if cv is None else 'M/G/1'} at {load:.0%}"
    return Process(
        name,
        count,
        lambda rng, sweeps: processes.queue(rng, sweeps, count, load=load, cv=cv),
        dict(zip(MEDIAN_AND_TAIL, truth, strict=True)),
    )


def coverage(process, name, sweeps, seed=11, *, interval=None):
    """Share of simulated sweeps whose interval holds the truth."""
    p, truth = MEDIAN_AND_TAIL[name], process.truth[name]
    take = interval or (lambda row, level: intervals.percentile_interval([row], level))
    rng = np.random.default_rng([seed, process.count])
    printed = below = above = 0
    for start in range(0, sweeps, CHUNK):
        for row in process.draw(rng, min(CHUNK, sweeps - start)):
            found = take(row, p)
            printed += found is not None
            below += found is not None and found[1] < truth
            above += found is not None and found[0] > truth
    return Coverage(sweeps, printed, below, above)


def closed_loops(rng, sweeps, count, *, cv, phi=0.0, slower=1.0):
    """Completion times of closed loops, the start first: one row a sweep."""
    served = processes.lognormal(rng, sweeps, count, cv=cv, phi=phi) * slower
    return np.concatenate([np.zeros((sweeps, 1)), np.cumsum(served, axis=1)], axis=1)


def peak_of(passes):
    """The record's ``peak`` of these passes, as ``point_summary.closed_summary`` makes it."""
    each = [(len(times) - 1) / times[-1] for times in passes]
    ips = sum(each) / len(each)
    interval, batches = intervals.rate_interval(ips, passes)
    return {"ips": ips, "interval": interval, "batches": batches, "passes_ips": each, "verdict": "ok"}


def called(peaks):
    """Whether the product's own answer tells any of these variants from the best one."""
    records = [
        Record(
            key=str(number),
            sweep="s",
            status="ok",
            started_at="",
            peak=peak,
            variant={"label": str(number), "repeats": 1},
        )
        for number, peak in enumerate(peaks)
    ]
    return len(answer(records, None).tied) < len(records) - 1


def calls(sweeps, count, *, cv, phi=0.0, slower=1.0, variants=2, repeats=1, machine=0.0, seed=17):
    """Share of sweeps in which the last variant, ``slower`` than the rest, or any of equal ones is told from the best.

    ``machine`` is the standard deviation of a factor on the speed of everything in one round of passes.
    """
    rng = np.random.default_rng([seed, count, round(1000 * cv)])
    told = 0
    for start in range(0, sweeps, CHUNK):
        size = min(CHUNK, sweeps - start)
        drawn = []
        for _ in range(repeats):
            rounds = np.exp(machine * rng.standard_normal((size, 1)))
            factors = [1.0] * (variants - 1) + [slower]
            drawn.append([closed_loops(rng, size, count, cv=cv, phi=phi, slower=f) * rounds for f in factors])
        for row in range(size):
            told += called([peak_of([turn[variant][row] for turn in drawn]) for variant in range(variants)])
    return told / sweeps


def rate_coverage(sweeps, count, *, cv, phi=0.0, interval=None, seed=13):
    """Share of simulated closed loops whose interval holds the true throughput, 1."""
    rng = np.random.default_rng([seed, count, round(1000 * cv)])
    held = 0
    for start in range(0, sweeps, CHUNK):
        for times in closed_loops(rng, min(CHUNK, sweeps - start), count, cv=cv, phi=phi):
            low, high = interval(times[1:]) if interval else peak_of([times])["interval"]
            held += low <= 1 <= high
    return held / sweeps


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


def percentile_table(sweeps):
    say("| latencies | requests | percentile | before | now | printed | truth above | truth below |")
    say("|---|---|---|---|---|---|---|---|")
    for make in PROCESSES:
        process = make()
        for name in MEDIAN_AND_TAIL:
            old = coverage(process, name, max(sweeps // OLD_SHARE, 50), interval=before.percentile_interval)
            now = coverage(process, name, sweeps)
            held = f"{now.covered:.1%}" if now.printed else "-"
            say(
                f"| {process.name} | {process.count:,} | {name} | {old.covered:.0%} | {held} "
                f"| {now.printed / sweeps:.0%} | {now.below / sweeps:.1%} | {now.above / sweeps:.1%} |"
            )


def peak_table(sweeps):
    say("| service times, cv | correlation | requests | before | now | A/A | 3% slower | 3% slower, 3 passes |")
    say("|---|---|---|---|---|---|---|---|")
    for count in (662, 9000):
        for cv, phi in LOOPS:
            same = {"cv": cv, "phi": phi}
            old = rate_coverage(sweeps, count, interval=before.rate_interval, **same)
            now = rate_coverage(sweeps, count, **same)
            alike, slower = calls(sweeps, count, **same), calls(sweeps, count, slower=1.03, **same)
            thrice = calls(sweeps // 2, count, slower=1.03, repeats=3, **same)
            say(f"| {cv:g} | {phi:g} | {count:,} | {old:.1%} | {now:.1%} | {alike:.1%} | {slower:.1%} | {thrice:.1%} |")


def many_table(sweeps):
    say("| equal variants | passes | machine's own swings between rounds | any told from the best |")
    say("|---|---|---|---|")
    for variants, repeats, machine in (
        (2, 1, 0),
        (6, 1, 0),
        (12, 1, 0),
        (2, 3, 0),
        (2, 5, 0),
        (6, 5, 0),
        (2, 3, 0.1),
        (2, 5, 0.1),
    ):
        share = calls(sweeps, 1000, cv=0.5, variants=variants, repeats=repeats, machine=machine)
        say(f"| {variants} | {repeats} | {machine:.0%} | {share:.1%} |")
    for repeats in (3, 5):
        share = calls(sweeps, 1000, cv=0.1, slower=1.03, repeats=repeats, machine=0.1)
        say(f"| 2, one 3% slower (cv 0.1) | {repeats} | 10% | {share:.1%} |")


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def drift_calls(sweeps, *, cv, sentinels, slower=1.0, count=1000, seed=19):
    """Share of sweeps in which any stretch is called drifted; the last third of the sentinels is ``slower``."""
    rng = np.random.default_rng([seed, sentinels, round(1000 * cv)])
    odd = 0
    for _ in range(sweeps):
        factors = [slower if number >= math.ceil(2 * (sentinels - 1) / 3) else 1.0 for number in range(sentinels)]
        runs = [peak_of([closed_loops(rng, 1, count, cv=cv, slower=factor)[0]]) for factor in factors]
        levels = {
            number: drift.Level(key="k", start=0, ips=run["ips"], interval=(*run["interval"], run["batches"]))
            for number, run in enumerate(runs)
        }
        odd += any(drift.judge([number], levels)["verdict"] == "drifted" for number in range(sentinels - 1))
    return odd / sweeps


def drift_table(sweeps):
    say("| service times, cv | sentinels | steady machine | 3% slower | 5% slower | 10% slower | 20% slower |")
    say("|---|---|---|---|---|---|---|")
    for cv in (0.1, 0.5):
        for sentinels in (2, 6, 20):
            shares = [
                f"{drift_calls(sweeps, cv=cv, sentinels=sentinels, slower=slower):.1%}"
                for slower in (1.0, 1.03, 1.05, 1.1, 1.2)
            ]
            say(f"| {cv:g} | {sentinels} | {' | '.join(shares)} |")


def with_error(share, count):
    """A share with its standard error."""
    return share, math.sqrt(max(share * (1 - share), 1 / count) / count)


def table_of(logs):
    """Who is told from the best by the product's answer, on starts of these log throughputs, (variants, starts)."""
    peaks = []
    for row in np.exp(logs):
        value, batches = float(row.mean()), max(len(row), 10)
        half = 0.001  # inside a start, next to nothing
        interval = [value * math.exp(-half), value * math.exp(half)]
        peaks.append(
            {"ips": value, "interval": interval, "batches": batches, "passes_ips": row.tolist(), "verdict": "ok"}
        )
    records = [
        Record(key=str(number), sweep="s", status="ok", started_at="", peak=peak, variant={"label": str(number)})
        for number, peak in enumerate(peaks)
    ]
    found = answer(records, None)
    tied = {item.key for item in found.tied} | {found.best.key}
    return {number for number in range(len(peaks)) if str(number) not in tied}


def starts(rng, variants, count, cv, *, machine=0.02, slower=1.0):
    """Log throughputs of starts that differ by ``cv``, in rounds that differ by ``machine``; the first is slower."""
    logs = cv * rng.standard_normal((variants, count)) + machine * rng.standard_normal((1, count))
    logs[0] -= math.log(slower)
    return logs


def alike_called(sweeps, *, variants=2, count=1, cv=0.01, seed=23):
    """Share of tables of equal variants in which any is told from the best, and its standard error."""
    rng = np.random.default_rng([seed, variants, count, round(1e4 * cv)])
    return with_error(sum(bool(table_of(starts(rng, variants, count, cv))) for _ in range(sweeps)) / sweeps, sweeps)


def slower_called(sweeps, *, variants=2, count=5, cv=0.01, slower=1.03, seed=29):
    """Share of tables in which the one slower variant is told from the best, and its standard error."""
    rng = np.random.default_rng([seed, variants, count, round(1e4 * cv), round(1000 * slower)])
    called_slower = sum(0 in table_of(starts(rng, variants, count, cv, slower=slower)) for _ in range(sweeps))
    return with_error(called_slower / sweeps, sweeps)


def steady_drifted(sweeps, *, sentinels=20, cv=0.01, slower=1.0, seed=31):
    """Share of sweeps in which any sentinel interval is called drifted, and its standard error.

    Starts differ by ``cv``, and the last third is ``slower``.
    """
    rng = np.random.default_rng([seed, sentinels, round(1e4 * cv), round(1000 * slower)])
    odd = 0
    for _ in range(sweeps):
        rates = np.exp(cv * rng.standard_normal(sentinels))
        rates[math.ceil(2 * (sentinels - 1) / 3) :] /= slower
        levels = {
            number: drift.Level(key="k", start=0, ips=ips, interval=(ips * 0.999, ips * 1.001, 10))
            for number, ips in enumerate(rates.tolist())
        }
        odd += drift.judge(list(range(sentinels - 1)), levels)["verdict"] == "drifted"
    return with_error(odd / sweeps, sweeps)


def levels_table(sweeps):
    """The rows on levels of decision 44, each cell with its standard error."""
    say("| what | value | mark |")
    say("|---|---|---|")
    cells = [
        (f"A/A, one start, starts differ by {cv:.1%}", alike_called(sweeps, cv=cv), "<= 5%")
        for cv in (0.005, 0.01, 0.02)
    ]
    cells += [
        (f"A/A, {v} variants, {n} starts", alike_called(sweeps, variants=v, count=n), "<= 5%")
        for v in (2, 12)
        for n in (3, 5)
    ]
    cells += [
        (f"3% slower, five starts, {v} variants", slower_called(sweeps, variants=v), mark)
        for v, mark in ((2, ">= 90%"), (12, ">= 80%"))
    ]
    cells += [
        (
            "half as fast among 100, three starts",
            slower_called(max(sweeps // 10, 20), variants=100, count=3, slower=1.5),
            "100%",
        )
    ]
    cells += [
        (
            f"steady machine, {n} sentinels, starts differ by {cv:.0%}",
            steady_drifted(sweeps, sentinels=n, cv=cv),
            "<= 5%",
        )
        for n in (2, 6, 20)
        for cv in (0.01, 0.02)
    ]
    cells += [
        (
            f"{s:.0%} slower from the middle on, {n} sentinels, starts differ by 1%",
            steady_drifted(sweeps, sentinels=n, slower=1 + s),
            "",
        )
        for n in (6, 20)
        for s in (0.05, 0.1, 0.2)
    ]
    for what, (share, error), mark in cells:
        say(f"| {what} | {share:.1%} +- {error:.1%} | {mark} |")


def peers(sweeps):
    halves.peers_table(say, sweeps, lambda passes: called([peak_of(each) for each in passes]))


TABLES = {
    "percentiles": percentile_table,
    "peaks": peak_table,
    "many": many_table,
    "drift": drift_table,
    "levels": levels_table,
    "repeats": lambda sweeps: halves.repeats_table(say, sweeps),
    "peak": lambda sweeps: halves.peak_half_table(say, sweeps),
    "verdicts": lambda sweeps: halves.verdict_table(say, sweeps),
    "confirms": lambda sweeps: halves.confirm_table(say, sweeps),
    "searches": lambda sweeps: halves.search_table(say, sweeps),
    "peers": peers,
}

if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else SWEEPS
    for table in sys.argv[2:] or TABLES:
        TABLES[table](asked)
        say("")

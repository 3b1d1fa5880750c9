"""The rows that the study has to meet, in the words in which they were asked for, through the product's whole path."""

import functools

import capacity_oracles
import families
import halves
import rankings
import steadiness
from coverages import peak_oracle, printed_peak, printed_repeats, repeats_oracle, short_tail
from harness import Share, Table, cell

STARTS = (0.005, 0.01, 0.02)
QUEUES = {"M/D/1": (families.constant, 4.0), "M/M/1": (families.exponential, 10.0)}
CAPACITIES = {
    "M/D/1": (families.constant, 10.0),
    "M/M/1": (families.exponential, 10.0),
    "heavy tail": (families.pareto(2.2), 20.0),
    "sticky": (families.two_states(200, 0.1, 1.5), 6.0),
}


_capacity = functools.cache(halves.true_capacity)  # in the parent: a child process inherits it


def _unanswered(sweeps, *, draw, limit, block=0):
    """Return the share of searches of 20 s at 1 ms without an answer, and of answers above the truth."""
    truth = _capacity(draw, limit)[0] * 1e3
    # Blocks are of two searches, each with the seed of its number.
    results = [halves.search(draw, limit, 20.0, 2 * block + number) for number in range(sweeps)]
    answers = [result["capacity_ips"] for result in results if result["capacity_ips"]]
    return _Pair(Share(sweeps - len(answers), sweeps), Share(sum(each > truth for each in answers), sweeps))


def _best_search(sweeps, *, draw, limit, block=0):
    """Return the share without an answer of one run of 20 s at the rate that an oracle picks."""
    capacity, seconds = _capacity(draw, limit)[0], 20.0
    _, held, of = capacity_oracles.best_search(
        draw=draw, limit=limit, capacity=capacity, seconds=seconds, sweeps=sweeps
    )
    return Share(of - held, of)


class _Pair:
    """A share without an answer, and one above the truth."""

    def __init__(self, none, above):
        self.none, self.above = none, above

    def __add__(self, other):
        return _Pair(self.none + other.none, self.above + other.above)

    def __str__(self):
        return f"{self.none}, above the truth {self.above}"

    def figures(self):
        return {**self.none.figures(), "above": self.above.figures()}


class _Tail:
    """The share of short windows that are marked, and the median of what they print over the truth."""

    def __init__(self, marked, printed):
        self.marked, self.printed = marked, printed

    def __add__(self, other):
        return _Tail(self.marked + other.marked, self.printed + other.printed)

    def __str__(self):
        return f"marked {self.marked}; prints {self.printed} of the truth"

    def figures(self):
        return {**self.marked.figures(), "printed": self.printed.figures()}


def _confirmed(sweeps, *, draw, limit, count, oracle=False, block=0):
    rate, inflated = _capacity(draw, limit)
    same = {"draw": draw, "limit": limit, "rate": rate, "count": count, "seed": 41 + 1000 * (1 + block)}
    return halves.confirms(sweeps, **same, oracle=inflated) if oracle else halves.confirms(sweeps, **same)


def table(sweeps):
    """Return the table of all marks: what, today, what is wanted, and what an oracle would get."""
    parts = (_comparisons, _intervals, _steadiness, _capacities, _sentinel)
    rows = [row for part in parts for row in part(sweeps)]
    return Table("marks", "What was asked for", ("what", "today", "wanted", "oracle"), rows)


def _row(what, today, wanted, oracle="-"):
    return (what,), (today, wanted, oracle)


def _comparisons(sweeps):
    tables = max(sweeps // 10, 20)
    for cv in STARTS:
        yield _row(
            f"A/A, one start, starts differ by {cv:.1%}: called different",
            cell(rankings.alike, sweeps, cv=cv),
            "<= 5%",
            "5%",
        )
    for variants, wanted in ((2, ">= 90%"), (12, ">= 80%")):
        yield _row(
            f"3% slower, starts differ by 1%, 5 starts, {variants} variants: called",
            cell(rankings.slower_one, sweeps, variants=variants),
            wanted,
            cell(rankings.slower_oracle, sweeps, variants=variants),
        )
    hundred = {"variants": 100, "starts": 3, "slower": 1.5}
    yield _row(
        "half as fast among 100, 3 starts: called",
        cell(rankings.slower_one, tables, each=2, **hundred),
        "100%",
        cell(rankings.slower_oracle, tables, **hundred),
    )


def _intervals(sweeps):
    for passes in (3, 5):
        for cv in (0.01, 0.02):
            same = {"draw": families.lognormal(0.02), "passes": passes, "between": cv}
            yield _row(
                f"p99 of {passes} starts that differ by {cv:.0%}: covered",
                cell(printed_repeats, sweeps, name="p99", p=0.99, **same),
                "93 to 97%, null < 5%",
                cell(repeats_oracle, sweeps, p=0.99, **same),
            )
    for name, draw in (
        ("slow 10% x1.5, stays 20", families.two_states(20, 0.1, 1.5)),
        ("slow 20% x1.2, stays 30", families.two_states(30, 0.2, 1.2)),
        ("stall of 20 in 500", families.periodic_stalls(500, 20.0)),
        ("stall of 20 in 90", families.periodic_stalls(90, 20.0)),
    ):
        for count in (662, 2000):
            yield _row(
                f"peak, {name}, {count:,} requests: covered",
                cell(printed_peak, sweeps, draw=draw, count=count),
                "93 to 97%, or null",
                cell(peak_oracle, sweeps, draw=draw, passes=1, count=count),
            )
    yield _row("p99 of M/M/1 at 80%, 662 requests", cell(_tail, sweeps), "marked, null or an upper order statistic")


def _steadiness(sweeps):
    for name, draw in (("M/D/1", families.constant), ("M/M/1", families.exponential)):
        for load in (0.67, 0.8, 0.89):
            yield _row(
                f"{name} at {load:.0%}, five passes: unstable",
                cell(steadiness.called, sweeps, verdict="unstable", draw=draw, load=load, passes=5),
                "<= 5%",
                f"{steadiness.stability.RISK:.0%}",
            )
    for name, draw in (("cv 0.1", families.lognormal(0.1)), ("cv 0.5", families.erlang(0.5))):
        for load in (0.48, 0.67, 0.8):
            yield _row(
                f"10% step at mid-window, {name}, at {load:.0%}: unstable",
                cell(steadiness.called, sweeps, verdict="unstable", draw=draw, load=load, step=0.1),
                ">= 80% where the window can show it",
                steadiness.step_oracles(draw=draw, load=load),
            )
    for service_ms in (1.0, 5.0):
        yield _row(
            f"rung at 110%, constant service of {service_ms:g} ms: overloaded",
            cell(
                steadiness.called, sweeps, verdict="overloaded", draw=families.constant, load=1.1, service_ms=service_ms
            ),
            "overloaded",
            f"{steadiness.overload_oracle(draw=families.constant, service_ms=service_ms):.0%}",
        )


def _capacities(sweeps):
    tables = max(sweeps // 10, 20)
    for draw, limit in (*QUEUES.values(), *CAPACITIES.values()):
        _capacity(draw, limit)
    for name, (draw, limit) in QUEUES.items():
        yield _row(
            f"search of 20 s at 1 ms, {name}, p99 <= {limit:g} ms: no answer",
            cell(_unanswered, tables, each=2, draw=draw, limit=limit),
            "<= 15%, none above the truth",
            cell(_best_search, tables, each=tables, draw=draw, limit=limit),
        )
    for name, (draw, limit) in CAPACITIES.items():
        for count in (2000, 7000):
            yield _row(
                f"confirmed at exactly the capacity, {name}, {count:,} requests",
                cell(_confirmed, sweeps, draw=draw, limit=limit, count=count),
                "<= 2%",
                cell(_confirmed, sweeps, draw=draw, limit=limit, count=count, oracle=True),
            )


def _sentinel(sweeps):
    yield _row(
        "20 sentinels on a steady machine, starts differ by 1%: drifted",
        cell(rankings.drifted, sweeps),
        "<= 5%",
        "5%",
    )


def _tail(sweeps, block=0):
    return _Tail(*short_tail(sweeps, block=block))

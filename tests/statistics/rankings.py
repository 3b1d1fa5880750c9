"""Who the product calls slower than the best, from samples through records to its answer; and drift likewise."""

import math

import numpy as np
from coverages import closed_samples, stream
from harness import Share

from sweep.analysis import best_comparison, drift
from sweep.analysis.record_summary import summarise
from sweep.report.ranking import answer
from sweep.storage.record import Record

WITHIN_CV = 0.01  # of the requests inside one start
REQUESTS = 1000  # of one start


def told(variants):
    """Return the numbers of the variants that the product's answer tells from the best one.

    Args:
        variants: of each variant the closed loop of every start, as samples.
    """
    records = [
        summarise(
            Record(
                key=str(number),
                sweep="s",
                status="ok",
                started_at="",
                variant={"label": str(number), "repeats": len(starts)},
            ),
            starts,
            None,
        )
        for number, starts in enumerate(variants)
    ]
    result = answer(records, None)
    tied = {item.key for item in result.tied} | ({result.best.key} if result.best else set())
    return {number for number in range(len(records)) if str(number) not in tied}


def table(rng, variants, starts, cv, *, machine=0.02, slower=1.0):
    """Return the samples of a table of variants, the first of which is slower.

    Args:
        rng: random stream.
        variants: how many.
        starts: of each.
        cv: by which starts differ.
        machine: by which rounds of all variants differ.
        slower: factor on the service times of the first.
    """
    factors = cv * rng.standard_normal((variants, starts)) + machine * rng.standard_normal((1, starts))
    factors[0] += math.log(slower)
    served = np.exp(WITHIN_CV * rng.standard_normal((variants, starts, REQUESTS))) * np.exp(factors)[..., None]
    return [[closed_samples(row, number) for number, row in enumerate(rows)] for rows in served]


def alike(sweeps, *, variants=2, starts=1, cv=0.01, machine=0.02, seed=23, block=0):
    """Return the share of tables of equal variants in which any is told from the best."""
    rng = stream(seed, variants, starts, 1e4 * cv, block=block)
    return Share(sum(bool(told(table(rng, variants, starts, cv, machine=machine))) for _ in range(sweeps)), sweeps)


def slower_one(sweeps, *, variants=2, starts=5, cv=0.01, machine=0.02, slower=1.03, seed=29, block=0):
    """Return the share of tables in which the one slower variant is told from the best."""
    rng = stream(seed, variants, starts, 1e4 * cv, 1000 * slower, block=block)
    settings = {"machine": machine, "slower": slower}
    return Share(sum(0 in told(table(rng, variants, starts, cv, **settings)) for _ in range(sweeps)), sweeps)


def slower_oracle(sweeps, *, variants=2, starts=5, cv=0.01, slower=1.03, seed=29, block=0):
    """Return the same of a comparison with the best that knows by how much starts differ, at 5% for the table."""
    rng, count = stream(seed, variants, starts, block=block), 0
    least = best_comparison.range_quantile(variants, math.inf, 0.05) * cv / math.sqrt(starts)
    for _ in range(sweeps):
        means = cv / math.sqrt(starts) * rng.standard_normal(variants)
        means[0] -= math.log(slower)
        count += means.max() - means[0] > least
    return Share(count, sweeps)


def drifted(sweeps, *, sentinels=20, cv=0.01, slower=1.0, seed=31, block=0):
    """Return the share of sweeps in which any sentinel interval is called drifted; the last third is ``slower``."""
    rng, count = stream(seed, sentinels, 1e4 * cv, 1000 * slower, block=block), 0
    for _ in range(sweeps):
        factors = np.exp(cv * rng.standard_normal(sentinels))
        factors[math.ceil(2 * (sentinels - 1) / 3) :] *= slower
        served = np.exp(WITHIN_CV * rng.standard_normal((sentinels, REQUESTS))) * factors[:, None]
        levels = {number: drift.level_of([closed_samples(row)], "k") for number, row in enumerate(served)}
        count += drift.judge(list(range(sentinels - 1)), levels)["verdict"] == "drifted"
    return Share(count, sweeps)

"""Hold confirmed capacities against queueing theory, on the virtual clock: the table of docs/evidence/capacity.md.

    PYTHONPATH=.:tests/support .venv/bin/python tests/statistics/theory.py --jobs 16

Each line is some seeds of one search, 0 to n - 1; a million requests take ten seconds of CPU.
"""

import argparse
import dataclasses
import multiprocessing
import sys

import numpy as np
import queues

from sweep.analysis import percentiles


def mm4_within(rate, limit_ms):
    """P(time in M/M/4 <= limit) at ``rate`` arrivals a service time."""
    return queues.mmc_within(4, rate, limit_ms)


def mm1_within(rate, limit_ms):
    """P(time in M/M/1 <= limit) at ``rate`` arrivals a service time."""
    return queues.mmc_within(1, rate, limit_ms)


ROWS = (  # server, its theory, streams, distribution, percentile, limit in ms, seconds of the search, searches
    ("M/D/1", queues.md1_within, 1, "constant", "p99", 4.0, 200.0, 20),
    ("M/D/1", queues.md1_within, 1, "constant", "p99", 4.0, 2000.0, 10),
    ("M/D/1", queues.md1_within, 1, "constant", "p99", 10.0, 10.0, 24),
    ("M/D/1", queues.md1_within, 1, "constant", "p99", 10.0, 200.0, 20),
    ("M/D/1", queues.md1_within, 1, "constant", "p99", 10.0, 2000.0, 10),
    ("M/M/1", mm1_within, 1, "exponential", "p99", 10.0, 200.0, 20),
    ("M/M/1", mm1_within, 1, "exponential", "p99", 10.0, 2000.0, 10),
    ("M/M/4", mm4_within, 4, "exponential", "p99", 8.0, 50.0, 20),
    ("M/M/4", mm4_within, 4, "exponential", "p99", 8.0, 500.0, 8),
)


def ratio(task):
    """Return the confirmed capacity of one search over the true one, NaN where none was confirmed."""
    row, seed = task
    _, _, streams, distribution, percentile, limit_ms, seconds, _ = ROWS[row]
    load = dataclasses.replace(queues.LOAD, seed=seed)
    server = {"streams": streams, "distribution": distribution, "seed": seed}
    slo, _, _ = queues.searched(limit_ms, seconds, percentile, load=load, **server)
    return (slo["capacity_ips"] or np.nan) / truth(row)


def truth(row):
    """Return the true capacity of a row, requests/s."""
    _, within, streams, _, percentile, limit_ms, _, _ = ROWS[row]
    return queues.highest(lambda rate: within(rate, limit_ms), streams, percentiles.PERCENTILES[percentile])


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)), help="lines of the table, from 0")
    options = parser.parse_args(arguments)
    tasks = [(row, seed) for row in options.rows for seed in range(ROWS[row][-1])]
    tasks.sort(key=lambda task: -truth(task[0]) * ROWS[task[0]][-2])  # the longest first
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        ratios = dict(zip(tasks, pool.map(ratio, tasks, chunksize=1), strict=True))
    write = sys.stdout.write
    write("| server | SLO | requests in a search | confirmed | median | lowest | highest | above 1 |\n")
    write("|---|---|---|---|---|---|---|---|\n")
    for row in options.rows:
        name, _, _, _, percentile, limit_ms, seconds, count = ROWS[row]
        values = np.array([ratios[row, seed] for seed in range(count)])
        held = values[~np.isnan(values)]
        middle = f"{np.median(held):.3f} | {held.min():.3f} | {held.max():.3f}" if len(held) else "- | - | -"
        write(
            f"| {name} | {percentile} <= {limit_ms:g} ms | {round(truth(row) * seconds, -2):,.0f} "
            f"| {len(held)} of {count} | {middle} | {np.count_nonzero(held > 1)} |\n"
        )


if __name__ == "__main__":
    main()

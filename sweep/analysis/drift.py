"""Decide whether the machine stayed the same while a variant was measured, from the sentinel's runs. Pure.

A sentinel is a short closed loop of always the same variant, run before the first pass, every few passes, and after
the last one. A sentinel interval lies between two of its runs and has the number of the first; records and samples call
it ``stretch``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import intervals, point_summary
from sweep.errors import RecordError
from sweep.spec import DriftVerdict
from sweep.storage import samples_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sweep.storage import Drift, PointSamples, Store

FLOOR = 0.02  # a sentinel that moved by less is no drift, however steady the others (docs/decisions/0015)
_PRIOR_CV = 0.015  # between starts, where the runs are too few to show it (docs/decisions/0044)
_PRIOR_FREEDOM = 4.0  # runs' worth of it
_FREEDOM_OF_A_STEP = 0.5  # degrees of freedom that a difference between neighbours adds: their median wastes the rest
_RISK = 0.05  # of calling any run of a steady machine drifted
_MEDIAN_STEP = 0.6745 * math.sqrt(2)  # of |difference of two runs|, in standard deviations of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Hold the throughput of one sentinel run.

    Attributes:
        key: key of the sentinel's variant, with -1, -2 and so on once force=true repeated it; levels of different keys
            are not compared.
        start: which start of the sweep ran it, from 0.
        ips: its throughput, samples/s.
        interval: (low, high, batches) of that, None if it has none.
    """

    key: str
    start: int
    ips: float
    interval: tuple[float, float, int] | None


def levels(store: Store) -> dict[int, Level]:
    """Return every sentinel run of a sweep's folder that can be read, by number."""
    runs = {number: level(path) for number, path in store.sentinel_runs()}
    return {number: run for number, run in runs.items() if run is not None}


def level(path: Path) -> Level | None:
    """Return the throughput of the sentinel run at ``path``; None if it is damaged or nothing was completed in it."""
    try:
        return level_of(samples_file.load(path), path.stem.partition("-")[2])
    except RecordError:
        return None


def level_of(run: Sequence[PointSamples], key: str) -> Level | None:
    """Return the throughput of one sentinel run; None where nothing was completed in it."""
    closed = [point for point in run if point.kind == "closed"]
    rate = point_summary.closed_rate(closed)
    if rate["ips"] is None:
        return None
    interval = rate["interval"]
    bounds = (interval[0], interval[1], rate["batches"]) if interval else None
    return Level(key=key, start=closed[0].repeat, ips=rate["ips"], interval=bounds)


def judge(sentinel_intervals: Sequence[int | None], runs: Mapping[int, Level]) -> Drift | None:
    """Return the record's ``drift``.

    Args:
        sentinel_intervals: sentinel interval of each pass of the variant; None where no sentinel ran.
        runs: ``levels`` of the sweep.

    Returns:
        ``drifted`` where an end of an interval differs from the sweep's median sentinel by over 2% and, at 5% for the
        whole sweep, by more than starts of the sentinel differ from each other; ``unknown`` while an end is missing;
        else ``steady``. ``before`` and ``after`` are the ends of the interval that moved most. None where no sentinel
        ran.
    """
    numbers = sorted({number for number in sentinel_intervals if number is not None and number in runs})
    if not numbers:
        return None
    ends = {number: _ends(number, runs) for number in numbers}
    usual = _usual(runs[numbers[0]].key, runs)
    worst = max(numbers, key=lambda number: max(_moved(level, usual) for level in ends[number] if level))
    before, after = ends[worst]
    reason = _reason([level for pair in ends.values() for level in pair if level], usual, runs)
    complete = None not in sentinel_intervals and all(after for _, after in ends.values())
    return {
        "verdict": _verdict(reason, complete=complete),
        "reason": reason,
        "sentinel_key": usual.key,
        "stretches": list(sentinel_intervals),
        "before": before.ips,
        "after": after.ips if after else None,
    }


def _verdict(reason: str | None, *, complete: bool) -> DriftVerdict:
    if reason:
        return DriftVerdict.DRIFTED
    return DriftVerdict.STEADY if complete else DriftVerdict.UNKNOWN


def _ends(number: int, runs: Mapping[int, Level]) -> tuple[Level, Level | None]:
    """Return the sentinel before an interval, and the one after it if the same start of the sweep ran it."""
    before, after = runs[number], runs.get(number + 1)
    same_start = after is not None and (after.key, after.start) == (before.key, before.start)
    return before, after if same_start else None


def _usual(key: str, runs: Mapping[int, Level]) -> Level:
    """Return the median sentinel, which shows the state in which most of the sweep was measured."""
    ordered = sorted((level for level in runs.values() if level.key == key), key=lambda level: level.ips)
    return ordered[(len(ordered) - 1) // 2]


def _moved(level: Level, usual: Level) -> float:
    return abs(level.ips / usual.ips - 1)


def _reason(ends: Sequence[Level], usual: Level, runs: Mapping[int, Level]) -> str | None:
    least = _least_move([runs[number] for number in sorted(runs) if runs[number].key == usual.key])
    deviating = [level for level in ends if _moved(level, usual) > FLOOR and _log_moved(level, usual) > least(level)]
    if not deviating:
        return None
    worst = max(deviating, key=lambda level: _moved(level, usual))
    return f"the sentinel ran {worst.ips / usual.ips - 1:+.1%} off the sweep's median of {usual.ips:,.0f} samples/s"


def _log_moved(level: Level, usual: Level) -> float:
    return abs(math.log(level.ips / usual.ips))


def _least_move(runs: Sequence[Level]) -> Callable[[Level], float]:
    """Return the least log difference from the median that is no chance, for a run of the sentinel.

    What starts differ by is taken from neighbours, since a drift parts few of them, and from an assumed figure where
    they are few. Every run but the median is a look, and Bonferroni's correction counts them.

    Args:
        runs: runs of the same sentinel, oldest first.
    """
    steps = np.abs(np.diff(np.log([level.ips for level in runs])))
    errors = [intervals.log_error(*level.interval) for level in runs if level.interval is not None]
    start, freedom = _PRIOR_CV**2, _PRIOR_FREEDOM
    if len(steps) > 1:
        inside = float(np.mean(np.square(errors))) if errors else 0.0
        measured = max((float(np.median(steps)) / _MEDIAN_STEP) ** 2 - inside, 0.0)
        freedom += _FREEDOM_OF_A_STEP * len(steps)
        start = (_PRIOR_FREEDOM * start + (freedom - _PRIOR_FREEDOM) * measured) / freedom
    risk = _RISK / max(len(steps), 1)

    def least(level: Level) -> float:
        if level.interval is None:
            return math.inf
        inside = intervals.log_error(*level.interval) ** 2
        joint = (start + inside) ** 2 / (start**2 / freedom + inside**2 / (level.interval[2] - 1))
        factor = float(scipy.special.stdtrit(joint, 1 - risk / 2))
        return factor * math.sqrt((start + inside) * (1 + 2 / len(runs)))

    return least

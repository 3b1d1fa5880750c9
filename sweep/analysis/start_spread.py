"""Measure how much starts of one engine differ from each other, where the variant itself has a single start."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from sweep.analysis import drift
from sweep.backends import registry
from sweep.errors import RecordError
from sweep.storage import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sweep.storage import CpuLoad, Facts, Record

_MACHINE = ("gpu", "driver", "cuda", "tensorrt", "onnxruntime", "simulated", "cpu", "host")  # facts of equal starts
UNKNOWN_CV = 0.025  # of starts where nothing measured it: most engines of an H100 and an H200 differed by less
CPU_CV = 0.1  # on a CPU: 12 variants on 4 of 16 cores of a virtual machine differed by 6 to 21%, 5 starts each
CROWDED_CV = 0.2  # on a CPU that other programs fill: 4 variants on two cores differed by 14 to 27%, 8 starts each
_LEAST_OTHER, _LEAST_USE = 0.1, 0.8  # shares of the cores: used by others, and used at all, where it is crowded
LEAST_FREEDOM = 3  # below it the figure is so uncertain that it counts as unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSpread:
    """Hold what starts of one engine differ by.

    Attributes:
        cv: standard deviation of the log throughput of a start.
        freedom: degrees of freedom behind it.
        source: where it was measured, in the words of the first line: ``the sentinel``, ``earlier records``.
    """

    cv: float
    freedom: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadHistory:
    """Hold what is known of the starts of a sweep beside its records.

    Attributes:
        common: from all of them together, for a variant without a history of its own; None where too little is known.
        own: by the key of the record.
    """

    common: StartSpread | None
    own: Mapping[str, StartSpread]

    def of(self, key: str) -> StartSpread | None:
        """Return the spread of the variant ``key``; that of all of them where it has none of its own."""
        return self.own.get(key, self.common)


def pooled(groups: Iterable[Sequence[float]], source: str) -> StartSpread | None:
    """Pool the spread of several groups of starts.

    Args:
        groups: throughputs of starts that should be equal, a sequence a group, in any unit.
        source: where they come from.

    Returns:
        The spread; None below ``LEAST_FREEDOM`` degrees of freedom.
    """
    squares, freedom = 0.0, 0
    for starts in groups:
        if len(starts) > 1:
            logs = np.log(np.asarray(starts, dtype=np.float64))
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(starts) - 1
    if freedom < LEAST_FREEDOM:
        return None
    return StartSpread(cv=math.sqrt(squares / freedom), freedom=freedom, source=source)


class Levels(TypedDict):
    """Give the spread of one variant's starts and engines, as it stands in the record's peak.

    Attributes:
        start_cv: standard deviation of the log throughput between starts of one engine; None if none started twice.
        build_cv: the same between engines; None where one engine served every pass.
    """

    start_cv: float | None
    build_cv: float | None


def levels_of(passes_ips: Sequence[float | None], builds: int | None) -> Levels | None:
    """Divide the spread of a variant's passes between its starts and its engines (Kalibera and Jones 2013).

    Args:
        passes_ips: throughput of each pass, in any unit; pass n ran engine n modulo `builds`.
        builds: engines that were built afresh; None where one engine served every pass.

    Returns:
        The spread; None for a single pass, or where the throughput of a pass is unknown.
    """
    known = [ips for ips in passes_ips if ips]
    if len(known) < max(2, len(passes_ips)):
        return None
    logs = np.log(known)
    if builds is None or builds == 1:
        return {"start_cv": float(logs.std(ddof=1)), "build_cv": None}
    engines = [logs[number::builds] for number in range(builds)]
    starts = min(map(len, engines))
    means = np.array([engine.mean() for engine in engines])
    if starts == 1:
        return {"start_cv": None, "build_cv": float(means.std(ddof=1))}
    within = float(np.mean([engine.var(ddof=1) for engine in engines]))
    between = max(float(means.var(ddof=1)) - within / starts, 0.0)
    return {"start_cv": math.sqrt(within), "build_cv": math.sqrt(between)}


def is_crowded(record: Record) -> bool:
    """Return whether other programs kept the cores busy while the peak of a record was measured."""
    load = _cpu_load(record)
    return load is not None and load["other"] >= _LEAST_OTHER and load["own"] + load["other"] >= _LEAST_USE


def _cpu_load(record: Record) -> CpuLoad | None:
    """Return the use of the cores in the closed loop, else at the first rate that has it; None where none has."""
    parts = ([] if record.peak is None else [record.peak.get("cpu_load")]) + [
        point.get("cpu_load") for point in record.points
    ]
    return next((load for load in parts if load is not None), None)


def assumed_cv(record: Record) -> float:
    """Return what starts of a variant are assumed to differ by where nothing measured it, as a standard deviation."""
    load = _cpu_load(record)
    backend = str(record.variant.get("backend"))
    if load is None or backend not in registry.names() or registry.get(backend).on_gpu:
        return UNKNOWN_CV  # a GPU, a simulated clock, or a record of a version that did not measure the cores
    return CROWDED_CV if is_crowded(record) else CPU_CV


def measured(store: Store, records: Iterable[Record], exclude: Collection[Path] = ()) -> SpreadHistory:
    """Measure how starts differ, from the sentinel of a sweep and from other sweeps that measured the same variants.

    Args:
        store: folder of the sweep; the folders beside it are the other sweeps.
        records: records of the sweep. An earlier record counts where GPU, libraries and host are those of this one.
        exclude: folders of sweeps that do not count, as those that this one is compared with.
    """
    own: dict[str, StartSpread] = {}
    groups: list[list[float]] = []
    left_out = {path.resolve() for path in (store.root, *exclude)}
    beside = sorted(
        path for path in store.root.parent.glob("*") if path.resolve() not in left_out and (path / "records").is_dir()
    )
    for record in records:
        starts = [*_starts(record), *(ips for earlier in _earlier(beside, record) for ips in _starts(earlier))]
        spread = pooled([starts], "its earlier records")
        if spread is not None:
            own[record.key] = spread
        groups.append(starts)
    levels: defaultdict[str, list[float]] = defaultdict(list)
    for level in drift.levels(store).values():
        levels[level.key].append(level.ips)
    return SpreadHistory(
        common=pooled(levels.values(), "the sentinel") or pooled(groups, "the records of these engines"), own=own
    )


def _earlier(folders: Iterable[Path], record: Record) -> Iterator[Record]:
    """Yield what other sweeps on the same machine measured of the variant of `record`."""
    for folder in folders:
        store = Store(folder)
        if store.record_path(record.key).exists():
            try:
                earlier = store.read(record.key)
            except RecordError:
                continue
            if _machine(earlier.facts) == _machine(record.facts):
                yield earlier


def _machine(facts: Facts) -> list[object]:
    return [facts.get(name) for name in _MACHINE]


def _starts(record: Record) -> list[float]:
    """Return the throughput of each start of a record, samples/s."""
    if record.status != "ok" or record.peak is None or not record.peak["ips"]:
        return []
    passes = record.peak.get("passes_ips") or [record.peak["ips"]]
    return [ips for ips in passes if ips]

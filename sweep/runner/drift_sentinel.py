"""Run the sentinel of a sweep between its passes, and judge the records so far by its runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.analysis import drift
from sweep.errors import RecordError
from sweep.storage import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sweep.runner.plan import Work
    from sweep.runner.worker_process import Outcome
    from sweep.spec import Settings
    from sweep.storage import Record

_RUNS = 100_000  # of the sentinel, that one device runner may number
_SHORT = 8  # characters of a UUID in a file's name


class Sentinel:
    """Run the sentinel between passes.

    Args:
        work: what runs (``plan.sentinel_of``); None runs none.
        settings: settings of the sweep: how often the sentinel runs, and where its samples go.
        measure: called as measure(work, start, path); the samples are at `path` if the outcome is ok.
        place: number of the device runner and its device, where there are several: runs on one device are compared with
            no other's.

    Attributes:
        work: what runs; None once it failed.
        interval: number of the last run, which begins the interval that passes are measured in; None where no sentinel
            runs.
    """

    def __init__(
        self,
        work: Work | None,
        settings: Settings,
        measure: Callable[[Work, int, Path], Outcome],
        place: tuple[int, str] | None = None,
    ) -> None:
        self._every = settings.sentinel_every
        self.work = work if self._every else None
        self._store = Store(settings.root)
        self._measure = measure
        self._levels = drift.levels(self._store)
        earlier = [path.stem.split("-") for path in self._store.sentinel_paths()]
        self._next = max((int(number) for number, *_ in earlier), default=-1) + 1
        self._device = ""
        if place is not None:  # an interval ends at the next number, so each device runner counts by itself
            self._next += place[0] * _RUNS
            self._device = "." + place[1].removeprefix("GPU-").replace("-", "")[:_SHORT]
        repeats = [int(suffixes[0]) for _, _, *suffixes in earlier if suffixes]
        repeated = max(repeats, default=0) + bool(earlier and settings.force)
        self._repeated = (
            f"-{repeated}" if repeated else ""
        )  # what is measured again is not compared with what it replaces
        self._start = max((level.start for level in self._levels.values()), default=-1) + 1
        self._passes = 0
        self.interval: int | None = None

    @property
    def on(self) -> bool:
        """Return whether a sentinel runs."""
        return self.work is not None

    def due(self) -> bool:
        """Return whether it is to run before the next pass, which is counted."""
        self._passes += 1
        return self.on and (self._passes - 1) % self._every == 0

    def run(self) -> str | None:
        """Run it, if there is one, and return why it failed, which ends it for this sweep; None if it did not."""
        if self.work is None:
            return None
        path = self._store.sentinel_path(self._next, self.work.key + self._device + self._repeated)
        outcome = self._measure(self.work, self._start, path)
        level = drift.level(path) if outcome.status == "ok" else None
        if level is None:
            self.work = self.interval = None
            reason = outcome.error["message"] if outcome.error else "it completed nothing"
            return f"the sentinel ended as {outcome.status}: {reason}; drift is not watched from here on"
        self._levels[self._next] = level
        self.interval = self._next
        self._next += 1
        return None

    def judge(self, record: Record, intervals: Iterable[int | None]) -> Record:
        """Return the record judged by the runs so far around the intervals of its passes."""
        return _judged(record, intervals, self._levels)

    def settle(self, keys: Iterable[str]) -> Iterator[Record]:
        """Judge the drift of records on disk again, rewrite those that this changes, and yield all that can be read."""
        return settle(self._store, keys, self._levels)


def settle(store: Store, keys: Iterable[str], levels: Mapping[int, drift.Level]) -> Iterator[Record]:
    """Judge the drift of records on disk again, rewrite those that this changes, and yield all that can be read.

    Args:
        store: folder of the sweep.
        keys: keys of the records.
        levels: throughput of the sentinel's runs, by number.
    """
    for key in keys:
        try:
            record = store.read(key)
        except RecordError:
            continue
        if record.drift is not None:
            judged = _judged(record, record.drift["stretches"], levels)
            if judged != record:
                store.write(judged)
            record = judged
        yield record


def _judged(record: Record, intervals: Iterable[int | None], levels: Mapping[int, drift.Level]) -> Record:
    return dataclasses.replace(record, drift=drift.judge(list(intervals), levels))

"""The sentinel of a running sweep: when it runs, where its samples go, and what that says of the records so far."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.analysis import drift
from sweep.errors import RecordError
from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sweep.runner.plan import Work
    from sweep.runner.worker_process import Outcome
    from sweep.spec.settings import Settings
    from sweep.storage.record import Record

_LANE = 100_000  # runs of the sentinel that one lane may number
_SHORT = 8  # characters of a UUID in a file's name


class Watch:
    """Runs the sentinel between passes.

    Args:
        work: what runs (``plan.sentinel_of``); None runs none.
        settings: how often, and where samples go.
        ask: called as ask(work, start, path) to measure it; the samples are at ``path`` if the outcome is ok.
        place: number of the lane and its device, where there are several: runs on one are held against no other's.

    Attributes:
        work: what runs; None once it failed.
        stretch: number of the last run; None where no sentinel runs.
    """

    def __init__(
        self,
        work: Work | None,
        settings: Settings,
        ask: Callable[[Work, int, Path], Outcome],
        place: tuple[int, str] | None = None,
    ) -> None:
        self._every = settings.sentinel_every
        self.work = work if self._every else None
        self._store = Store(settings.root)
        self._ask = ask
        self._levels = drift.levels(self._store)
        known = [path.stem.split("-") for path in self._store.sentinel_paths()]
        self._next = max((int(number) for number, *_ in known), default=-1) + 1
        self._device = ""
        if place is not None:  # a stretch ends at the next number, so each lane counts by itself
            self._next += place[0] * _LANE
            self._device = "." + place[1].removeprefix("GPU-").replace("-", "")[:_SHORT]
        anew = max((int(rest[0]) for _, _, *rest in known if rest), default=0) + bool(known and settings.force)
        self._anew = f"-{anew}" if anew else ""  # what is measured anew is not held against what it replaces
        self._start = max((level.start for level in self._levels.values()), default=-1) + 1
        self._passes = 0
        self.stretch: int | None = None

    @property
    def on(self) -> bool:
        """Whether a sentinel runs."""
        return self.work is not None

    def due(self) -> bool:
        """Whether it is to run before the next pass, which is counted."""
        self._passes += 1
        return self.on and (self._passes - 1) % self._every == 0

    def run(self) -> str | None:
        """Run it, if there is one; why it failed, which ends it for this sweep, or None."""
        if self.work is None:
            return None
        path = self._store.sentinel_path(self._next, self.work.key + self._device + self._anew)
        outcome = self._ask(self.work, self._start, path)
        level = drift.level(path) if outcome.status == "ok" else None
        if level is None:
            self.work = self.stretch = None
            said = outcome.error["message"] if outcome.error else "it completed nothing"
            return f"the sentinel ended as {outcome.status}: {said}; drift is not watched from here on"
        self._levels[self._next] = level
        self.stretch = self._next
        self._next += 1
        return None

    def judged(self, record: Record, stretches: Iterable[int | None]) -> Record:
        """The record with what is known by now of drift in the stretches of its passes."""
        return _judged(record, stretches, self._levels)

    def settled(self, keys: Iterable[str]) -> Iterator[Record]:
        """Rejudge records on disk, and write those that this changes; every one that was read."""
        return settled(self._store, keys, self._levels)


def settled(store: Store, keys: Iterable[str], known: Mapping[int, drift.Level]) -> Iterator[Record]:
    """Rejudge records on disk by these runs of the sentinel, write those that this changes; every one that was read."""
    for key in keys:
        try:
            found = store.read(key)
        except RecordError:
            continue
        if found.drift is not None:
            judged = _judged(found, found.drift["stretches"], known)
            if judged != found:
                store.write(judged)
            found = judged
        yield found


def _judged(record: Record, stretches: Iterable[int | None], known: Mapping[int, drift.Level]) -> Record:
    return dataclasses.replace(record, drift=drift.judged(list(stretches), known))

"""The sentinel of a running sweep: when it runs, where its samples go, and what that says of the records so far."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep import drift
from sweep.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sweep.folder import Settings
    from sweep.plan import Plan, Work
    from sweep.pool import Outcome
    from sweep.record import Record


class Watch:
    """Runs the sentinel between passes.

    Args:
        plan: its ``sentinel`` is what runs.
        settings: how often, and where samples go.
        ask: called as ask(work, start, path) to measure it; the samples are at ``path`` if the outcome is ok.

    Attributes:
        stretch: number of the last run; None where no sentinel runs.
    """

    def __init__(self, plan: Plan, settings: Settings, ask: Callable[[Work, int, Path], Outcome]) -> None:
        self._every = settings.sentinel_every
        self._work = plan.sentinel if self._every else None
        self._store = settings.store
        self._ask = ask
        self._levels = drift.levels(self._store)
        known = [path.stem.split("-") for path in self._store.sentinel_paths()]
        self._next = max((int(number) for number, *_ in known), default=-1) + 1
        anew = max((int(rest[0]) for _, _, *rest in known if rest), default=0) + bool(known and settings.force)
        self._anew = f"-{anew}" if anew else ""  # what is measured anew is not held against what it replaces
        self._start = max((level.start for level in self._levels.values()), default=-1) + 1
        self._passes = 0
        self.stretch: int | None = None

    @property
    def on(self) -> bool:
        """Whether a sentinel runs."""
        return self._work is not None

    def due(self) -> bool:
        """Whether it is to run before the next pass, which is counted."""
        self._passes += 1
        return self.on and (self._passes - 1) % self._every == 0

    def run(self) -> str | None:
        """Run it, if there is one; why it failed, which ends it for this sweep, or None."""
        if self._work is None:
            return None
        path = self._store.sentinel_path(self._next, self._work.key + self._anew)
        outcome = self._ask(self._work, self._start, path)
        level = drift.level(path) if outcome.status == "ok" else None
        if level is None:
            self._work = self.stretch = None
            said = outcome.error["message"] if outcome.error else "it completed nothing"
            return f"the sentinel ended as {outcome.status}: {said}; drift is not watched from here on"
        self._levels[self._next] = level
        self.stretch = self._next
        self._next += 1
        return None

    def judged(self, record: Record, stretches: Iterable[int | None]) -> Record:
        """The record with what is known by now of drift in the stretches of its passes."""
        return dataclasses.replace(record, drift=drift.judged(list(stretches), self._levels))

    def settled(self, keys: Iterable[str]) -> Iterator[Record]:
        """Rejudge records on disk, and write those that this changes; every one that was read."""
        for key in keys:
            try:
                found = self._store.read(key)
            except RecordError:
                continue
            if found.drift is not None:
                judged = self.judged(found, found.drift["stretches"])
                if judged != found:
                    self._store.write(judged)
                found = judged
            yield found

"""Share the groups that are left, and what holds for all of them, among device runners."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sweep.runner.oom_pruning import Pruning
    from sweep.runner.plan import Work
    from sweep.spec import Settings
    from sweep.storage import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Hold the work that shares an engine, and so stays on one device.

    Attributes:
        works: to be measured, in the plan's order.
        searches: measured before; their capacity is to be searched.
        profiles: measured before; the layers of their engine are to be profiled.
    """

    works: tuple[Work, ...] = ()
    searches: tuple[Work, ...] = ()
    profiles: tuple[Work, ...] = ()

    @property
    def first(self) -> Work:
        """Return any work of it: they share a backend."""
        return (*self.searches, *self.works, *self.profiles)[0]


class Groups(Protocol):
    """Give groups to any device runner that takes them."""

    def peek(self) -> Group | None:
        """Return the next one; None when there is none, or the sweep is to end."""
        ...

    def take(self) -> Group | None:
        """Remove and return the next one; None when there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Hold what all device runners share.

    Attributes:
        settings: settings of the sweep.
        searched: keys of the variants whose capacity is searched once they are measured.
        profiled: keys of the variants whose layers are profiled once they are measured.
        sentinel: what every device runner runs now and then to see drift; None for nothing.
        pruning: what ran out of memory so far.
        finished: called with each record once it is on disk and no verdict of it is open.
        halted: whether another device runner failed.
    """

    settings: Settings
    searched: frozenset[str]
    sentinel: Work | None
    pruning: Pruning
    finished: Callable[[Record], None]
    halted: Callable[[], bool] = lambda: False
    profiled: frozenset[str] = frozenset()


class Queue:
    """Hold the groups that no device runner has taken yet.

    Args:
        groups: in the order in which they are taken.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = deque(groups)
        self._lock = threading.Lock()
        self._halted = False

    def peek(self) -> Group | None:
        """Return the next one; None when there is none."""
        with self._lock:
            return self._groups[0] if self._groups else None

    def take(self) -> Group | None:
        """Remove and return the next one; None when there is none."""
        with self._lock:
            return self._groups.popleft() if self._groups else None

    def halt(self) -> None:
        """Tell that a device runner failed: the others finish the variant that they measure."""
        self._halted = True

    def halted(self) -> bool:
        """Return whether a device runner failed."""
        return self._halted

    def __len__(self) -> int:
        with self._lock:
            return len(self._groups)


def grouped(todo: Sequence[Work], searches: Sequence[Work] = (), profiles: Sequence[Work] = ()) -> list[Group]:
    """Group the work by the engine that it shares, in the plan's order.

    The search or profile of a variant that is measured anyway comes with its measurement.
    """
    measured = {work.key for work in todo}
    works: dict[str, list[Work]] = {}
    searched: dict[str, list[Work]] = {}
    profiled: dict[str, list[Work]] = {}
    for work in todo:
        works.setdefault(work.engine_key, []).append(work)
    for work in searches:
        if work.key not in measured:
            searched.setdefault(work.engine_key, []).append(work)
    for work in profiles:
        if work.key not in measured:
            profiled.setdefault(work.engine_key, []).append(work)
    return [
        Group(
            works=tuple(works.get(key, ())),
            searches=tuple(searched.get(key, ())),
            profiles=tuple(profiled.get(key, ())),
        )
        for key in dict.fromkeys([*searched, *works, *profiled])
    ]

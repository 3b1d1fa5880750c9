"""What lanes share: the groups that are left, and what holds for all of them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.runner.plan import Work

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.runner.oom_pruning import Pruning
    from sweep.runner.plan import Work
    from sweep.spec.settings import Settings
    from sweep.storage.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Work that shares an engine, and so stays in one lane.

    Attributes:
        works: to be measured, in the plan's order.
        searches: measured before; their capacity is to be searched.
    """

    works: tuple[Work, ...] = ()
    searches: tuple[Work, ...] = ()

    @property
    def first(self) -> Work:
        """Any of it: they share a backend."""
        return (*self.searches, *self.works)[0]


class Groups(Protocol):
    """What is left for any lane to take."""

    def peek(self) -> Group | None:
        """The next one; None when there is none, or the sweep is to end."""
        ...

    def take(self) -> Group | None:
        """The next one, for good."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What all lanes share.

    Attributes:
        settings: where and how.
        searched: keys of the variants whose capacity is searched once they are measured.
        sentinel: what every lane runs now and then to see drift; None for nothing.
        pruning: what ran out of memory so far.
        finished: called with each record once it is on disk and no verdict of it is open.
        halted: whether another lane failed.
    """

    settings: Settings
    searched: frozenset[str]
    sentinel: Work | None
    pruning: Pruning
    finished: Callable[[Record], None]
    halted: Callable[[], bool] = lambda: False


class Queue:
    """Groups that no lane has taken yet.

    Args:
        groups: in the order in which they are taken.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = deque(groups)
        self._lock = threading.Lock()
        self._halted = False

    def peek(self) -> Group | None:
        """The next one; None when there is none."""
        with self._lock:
            return self._groups[0] if self._groups else None

    def take(self) -> Group | None:
        """The next one, for good."""
        with self._lock:
            return self._groups.popleft() if self._groups else None

    def halt(self) -> None:
        """A lane failed: the others finish what they have in hand."""
        self._halted = True

    def halted(self) -> bool:
        """Whether a lane failed."""
        return self._halted

    def __len__(self) -> int:
        with self._lock:
            return len(self._groups)


def grouped(todo: Sequence[Work], searches: Sequence[Work] = ()) -> list[Group]:
    """The work by the engine it shares, in the plan's order; a search of what is measured anyway comes with that."""
    measured = {work.key for work in todo}
    works: dict[str, list[Work]] = {}
    apart: dict[str, list[Work]] = {}
    for work in todo:
        works.setdefault(work.engine_key, []).append(work)
    for work in searches:
        if work.key not in measured:
            apart.setdefault(work.engine_key, []).append(work)
    return [
        Group(works=tuple(works.get(key, ())), searches=tuple(apart.get(key, ())))
        for key in dict.fromkeys([*apart, *works])
    ]

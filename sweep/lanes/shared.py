"""What lanes share: the groups that are left, and what holds for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.folder import Settings
    from sweep.plan import Work
    from sweep.pruning import Pruning
    from sweep.record import Record


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

"""Keep the order of passes: which are over, which are dropped, and when an engine has none left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sweep.runner.plan import Work


class PassOrder:
    """Keep the order of the passes of one device runner.

    Args:
        ending: whether the sweep is to end.
    """

    def __init__(self, ending: Callable[[], bool]) -> None:
        self._ending = ending
        self._remaining: Counter[str] = Counter()  # passes, by engine key
        self._dropped: set[str] = set()

    def add(self, works: Iterable[Work]) -> None:
        """Add all passes of `works` to those that are left."""
        for work in works:
            self._remaining[work.engine_key] += work.variant.load.passes

    def through(self, ordered: Iterable[tuple[Work, int]]) -> Iterator[tuple[Work, int]]:
        """Give these passes in this order; where the sweep is to end, the rest of the variant in hand alone."""
        for work, repeat in ordered:
            if self._ending():
                return
            yield work, repeat
            if self._ending():
                yield from ((work, later) for later in range(repeat + 1, work.variant.load.passes))
                return

    def drop(self, work: Work) -> None:
        """Drop the passes that a variant still has: it is over."""
        self._dropped.add(work.key)

    def is_dropped(self, work: Work) -> bool:
        """Return whether the variant is over."""
        return work.key in self._dropped

    def finish(self, work: Work) -> bool:
        """Count one pass as over, and return whether it was the last of its engine."""
        self._remaining[work.engine_key] -= 1
        return not self._remaining[work.engine_key]

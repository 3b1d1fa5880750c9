"""Raw samples of single passes, until their variant is whole: ``parts/<key>.<repeat>.npz``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.storage import samples, samples_file

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.plan import Work
    from sweep.storage.store import Store

_SEARCH = "search"


class Parts:
    """The passes of one lane's variants.

    Args:
        store: the sweep's folder.
    """

    def __init__(self, store: Store) -> None:
        self._root = store.root / "parts"
        self._stretches: dict[tuple[str, int], int | None] = {}

    def path(self, work: Work, repeat: int | None) -> Path:
        """Where the samples of a pass lie; None for ``repeat`` means the search of the capacity."""
        return self._root / f"{work.key}.{_SEARCH if repeat is None else repeat}.npz"

    def begin(self, work: Work, repeat: int, stretch: int | None) -> None:
        """A pass starts, in that stretch between two runs of the sentinel."""
        self._stretches[work.key, repeat] = stretch

    def rates_ips(self, work: Work) -> list[float]:
        """Rates that the first pass placed on the ladder, samples/s."""
        first = samples_file.load(self.path(work, 0))
        return [(point.offered_rps or 0.0) * point.batch for point in first if point.kind not in samples.ASIDE]

    def gathered(self, work: Work) -> list[samples.PointSamples]:
        """The points of all passes, each with the stretch that it was measured in."""
        return [
            dataclasses.replace(point, stretch=self._stretches[work.key, repeat])
            for repeat in range(work.variant.load.repeats)
            for point in samples_file.load(self.path(work, repeat))
        ]

    def clear(self, work: Work) -> None:
        """Throw away what there is of the variant's passes."""
        for repeat in (None, *range(work.variant.load.repeats)):
            self.path(work, repeat).unlink(missing_ok=True)

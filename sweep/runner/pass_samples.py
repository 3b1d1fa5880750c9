"""Keep the raw samples of single passes until their variant is whole: ``parts/<key>.<repeat>.npz``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.storage import samples, samples_file

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.plan import Work
    from sweep.storage import CpuLoad, GpuState, Store

_SEARCH = "search"


@dataclass(slots=True)
class _Conditions:
    """Hold what the parent adds to the samples of one pass.

    Attributes:
        interval: number of the sentinel's run before the pass; None where no sentinel runs.
        gpu_states: state of the GPU during each point, in order; empty where no GPU was read.
        cpu_loads: use of the cores during each point, in order; empty where it was not read.
    """

    interval: int | None
    gpu_states: list[GpuState | None] = field(default_factory=list)
    cpu_loads: list[CpuLoad | None] = field(default_factory=list)


class PassSamples:
    """Keep the passes of the variants that one device runner measures.

    The worker writes the samples of a pass once; what the parent adds stays in memory until the variant's own file is
    written.

    Args:
        store: the sweep's folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root / "parts"
        self._conditions: dict[tuple[str, int], _Conditions] = {}

    def path(self, work: Work, repeat: int | None) -> Path:
        """Return the file of a pass; None for `repeat` means the search of the capacity."""
        return self._root / f"{work.key}.{_SEARCH if repeat is None else repeat}.npz"

    def begin(self, work: Work, repeat: int, interval: int | None) -> None:
        """Begin a pass in that interval between two runs of the sentinel."""
        self._conditions[work.key, repeat] = _Conditions(interval)

    def load(self, work: Work, repeat: int | None) -> list[samples.PointSamples]:
        """Return the points of one pass, as the worker wrote them."""
        return samples_file.load(self.path(work, repeat))

    def add_gpu_states(self, work: Work, repeat: int, states: list[GpuState | None]) -> None:
        """Add the GPU's state in the window of each point of a pass (``PointSamples.telemetry``), in their order."""
        self._conditions[work.key, repeat].gpu_states = states

    def add_cpu_loads(self, work: Work, repeat: int, loads: list[CpuLoad | None]) -> None:
        """Add the use of the cores in the window of each point of a pass, in their order."""
        self._conditions[work.key, repeat].cpu_loads = loads

    def rates_ips(self, work: Work) -> list[float]:
        """Return the rates that the first pass placed on the ladder, samples/s."""
        first = self.load(work, 0)
        return [(point.offered_rps or 0.0) * point.batch for point in first if point.kind not in samples.ASIDE]

    def gathered(self, work: Work) -> list[samples.PointSamples]:
        """Return the points of all passes, each with the conditions that it was measured under."""
        return [
            point
            for repeat in range(work.variant.load.passes)
            for point in _completed(self.load(work, repeat), self._conditions[work.key, repeat])
        ]

    def save(self, work: Work) -> list[samples.PointSamples]:
        """Write the samples of all passes into the variant's own file, and return them.

        The file of a single pass becomes the variant's own; several passes are merged.
        """
        points, target = self.gathered(work), self._store.samples_path(work.key)
        if work.variant.load.passes == 1:
            samples_file.complete(self.path(work, 0), points, target)
        else:
            samples_file.save(target, points)
        return points

    def clear(self, work: Work) -> None:
        """Remove the files of the variant's passes."""
        for repeat in (None, *range(work.variant.load.passes)):
            self.path(work, repeat).unlink(missing_ok=True)


def _completed(points: list[samples.PointSamples], conditions: _Conditions) -> list[samples.PointSamples]:
    states = conditions.gpu_states or [point.telemetry for point in points]
    loads = conditions.cpu_loads or [point.cpu_load for point in points]
    return [
        dataclasses.replace(point, stretch=conditions.interval, telemetry=state, cpu_load=load)
        for point, state, load in zip(points, states, loads, strict=True)
    ]

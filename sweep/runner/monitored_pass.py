"""A pass with the GPU's state beside it; once more where that state spoilt it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.analysis import gpu_telemetry, measured_window
from sweep.storage import samples, samples_file
from sweep.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.system.gpu_readings import Series

from typing import TYPE_CHECKING

from sweep.system import gpu_readings, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.runner.pass_samples import Parts
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_process import Outcome
    from sweep.spec.settings import Settings
    from sweep.system.gpu_readings import Series


class Watched:
    """Has passes measured while the lane's GPU is read.

    Args:
        settings: of the sweep.
        parts: where the samples of a pass lie.
        screen: told why a pass is done again.
        uuid: of the GPU; None for the one that CUDA would take.
    """

    def __init__(self, settings: Settings, parts: Parts, screen: Screen, uuid: str | None) -> None:
        self._settings = settings
        self._parts = parts
        self._screen = screen
        self._uuid = uuid
        self._gpu: telemetry.Gpu | None = None
        self._looked = False
        self._series: dict[str, dict[int, Series]] = {}
        self._again: dict[str, str] = {}

    def measure(self, work: Work, repeat: int, ask: Callable[[Work, int], Outcome]) -> Outcome:
        """One pass; once more, and the second kept, where the GPU's state spoilt it.

        A variant is given one such second pass, whatever its repeats: a GPU that throttles at every pass is then
        what there is to measure.
        """
        gpu = self._reader()
        if gpu is None:
            return ask(work, repeat)
        outcome, reason = self._pass(gpu, work, repeat, None, ask)
        if reason is None or work.key in self._again:
            return outcome
        self._again[work.key] = reason
        self._screen.note(f"{work.variant.label} is measured again: {reason}")
        return self._pass(gpu, work, repeat, reason, ask)[0]

    def keep(self, work: Work) -> None:
        """Put the readings over the variant's passes beside its samples."""
        path = Store(self._settings.root).telemetry_path(work.key)
        if work.key in self._series:
            gpu_readings.save(path, self._series.pop(work.key))
        else:
            path.unlink(missing_ok=True)  # of an earlier measurement

    def close(self) -> None:
        """Give NVML back."""
        if self._gpu is not None:
            self._gpu.close()

    def _reader(self) -> telemetry.Gpu | None:
        if not self._looked:
            self._looked = True
            self._gpu = telemetry.find(self._settings.telemetry_hz, self._uuid)
        return self._gpu

    def _pass(
        self, gpu: telemetry.Gpu, work: Work, repeat: int, again: str | None, ask: Callable[[Work, int], Outcome]
    ) -> tuple[Outcome, str | None]:
        """One pass, its samples completed with the GPU's state; and why that state spoilt it, or None."""
        with gpu.watch() as watch:
            outcome = ask(work, repeat)
        if outcome.status != "ok":
            return outcome, None
        self._series.setdefault(work.key, {})[repeat] = watch.series()
        return outcome, attach(self._parts.path(work, repeat), watch.series(), again)


def attach(path: Path, series: Series, again: str | None = None) -> str | None:
    """Add to every point of a samples file what the GPU did in its window; why one of them is spoilt, or None.

    Args:
        path: the samples of one pass.
        series: readings over that pass.
        again: why the pass was measured a second time; None if it was not.
    """
    points = [_with_state(point, series, again) for point in samples_file.load(path)]
    samples_file.save(path, points, durable=False)
    return next(filter(None, (gpu_telemetry.spoilt(point.telemetry) for point in points)), None)


def _with_state(point: samples.PointSamples, series: Series, again: str | None) -> samples.PointSamples:
    window = measured_window.measured_window(point)
    if window is None:
        return point
    found = gpu_telemetry.window(series, *window)
    if found is not None and again is not None:
        found["measured_again"] = again
    return dataclasses.replace(point, telemetry=found)

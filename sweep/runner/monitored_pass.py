"""Measure a pass while the state of the GPU and the use of the cores are read; once more where the GPU disturbed it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sweep.analysis import gpu_telemetry, measured_window
from sweep.backends import registry
from sweep.storage import Store
from sweep.system import HostLoad, gpu_readings, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.runner.pass_samples import PassSamples
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_process import Outcome
    from sweep.spec import Settings
    from sweep.storage import CpuLoad, GpuState, PointSamples
    from sweep.system import Series

    RunPass = Callable[[Work, int], Outcome]


class PassMonitor:
    """Read the GPU and the cores of one device runner while its passes are measured.

    Args:
        settings: settings of the sweep.
        samples: samples of the passes; gets the GPU's states.
        screen: shows why a pass is repeated.
        uuid: UUID of the GPU; None for the one that CUDA would take.
    """

    def __init__(self, settings: Settings, samples: PassSamples, screen: Screen, uuid: str | None) -> None:
        self._settings = settings
        self._samples = samples
        self._screen = screen
        self._uuid = uuid
        self._gpu: telemetry.Gpu | None = None
        self._opened = False
        self._series: dict[str, dict[int, Series]] = {}
        self._repeated: dict[str, str] = {}  # why, by the key of the variant

    def measure(self, work: Work, repeat: int, run_pass: RunPass) -> Outcome:
        """Measure one pass; once more, and keep the second, where the GPU's state disturbed it.

        A variant is given one such second pass, whatever its repeats: a GPU that throttles at every pass is then
        what there is to measure.
        """
        gpu = self._reader() if _on_gpu(work) else None
        outcome, reason = self._measure(gpu, work, repeat, None, run_pass)
        if reason is None or work.key in self._repeated:
            return outcome
        self._repeated[work.key] = reason
        self._screen.note(f"{work.label} is measured again: {reason}")
        return self._measure(gpu, work, repeat, reason, run_pass)[0]

    def save(self, work: Work) -> None:
        """Write the readings over the variant's passes beside its samples."""
        path = Store(self._settings.root).telemetry_path(work.key)
        if work.key in self._series:
            gpu_readings.save(path, self._series.pop(work.key))
        else:
            path.unlink(missing_ok=True)  # of an earlier measurement

    def close(self) -> None:
        """Release NVML."""
        if self._gpu is not None:
            self._gpu.close()

    def _reader(self) -> telemetry.Gpu | None:
        if not self._opened:
            self._opened = True
            self._gpu = telemetry.find(self._settings.telemetry_hz, self._uuid)
        return self._gpu

    def _measure(
        self, gpu: telemetry.Gpu | None, work: Work, repeat: int, repeated: str | None, run_pass: RunPass
    ) -> tuple[Outcome, str | None]:
        """Measure one pass, and add what was read meanwhile to its samples.

        Args:
            gpu: GPU to read; None for none.
            work: variant to measure.
            repeat: number of the pass.
            repeated: why the pass is measured a second time; None for the first time.
            run_pass: runs it.

        Returns:
            The outcome of the pass, and why the GPU's state disturbed it, or None.
        """
        with HostLoad() as host, contextlib.nullcontext() if gpu is None else gpu.watch() as watch:
            outcome = run_pass(work, repeat)
        if outcome.status != "ok":
            return outcome, None
        points = self._samples.load(work, repeat)
        self._samples.add_cpu_loads(work, repeat, [_cpu_load(point, host) for point in points])
        if watch is None:
            return outcome, None
        series = watch.series()
        self._series.setdefault(work.key, {})[repeat] = series
        states = [_gpu_state(point, series, repeated) for point in points]
        self._samples.add_gpu_states(work, repeat, states)
        return outcome, next(filter(None, map(gpu_telemetry.disturbance, states)), None)


def _on_gpu(work: Work) -> bool:
    return registry.get(work.variant.backend).on_gpu


def _cpu_load(point: PointSamples, host: HostLoad) -> CpuLoad | None:
    """Return the use of the cores in the window of a point; None where its clock is not that of the host."""
    window = measured_window.measured_window(point)
    shares = None if window is None else host.shares(window[0], window[1])
    return None if shares is None else {"own": shares[0], "other": shares[1]}


def _gpu_state(point: PointSamples, series: Series, repeated: str | None) -> GpuState | None:
    """Summarise the readings in the window of a point; `repeated` is why the pass is measured a second time."""
    window = measured_window.measured_window(point)
    if window is None:
        return point.telemetry
    state = gpu_telemetry.window(series, *window)
    if state is not None and repeated is not None:
        state["measured_again"] = repeated
    return state

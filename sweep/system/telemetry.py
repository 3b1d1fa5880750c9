"""Read the GPU's state while a worker measures, in a thread of the parent, outside the timed threads.

The parent has an interpreter of its own and waits meanwhile, so a reading takes nothing from the worker but the
driver's time. Both use ``time.perf_counter_ns``, which is CLOCK_MONOTONIC on Linux, one clock for all processes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from sweep.system import gpu_readings, nvml
from sweep.system.reading_thread import ReadingThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.system.gpu_readings import Series

_MPS_SERVER = (
    "nvidia-cuda-mps"  # as /proc shortens its name; it uses the GPU on behalf of its clients, which are listed too
)
_ABSENT = ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "NO_PERMISSION", "ARGUMENT_VERSION_MISMATCH")


class Gpu:
    """Represent a device that NVML can read.

    Args:
        library: ``pynvml``, initialised.
        device: NVML's handle.
        hz: readings per second.
    """

    def __init__(self, library: Any, device: Any, hz: float) -> None:
        self._library = library
        self._device = device
        self._hz = hz

    def watch(self) -> Watch:
        """Return a context in which the device is read ``hz`` times per second."""
        return Watch(Reader(self._library, self._device), 1 / self._hz)

    def close(self) -> None:
        """Shut down NVML."""
        nvml.close(self._library)


def find(hz: float, uuid: str | None = None) -> Gpu | None:
    """Find the GPU ``uuid``, or the one that CUDA would use, if NVML can read it.

    Args:
        hz: readings per second; 0 for none.
        uuid: of the GPU; None for the one that CUDA would use.

    Returns:
        The GPU; None if ``hz`` is 0, or there is no GPU that NVML can read.
    """
    library = nvml.library() if hz else None
    if library is None:
        return None
    try:
        return Gpu(library, nvml.visible(library, uuid), hz)
    except library.NVMLError:
        nvml.close(library)
        return None


class Reader:
    """Take readings and store them. A value that the device lacks is requested once.

    Args:
        library: ``pynvml``, initialised.
        device: NVML's handle.
    """

    def __init__(self, library: Any, device: Any) -> None:
        self._library = library
        self._getters = _getters(library, device)
        self._absent = {getattr(library, f"NVML_ERROR_{name}") for name in _ABSENT}
        self._kinds: dict[int, str] = {}
        self._rows: list[list[float]] = []
        self._times: list[int] = []
        self._strangers: dict[int, str] = {}
        self._lost: str | None = None

    def read(self) -> bool:
        """Take one reading and return True; False once the device is lost."""
        before = time.perf_counter_ns()
        try:
            row = {name: self._get(name) for name in list(self._getters)}
        except self._library.NVMLError as error:
            self._lost = str(error)
            return False
        own, foreign = self._count_processes(row.pop("processes", None))
        row |= {"own": own, "foreign": foreign}
        self._times.append((before + time.perf_counter_ns()) // 2)
        self._rows.append([row.get(name, np.nan) for name in gpu_readings.COLUMNS])
        return True

    def _get(self, name: str) -> Any:
        """Read one value; NaN, and never requested again, if this device, driver or library does not have it."""
        try:
            return self._getters[name]()
        except AttributeError:  # an older nvidia-ml-py
            pass
        except self._library.NVMLError as error:
            if error.value not in self._absent:
                raise
        del self._getters[name]
        return None if name == "processes" else np.nan

    def _count_processes(self, pids: set[int] | None) -> tuple[float, float]:
        """Count our processes and those of others; NaN if NVML does not list processes."""
        if pids is None:
            return np.nan, np.nan
        for pid in pids - self._kinds.keys():
            self._kinds[pid], name = _classify_process(pid)
            if self._kinds[pid] == "foreign":
                self._strangers[pid] = f"{pid} {name}"
        kinds = [self._kinds[pid] for pid in pids]
        return float(kinds.count("own")), float(kinds.count("foreign"))

    def series(self) -> Series:
        """Return the readings so far."""
        table = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), len(gpu_readings.COLUMNS))
        return gpu_readings.Series(
            t_ns=np.array(self._times, dtype=np.int64),
            columns=dict(zip(gpu_readings.COLUMNS, table.T.copy(), strict=True)),
            strangers=tuple(self._strangers.values()),
            lost=self._lost,
        )


def _getters(library: Any, device: Any) -> dict[str, Callable[[], Any]]:
    """Return a function for each column that reads it in its unit: NVML gives mW and mJ."""

    def reasons() -> int:
        try:
            return int(library.nvmlDeviceGetCurrentClocksEventReasons(device))  # since driver 535
        except (AttributeError, library.NVMLError):
            return int(library.nvmlDeviceGetCurrentClocksThrottleReasons(device))  # its name until then

    def processes() -> set[int]:
        exclusive = library.nvmlDeviceGetComputeRunningProcesses(device)
        try:
            shared = library.nvmlDeviceGetMPSComputeRunningProcesses(device)
        except (AttributeError, library.NVMLError):
            shared = []
        return {item.pid for item in [*exclusive, *shared]}

    return {
        "sm_clock_mhz": lambda: library.nvmlDeviceGetClockInfo(device, library.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: library.nvmlDeviceGetClockInfo(device, library.NVML_CLOCK_MEM),
        "power_w": lambda: library.nvmlDeviceGetPowerUsage(device) / 1e3,
        "temperature_c": lambda: library.nvmlDeviceGetTemperature(device, library.NVML_TEMPERATURE_GPU),
        "energy_j": lambda: library.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3,
        "reasons": reasons,
        "processes": processes,
    }


def _classify_process(pid: int) -> tuple[str, str]:
    """Return ``own``, ``mps`` or ``foreign``, and the name: ours are this process and all its descendants."""
    try:
        process = psutil.Process(pid)
        name = process.name()
        ancestry = {pid, *(parent.pid for parent in process.parents())}
    except psutil.Error:
        return "foreign", "(of another container or user)"
    if os.getpid() in ancestry:
        return "own", name
    return ("mps" if name.startswith(_MPS_SERVER) else "foreign"), name


class Watch(ReadingThread):
    """Read at a fixed rate from enter to exit, in a thread of its own.

    Args:
        reader: takes the readings.
        interval_s: time between readings, in s.
    """

    def __init__(self, reader: Reader, interval_s: float) -> None:
        super().__init__("telemetry", reader.read, interval_s)
        self._reader = reader

    def series(self) -> Series:
        """Return the readings, once the watch has ended."""
        return self._reader.series()

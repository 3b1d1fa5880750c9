"""Measure how much of the cores other programs use while a pass is measured, in a thread of the parent.

On a server that others use, a figure of the CPU holds for the crowd that it met. Times are of CLOCK_MONOTONIC
(``time.perf_counter_ns``), as those of the samples.
"""

from __future__ import annotations

import os
import time
from typing import Self

import numpy as np
import psutil

from sweep.system.reading_thread import ReadingThread

_INTERVAL_S = 0.5
_LEAST_PAUSE = 100.0  # a reading walks over all processes: the pause after it is at least this many times as long
_UNUSED = ("idle", "iowait", "guest", "guest_nice")  # of ``psutil.cpu_times``; guests are contained in user


class HostLoad(ReadingThread):
    """Read the CPU time of this machine and of our own processes from enter to exit.

    Only the cores that this process may run on count.
    """

    def __init__(self) -> None:
        super().__init__("host-load", self._take, _INTERVAL_S, _LEAST_PAUSE)
        self._cores = sorted(os.sched_getaffinity(0))
        self._rows: list[tuple[int, float, float]] = []

    def __enter__(self) -> Self:
        self._take()  # before the window can begin
        return super().__enter__()

    def shares(self, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Return the shares of the cores' time that our own processes and others used between two times.

        Args:
            start_ns: start, ns of CLOCK_MONOTONIC.
            end_ns: end.

        Returns:
            Both from 0 to 1, interpolated between readings; None where the readings do not enclose the window, as
            those of a simulated clock.
        """
        times, busy, own = (np.array(column, dtype=np.float64) for column in zip(*self._rows, strict=True))
        if not times[0] <= start_ns < end_ns <= times[-1]:
            return None
        window = [start_ns, end_ns]
        available_s = (end_ns - start_ns) / 1e9 * len(self._cores)
        busy_s, own_s = (float(np.diff(np.interp(window, times, column))[0]) for column in (busy, own))
        ours = min(max(own_s / available_s, 0.0), 1.0)
        return ours, min(max(busy_s / available_s - ours, 0.0), 1.0 - ours)

    def _take(self) -> bool:
        now, busy = time.perf_counter_ns(), self._busy_s()
        self._rows.append((now, busy, _own_s()))
        return True

    def _busy_s(self) -> float:
        """Return the CPU time that all processes have had on the cores since boot, s."""
        times = psutil.cpu_times(percpu=True)
        rows = [times[core]._asdict() for core in self._cores if core < len(times)]
        return float(sum(value for row in rows for name, value in row.items() if name not in _UNUSED))


def _own_s() -> float:
    """Return the CPU time of this process and its descendants, s; that of those that ended is in their parents'."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total

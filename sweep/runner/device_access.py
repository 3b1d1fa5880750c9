"""Acquire and release the lock of the device that work needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.system import DeviceLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_pool import WorkerPool
    from sweep.spec import Settings
    from sweep.system import Device, Memory

_TURN_S = 60.0  # after which a device is given to whoever waits for it, even within a group


class DeviceAccess:
    """Have the device that the next work needs, and no other.

    Args:
        device: what is measured on.
        settings: settings of the sweep: how long to wait for the device.
        screen: shows who is in the way.
        pool: the workers that use the device; they end before it is released.
        memory: memory of the device; marked once it is acquired.
    """

    def __init__(self, device: Device, settings: Settings, screen: Screen, pool: WorkerPool, memory: Memory) -> None:
        self._device = device
        self._wait_s = settings.wait_s
        self._screen = screen
        self._pool = pool
        self._memory = memory
        self._lock: DeviceLock | None = None
        self._used = False
        self._notes: set[str] = set()

    def acquire(self, work: Work, ending: Callable[[], bool]) -> None:
        """Acquire the lock of the device that `work` needs and release any other.

        Another process that waits for the device gets it between two engine groups, and after a minute within one.

        Args:
            work: comes next.
            ending: whether the sweep is to end, and yields to nobody any more.

        Raises:
            BusyError: as ``DeviceLock.acquire``.
        """
        name = lock_name(work, self._device)
        if name == (self._lock.name if self._lock is not None else None) and not self._yields(work, ending):
            return
        self._pool.end(at_once=False)
        self.release()
        if name is not None:
            lock = DeviceLock(name, self._wait_s, self._note_waiting)
            lock.acquire()
            self._lock = lock
        self._used = False
        self._memory.mark()

    def mark_used(self) -> None:
        """Tell that something ran since the device was acquired."""
        self._used = True

    def release(self) -> None:
        """Release the device."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def _yields(self, work: Work, ending: Callable[[], bool]) -> bool:
        """Return whether to let another process have the device before `work`."""
        if self._lock is None or not self._used:
            return False
        if self._pool.engine == work.engine_key and self._lock.acquired_s < _TURN_S:
            return False
        return not ending() and self._lock.has_waiters()

    def _note_waiting(self, text: str) -> None:
        self._screen.stage("waiting for", self._device.shown or "the device", 0.0)
        if text not in self._notes:  # two sweeps that take turns need not be told every time
            self._notes.add(text)
            self._screen.note(text)


def lock_name(work: Work, device: Device) -> str | None:
    """Return the name of the device that `work` needs for itself; None where it computes nothing."""
    backend = registry.get(work.variant.backend)
    if backend.on_gpu:
        return f"gpu-{device.uuid or 'any'}"
    return "cpu" if backend.runs_models else None

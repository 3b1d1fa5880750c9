"""Lock a device for one measurement at a time, across users and sweeps: a lock file a device, and a queue before it.

The lock is an flock, which the kernel takes from a dead process. It works on a descriptor that may only read, so the
file of one user serves all, and nobody but its maker can write it. Who holds it is read from /proc, not from the file.
The queue is a second lock: whoever waits holds it, so a process that releases the device and wants it again comes after
the one that waited.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sweep.errors import BusyError
from sweep.system import file_locks, signals

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "SWEEP_LOCK_DIR"  # variable; the same for all who share the machine
_DEFAULT = "/tmp"  # noqa: S108 - sticky, the same for all users; files there are opened without following links
_MODE = 0o644
_POLL_S = 0.2
_MAKING_S = 2.0  # between the two calls of a maker, its file cannot be opened by others yet
_SHOWN = 100  # of a command line


class DeviceLock:
    """Lock one device against every other measurement on this machine.

    Args:
        name: of the device, for the file and the user: ``gpu-GPU-3f2a...`` or ``cpu``.
        wait_s: longest wait for it, s; None waits as long as it takes.
        notify: called with one line when the lock has to be waited for.

    Attributes:
        name: of the device.
    """

    def __init__(self, name: str, wait_s: float | None, notify: Callable[[str], None]) -> None:
        folder = Path(os.environ.get(FOLDER) or _DEFAULT)
        self._path = folder / f"sweep-{name}.lock"
        self._queue = folder / f"sweep-{name}.line"
        self.name = name
        self._wait_s = wait_s
        self._notify = notify
        self._descriptor: int | None = None
        self._acquired_at = 0.0
        self._notified = False

    @property
    def acquired(self) -> bool:
        """Return whether this process has it."""
        return self._descriptor is not None

    @property
    def acquired_s(self) -> float:
        """Return the seconds since it was acquired."""
        return time.monotonic() - self._acquired_at

    def acquire(self) -> None:
        """Wait for it, behind whoever waits already.

        Raises:
            BusyError: it was not free within `wait_s`, or its file cannot be opened.
            KeyboardInterrupt: an interrupt arrived while it was waited for.
        """
        if self._descriptor is not None:
            return
        deadline = time.monotonic() + (float("inf") if self._wait_s is None else self._wait_s)
        self._notified = False
        place = self._wait_for(self._queue, deadline)
        try:
            self._descriptor = self._wait_for(self._path, deadline)
            self._acquired_at = time.monotonic()
        finally:
            os.close(place)

    def has_waiters(self) -> bool:
        """Return whether another process waits for it."""
        place = _try(self._queue)
        if place is not None:
            os.close(place)
        return place is None

    def release(self) -> None:
        """Release it; nothing where it is not acquired."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _wait_for(self, path: Path, deadline: float) -> int:
        """Return a descriptor that holds `path` until it is closed; notify once who is in the way."""
        attempts = 0
        while (descriptor := _try(path)) is None:
            attempts += 1
            if not self._notified and attempts > 1:  # a first attempt may meet one that only asks who waits
                self._notified = True
                bound = "" if self._wait_s is None else f", at most {self._wait_s:g} s (gpu.wait_s)"
                self._notify(f"waiting for {self.name}{bound}: measured on by {self._holder()}")
            if time.monotonic() >= deadline and attempts > 1:
                raise BusyError(
                    f"{self.name} is still measured on by {self._holder()} after {self._wait_s:g} s (gpu.wait_s): "
                    "raise that, or come back; what was measured is kept, the same command measures the rest"
                )
            if signals.arrived():
                raise KeyboardInterrupt
            time.sleep(_POLL_S)
        return descriptor

    def _holder(self) -> str:
        return holder(self._path) or "another process"


def _try(path: Path) -> int | None:
    """Return a descriptor that holds `path`; None where another process has it."""
    return file_locks.lock_file(path, wait=False, opened=_opened)


def _opened(path: Path) -> int:
    """Open the file for reading; it is made by whoever comes first, whatever their umask.

    Raises:
        BusyError: it cannot be made or opened, or is no plain file.
    """
    reading = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    due = time.monotonic() + _MAKING_S
    while True:
        try:
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(path, reading)
                break
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, reading | os.O_CREAT | os.O_EXCL, _MODE)
                os.fchmod(handle, _MODE)
                break
        except OSError as error:
            if isinstance(error, PermissionError) and time.monotonic() < due:
                time.sleep(_POLL_S)
                continue
            raise BusyError(f"lock {path} cannot be opened ({error.strerror}): set {FOLDER} to a folder") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BusyError(f"lock {path} is no plain file: remove it, or set {FOLDER} to another folder")
    return handle


def holder(path: Path) -> str | None:
    """Return who holds the lock on `path`: user, process, command, and its start; None if that is not known.

    Source:
        /proc/locks: ``1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`` (proc_locks(5)).
    """
    try:
        file = path.stat()
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    inode = str(file.st_ino)
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    matches = [line for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5].split(":")[-1] == inode]  # noqa: PLR2004 - columns
    exact = [line for line in matches if line[5].startswith(device)]  # an overlay shows another device than stat does
    return next((_described(int(line[4])) for line in exact or matches), None)


def _described(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            since = dt.datetime.fromtimestamp(process.create_time(), dt.UTC).astimezone()
            command = " ".join(" ".join(process.cmdline()).split()) or process.name()  # one line, whatever it holds
            user = process.username()
    except psutil.Error:
        return f"process {pid} (of another container or user)"
    shown = command if len(command) <= _SHOWN else f"{command[:_SHOWN]}..."
    return f"user {user}, process {pid} ({shown}), running since {since:%Y-%m-%d %H:%M:%S}"

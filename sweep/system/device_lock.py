"""Lock a device for one measurement at a time, across users and sweeps, with a lock file per device and a queue.

The lock is an flock, which the kernel releases when its process dies. It works on a descriptor for reading, so the file
of one user serves all, and only its creator can write it. The holder is read from /proc; the file, which names it if it
may, is read where /proc does not know it, as for a holder on another host. The queue is a second lock, held while
waiting, so that a process which releases the device and wants it again comes after the one that waits.
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

from sweep.errors import BusyError, shorten
from sweep.system import file_locks, lock_owner, regular_files, signals

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "SWEEP_LOCK_DIR"  # environment variable; has to be the same for all who share the machine
_DEFAULT = "/tmp"  # noqa: S108 - sticky, the same for all users; files there are opened without following links
_MODE = 0o644
_POLL_S = 0.2
_CREATION_S = 2.0  # longest time between the creation of a file and its permissions for others
_SHOWN_CHARACTERS = 100  # of a command line


class DeviceLock:
    """Lock one device against every other measurement on this machine.

    Args:
        name: name of the device in the file name and in messages: ``gpu-GPU-3f2a...`` or ``cpu``.
        wait_s: longest wait for the lock, s; None for no limit.
        notify: called with one line if the lock is not free.

    Attributes:
        name: as given.
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
        """Return whether this process holds the lock."""
        return self._descriptor is not None

    @property
    def acquired_s(self) -> float:
        """Return the time since the lock was acquired, s."""
        return time.monotonic() - self._acquired_at

    def acquire(self) -> None:
        """Wait for the lock, behind processes that wait already. Nothing happens if this process holds it.

        Raises:
            BusyError: the lock was not free within `wait_s`, or its file cannot be opened.
            KeyboardInterrupt: an interrupt arrived during the wait.
        """
        if self._descriptor is not None:
            return
        deadline = time.monotonic() + (float("inf") if self._wait_s is None else self._wait_s)
        self._notified = False
        queued = self._wait_for(self._queue, deadline)
        try:
            self._descriptor = self._wait_for(self._path, deadline)
            self._acquired_at = time.monotonic()
            self._note(lock_owner.write)
        finally:
            os.close(queued)

    def has_waiters(self) -> bool:
        """Return whether another process waits for the lock."""
        queued = _try(self._queue)
        if queued is not None:
            os.close(queued)
        return queued is None

    def release(self) -> None:
        """Release the lock; do nothing if this process does not hold it."""
        if self._descriptor is not None:
            self._note(lock_owner.clear)
            os.close(self._descriptor)
            self._descriptor = None

    def _note(self, change: Callable[[int], None]) -> None:
        """Write or clear the holder's name in the lock file, if this user may write it."""
        with contextlib.suppress(OSError), regular_files.open_update(self._path) as file:
            change(file.fileno())

    def _wait_for(self, path: Path, deadline: float) -> int:
        """Return a descriptor that holds `path` until it is closed; notify once about the current holder."""
        attempts = 0
        while (descriptor := _try(path)) is None:
            attempts += 1
            if (
                not self._notified and attempts > 1
            ):  # the first attempt may collide with ``has_waiters`` of another process
                self._notified = True
                bound = "" if self._wait_s is None else f", at most {self._wait_s:g} s (gpu.wait_s)"
                self._notify(f"waiting for {self.name}{bound}: measured on by {self._holder()}")
            if time.monotonic() >= deadline and attempts > 1:
                raise BusyError(
                    f"{self.name} is still measured on by {self._holder()} after {self._wait_s:g} s (gpu.wait_s): "
                    "raise gpu.wait_s, or run the same command later; it measures only what has no record yet"
                )
            if signals.arrived():
                raise KeyboardInterrupt
            time.sleep(_POLL_S)
        return descriptor

    def _holder(self) -> str:
        local = holder(self._path)
        if local is not None:
            return local
        owner = lock_owner.read(self._path)
        return "another process" if owner is None or owner.is_dead else str(owner)


def _try(path: Path) -> int | None:
    """Return a descriptor that holds `path`; None if another process holds it.

    Raises:
        BusyError: the file cannot be opened, or its file system has no locks.
    """
    try:
        return file_locks.lock_file(path, wait=False, open_file=_open_shared)
    except OSError as error:
        raise BusyError(
            f"lock {path}: its file system has no locks ({error.strerror}): set {FOLDER} to a folder on a disk of this "
            "machine"
        ) from error


def _open_shared(path: Path) -> int:
    """Open the file for reading. The first user creates it, readable for all whatever their umask.

    Raises:
        BusyError: the file cannot be created or opened, or is no plain file.
    """
    reading = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    due = time.monotonic() + _CREATION_S
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
            raise BusyError(
                f"lock {path} cannot be opened ({error.strerror}): set {FOLDER} to a folder that all users can write"
            ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BusyError(f"lock {path} is no plain file: remove it, or set {FOLDER} to another folder")
    return handle


def holder(path: Path) -> str | None:
    """Return user, process, command and start of the holder of the lock on `path`; None if they are not known.

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
    return next((_describe(int(line[4])) for line in exact or matches), None)


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            since = dt.datetime.fromtimestamp(process.create_time(), dt.UTC).astimezone()
            command = " ".join(" ".join(process.cmdline()).split()) or process.name()  # always one line
            user = process.username()
    except psutil.Error:
        return f"process {pid} (of another container or user)"
    return (
        f"user {user}, process {pid} ({shorten(command, _SHOWN_CHARACTERS)}), running since {since:%Y-%m-%d %H:%M:%S}"
    )

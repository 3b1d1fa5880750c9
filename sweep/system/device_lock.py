"""One measurement at a time on a device, across users and sweeps: a lock file a device, and a line before it.

The lock is an flock, which the kernel takes from a dead process. It works on a descriptor that may only read, so the
file of one user serves all, and nobody but its maker can write it. Who holds it is read from /proc, not from the file.
The line is a second lock: whoever waits holds it, so a holder that lets go and wants on comes after who waited.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sweep.errors import BusyError
from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "SWEEP_LOCK_DIR"  # variable; the same for all who share the machine
_DEFAULT = "/tmp"  # noqa: S108 - sticky, the same for all users; files there are opened without following links
_MODE = 0o644
_LOOK_S = 0.2
_MAKING_S = 2.0  # between the two calls of a maker, its file cannot be opened by others yet
_SHOWN = 100  # of a command line


class Turn:
    """The right to measure on one device.

    Args:
        name: of the device, for the file and the user: ``gpu-GPU-3f2a...`` or ``cpu``.
        wait_s: longest wait for it; None waits as long as it takes.
        say: called with one line when it has to be waited for.

    Attributes:
        name: of the device.
    """

    def __init__(self, name: str, wait_s: float | None, say: Callable[[str], None]) -> None:
        folder = Path(os.environ.get(FOLDER) or _DEFAULT)
        self._path = folder / f"sweep-{name}.lock"
        self._line = folder / f"sweep-{name}.line"
        self.name = name
        self._wait_s = wait_s
        self._say = say
        self._handle: int | None = None
        self._since = 0.0

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._handle is not None

    @property
    def held_s(self) -> float:
        """Seconds since it became ours."""
        return time.monotonic() - self._since

    def take(self) -> None:
        """Wait for it, behind whoever waits already.

        Raises:
            BusyError: it was not free within ``wait_s``, or its file cannot be opened.
            KeyboardInterrupt: an interrupt arrived while it was waited for.
        """
        if self._handle is not None:
            return
        due = time.monotonic() + (float("inf") if self._wait_s is None else self._wait_s)
        said: list[str] = []
        line = self._locked(self._line, due, said)
        try:
            self._handle = self._locked(self._path, due, said)
            self._since = time.monotonic()
        finally:
            os.close(line)

    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        line = _try(self._line)
        if line is not None:
            os.close(line)
        return line is None

    def leave(self) -> None:
        """Let it go."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _locked(self, path: Path, due: float, said: list[str]) -> int:
        """A descriptor that holds ``path`` until it is closed; says once who is in the way."""
        looks = 0
        while (handle := _try(path)) is None:
            looks += 1
            if not said and looks > 1:  # a first look may meet one that only asks who waits
                said.append(holder(self._path) or "another process")
                bound = "" if self._wait_s is None else f", at most {self._wait_s:g} s (gpu.wait_s)"
                self._say(f"waiting for {self.name}{bound}: measured on by {said[0]}")
            if time.monotonic() >= due and looks > 1:
                found = holder(self._path) or "another process"
                raise BusyError(
                    f"{self.name} is still measured on by {found} after {self._wait_s:g} s (gpu.wait_s): raise that, "
                    f"or come back; what was measured is kept, the same command measures the rest"
                )
            if signals.arrived():
                raise KeyboardInterrupt
            time.sleep(_LOOK_S)
        return handle


def _try(path: Path) -> int | None:
    """A descriptor that holds ``path``; None where another has it."""
    while True:
        handle = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:  # somebody tidied up: the next try makes it anew
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _opened(path: Path) -> int:
    """The file, to read; made by whoever comes first, whatever their umask.

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
                time.sleep(_LOOK_S)
                continue
            raise BusyError(f"lock {path} cannot be opened ({error.strerror}): set {FOLDER} to a folder") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BusyError(f"lock {path} is no plain file: remove it, or set {FOLDER} to another folder")
    return handle


def holder(path: Path) -> str | None:
    """Who holds the lock on ``path``: user, process, command, and since when it runs; None if that is not known.

    From /proc/locks: ``1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`` (proc_locks(5)).
    """
    try:
        known = path.stat()
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    inode = str(known.st_ino)
    device = f"{os.major(known.st_dev):02x}:{os.minor(known.st_dev):02x}"
    found = [line for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5].split(":")[-1] == inode]  # noqa: PLR2004 - columns
    exact = [line for line in found if line[5].startswith(device)]  # an overlay shows another device than stat does
    return next((_described(int(line[4])) for line in exact or found), None)


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

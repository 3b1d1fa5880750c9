"""Name the process that holds a lock in the lock's file, so that other processes and hosts can tell who it is."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.errors import printable_line
from sweep.system import regular_files

_TEXT = re.compile(r"process (?P<pid>\d+) on (?P<host>\S+)( since (?P<since>[^,]+), (?P<identity>\S+))?\s*")
_MOST_BYTES = 400
_START = 22 - 3  # column of a process's start in /proc/PID/stat, counted from behind its name
_HOST_CHARACTERS = 40


def host_name() -> str:
    """Return the name of this host."""
    return os.uname().nodename or "localhost"


def host_part() -> str:
    """Return the name of this host as a part of a file's name: letters, digits, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9-]", "_", host_name())[:_HOST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Owner:
    """Describe the process that wrote a lock file.

    Attributes:
        pid: its process id, in its own namespace of processes.
        host: name of its host.
        since: when it began to hold the lock, as text, UTC; empty in a file of an earlier version.
        identity: its start in ticks since the boot, and its namespace of processes, which no other process of that
            host shares; empty in a file of an earlier version.
    """

    pid: int
    host: str
    since: str = ""
    identity: str = ""

    def __str__(self) -> str:
        return printable_line(f"process {self.pid} on {self.host}" + (f" since {self.since}" if self.since else ""))

    @property
    def is_of_other_host(self) -> bool:
        """Return whether the process runs on another host than this one."""
        return self.host != host_name()

    @property
    def is_dead(self) -> bool:
        """Return whether the process has certainly ended; one of another host or another namespace never has."""
        if self.is_of_other_host or not self.identity or self.identity.partition("@")[2] != _namespace():
            return False
        return _identity(self.pid) != self.identity

    @property
    def line(self) -> str:
        """Return the text for a lock file."""
        return f"process {self.pid} on {self.host} since {self.since}, {self.identity}\n"


def current() -> Owner:
    """Return this process as an owner since now."""
    since = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Owner(pid=os.getpid(), host=host_name(), since=since, identity=_identity(os.getpid()))


def parse(text: str) -> Owner | None:
    """Return the owner that a lock file names; None if it names none."""
    match = _TEXT.match(text)
    if match is None:
        return None
    return Owner(int(match["pid"]), match["host"], match["since"] or "", match["identity"] or "")


def read(path: Path) -> Owner | None:
    """Return the owner that the lock file at `path` names; None if it names none or cannot be read."""
    with contextlib.suppress(OSError), regular_files.open_input(path, follow=False) as file:
        return parse(file.read(_MOST_BYTES).decode(errors="replace"))
    return None


def write(descriptor: int) -> None:
    """Write this process into the lock file of `descriptor`, which holds the lock; a full disk is no reason to stop."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, current().line.encode(), 0)


def clear(descriptor: int) -> None:
    """Remove this process from a lock file, so that the next holder knows that it ended its work.

    The name of another process stays: one of another host, which this host's lock did not keep out.
    """
    with contextlib.suppress(OSError):
        owner = parse(os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace"))
        if owner is None or replace(owner, since="") == replace(current(), since=""):
            os.ftruncate(descriptor, 0)


def _identity(pid: int) -> str:
    """Return start and namespace of a process; empty if there is no such process here."""
    with contextlib.suppress(OSError, IndexError):
        fields = regular_files.read_text(Path(f"/proc/{pid}/stat"), follow=True, errors="replace").rpartition(")")[2]
        return f"{fields.split()[_START]}@{_namespace()}"
    return ""


@functools.cache
def _namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return ""

"""Pin the entries that a process uses, so that no other evicts them: one locked file per user, one line per change.

A user reads an entry's files long after ``Cache.get`` has returned. Its file below ``.in-use`` names the entries that
it pins. The kernel releases the lock on that file when the process dies, so the lock shows whether the user still
lives. One descriptor serves any number of entries.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import weakref
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.system import file_locks, lock_owner, regular_files

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".in-use"


class Pins:
    """Pin entries of the cache from ``add`` until ``release``, ``close`` or the end of this object.

    Args:
        root: folder of the cache.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._handle: int | None = None
        self._pinned: set[tuple[str, str]] = set()
        self._end: weakref.finalize[..., Pins] | None = None

    def add(self, kind: str, key: str) -> None:
        """Pin an entry, so that no process evicts it. The caller holds its lock, so that the entry exists.

        Args:
            kind: kind of the entry.
            key: key of the entry.

        Raises:
            CacheError: the pin cannot be written.
        """
        if (kind, key) not in self._pinned:
            self._write("+", kind, key)
            self._pinned.add((kind, key))

    def release(self, kind: str, key: str) -> None:
        """Release an entry, so that it can be evicted again."""
        if (kind, key) in self._pinned:
            self._pinned.remove((kind, key))
            with contextlib.suppress(CacheError):  # on a full disk the entry stays pinned until ``close``
                self._write("-", kind, key)

    def close(self) -> None:
        """Release every entry."""
        if self._end is not None:
            self._end()
        self._handle = None
        self._pinned.clear()

    def _write(self, sign: str, kind: str, key: str) -> None:
        try:
            if self._handle is None:
                self._handle = self._open()
            os.write(self._handle, f"{sign}{kind}/{key}\n".encode())
        except OSError as error:
            raise CacheError(
                f"cache {self._root}: the list of entries in use cannot be written ({error.strerror}); "
                "free space there or make it writable"
            ) from error

    def _open(self) -> int:
        folder = self._root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{lock_owner.host_part()}-{os.getpid()}-{secrets.token_hex(4)}"
        handle = file_locks.acquire(path)
        self._end = weakref.finalize(self, _remove_pins, handle, path, os.getpid())
        os.ftruncate(handle, 0)  # the first line has to be there, whatever `acquire` could write
        os.write(handle, lock_owner.current().line.encode())
        return handle


def in_use(root: Path) -> dict[tuple[str, str], str]:
    """Return {(kind, key): user} of the users that are alive, and remove the files of dead ones."""
    users: dict[tuple[str, str], str] = {}
    folder = root / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not _remove_if_dead(path):
            user, pinned = _read(path)
            users |= dict.fromkeys(pinned, user)
    return users


def _remove_if_dead(path: Path) -> bool:
    """Remove the file of a user that has ended, and return whether it was removed.

    A user on another host counts as alive: its lock may not reach this one.
    """
    owner = lock_owner.read(path)
    if owner is not None and owner.is_of_other_host:
        return False
    with file_locks.try_locked(path) as locked:
        if locked:
            path.unlink(missing_ok=True)
        return locked


def _read(path: Path) -> tuple[str, set[tuple[str, str]]]:
    """Return the user of a file and the entries that it pins; an incomplete last line is ignored."""
    try:
        text = regular_files.read_text(path, follow=False, errors="replace")
    except FileNotFoundError:
        return "", set()
    user, *lines = text.split("\n")[:-1] or [""]
    owner = lock_owner.parse(user)
    user = str(owner) if owner else user
    pinned: set[tuple[str, str]] = set()
    for line in lines:
        kind, _, key = line[1:].partition("/")
        (pinned.add if line[0] == "+" else pinned.discard)((kind, key))
    return user, pinned


def _remove_pins(handle: int, path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of the object, but does not own the pins
        path.unlink(missing_ok=True)
    os.close(handle)

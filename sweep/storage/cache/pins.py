"""Who uses which entry: one locked file a user, with a line for each entry taken up or let go.

A user reads an entry's files long after ``Cache.get`` has returned. Its file below ``.in-use`` names what it uses;
the lock on that file, which the kernel takes from a dead process, tells whether the user still lives. One descriptor
serves any number of entries.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import weakref
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.system import file_locks

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".in-use"


class Claim:
    """What one user of the cache uses, from ``hold`` to ``release`` or ``close``, or to the end of the object.

    Args:
        root: of the cache.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._handle: int | None = None
        self._held: set[tuple[str, str]] = set()
        self._end: weakref.finalize[..., Claim] | None = None

    def hold(self, kind: str, key: str) -> None:
        """Nobody evicts that entry from here on. To be sure that it is there, hold its lock meanwhile.

        Raises:
            CacheError: the claim cannot be written.
        """
        if (kind, key) not in self._held:
            self._write("+", kind, key)
            self._held.add((kind, key))

    def release(self, kind: str, key: str) -> None:
        """That entry may be evicted again."""
        if (kind, key) in self._held:
            self._held.remove((kind, key))
            with contextlib.suppress(CacheError):  # on a full disk it stays claimed until ``close``, and no more
                self._write("-", kind, key)

    def close(self) -> None:
        """Let go of everything."""
        if self._end is not None:
            self._end()
        self._handle = None
        self._held.clear()

    def _write(self, sign: str, kind: str, key: str) -> None:
        try:
            if self._handle is None:
                self._handle = self._open()
            os.write(self._handle, f"{sign}{kind}/{key}\n".encode())
        except OSError as error:
            raise CacheError(f"cache {self._root}: what is in use cannot be written: {error.strerror}") from error

    def _open(self) -> int:
        folder = self._root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        handle = file_locks.acquire(path)
        self._end = weakref.finalize(self, _gone, handle, path, os.getpid())
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        return handle


def in_use(root: Path) -> dict[tuple[str, str], str]:
    """{(kind, key): who uses it} of all users that live; what the dead have left is removed."""
    found: dict[tuple[str, str], str] = {}
    folder = root / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not _dead(path):
            user, held = _read(path)
            found |= dict.fromkeys(held, user)
    return found


def _dead(path: Path) -> bool:
    """Whether its user is gone; its file then is, too."""
    with file_locks.try_locked(path) as got:
        if got:
            path.unlink(missing_ok=True)
        return got


def _read(path: Path) -> tuple[str, set[tuple[str, str]]]:
    """The user and what it holds. A line without its end is not written yet."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return "", set()
    user, *lines = text.split("\n")[:-1] or [""]
    held: set[tuple[str, str]] = set()
    for line in lines:
        kind, _, key = line[1:].partition("/")
        (held.add if line[0] == "+" else held.discard)((kind, key))
    return user, held


def _gone(handle: int, path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of the object, and the claim is not its own
        path.unlink(missing_ok=True)
    os.close(handle)

"""Lock files among processes. The kernel lets go of one when its holder dies; one that is idle may be removed."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` alone, however long it takes to get it.

    Raises:
        CacheError: the file cannot be made.
    """
    handle = acquire(path)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold ``path`` alone if nobody else does, and say whether it is so. Whoever holds it may remove the file.

    Raises:
        CacheError: the file cannot be made.
    """
    try:
        handle = acquire(path, wait=False)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)


def acquire(path: Path, *, wait: bool = True) -> int:
    """A descriptor that holds ``path`` alone until it is closed.

    Raises:
        BlockingIOError: another has it and ``wait`` is off.
        CacheError: the file cannot be made.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CacheError(f"lock {path} cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the file that was locked is still the one at ``path``: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

"""Lock files among processes, by flock: the kernel releases a lock when its holder dies.

Everything in ``sweep`` that locks a file does it here (docs/decisions/0034).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def lock_descriptor(descriptor: int, *, wait: bool) -> bool:
    """Lock the open file or folder of `descriptor` until it is closed.

    Args:
        descriptor: may be open for reading alone.
        wait: until nobody else has it, however long that takes.

    Returns:
        Whether it is locked; False where another process has it and `wait` is off.

    Raises:
        OSError: its file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def open_lock_file(path: Path) -> int:
    """Open a lock file of this user's alone for reading and writing, made if it is not there; links are not followed.

    Raises:
        OSError: it cannot be made or opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def lock_file(path: Path, *, wait: bool, opened: Callable[[Path], int] = open_lock_file) -> int | None:
    """Lock the file at `path`, and see that it is still the one there: its last holder may have removed it.

    Args:
        path: of the lock file.
        wait: as ``lock_descriptor``.
        opened: opens the file.

    Returns:
        A descriptor that holds the lock until it is closed; None where another process has it and `wait` is off.
    """
    while True:
        descriptor = opened(path)
        try:
            if not lock_descriptor(descriptor, wait=wait):
                os.close(descriptor)
                return None
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` alone, however long it takes to get it.

    Raises:
        CacheError: the file cannot be made.
    """
    descriptor = acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold `path` alone if nobody else does, and give whether it is so. Whoever holds it may remove the file.

    Raises:
        CacheError: the file cannot be made.
    """
    descriptor = lock_file(path, wait=False, opened=_open_in_cache)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def acquire(path: Path) -> int:
    """Return a descriptor that holds `path` alone until it is closed, however long it takes to get it.

    Raises:
        CacheError: the file cannot be made.
    """
    descriptor = lock_file(path, wait=True, opened=_open_in_cache)
    assert descriptor is not None  # noqa: S101 - it was waited for; tells mypy
    return descriptor


def _open_in_cache(path: Path) -> int:
    try:
        return open_lock_file(path)
    except OSError as error:
        raise CacheError(f"lock {path} cannot be made: {error.strerror}") from error

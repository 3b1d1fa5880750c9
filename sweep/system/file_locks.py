"""Lock files between processes with flock: the kernel releases a lock when its holder dies.

All file locks of ``sweep`` are taken here (docs/decisions/0034). A lock file names its holder (``lock_owner``). On a
file system of several hosts flock may lock nothing, or this host alone; what is done there says decision 0048.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.system import lock_owner, regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def lock_descriptor(descriptor: int, *, wait: bool) -> bool:
    """Lock the open file or folder of `descriptor` until it is closed.

    Args:
        descriptor: open file or folder; read access suffices.
        wait: block until no other process holds the lock.

    Returns:
        Whether the lock was acquired; False if another process holds it and `wait` is off.

    Raises:
        OSError: the file system does not support locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def open_lock_file(path: Path) -> int:
    """Open a lock file that only this user may access, and create it if it is missing; links are not followed.

    Returns:
        Its descriptor, for reading and writing.

    Raises:
        OSError: the file cannot be created or opened, or is no regular file.
    """
    return regular_files.open_lock(path)


def lock_file(path: Path, *, wait: bool, open_file: Callable[[Path], int] = open_lock_file) -> int | None:
    """Lock the file at `path`. It is opened again if its last holder removed it meanwhile.

    Args:
        path: lock file.
        wait: block until no other process holds the lock.
        open_file: opens the file and returns its descriptor.

    Returns:
        A descriptor that holds the lock until it is closed; None if another process holds it and `wait` is off.

    Raises:
        OSError: the file system does not support locks. Errors of `open_file` pass through.
    """
    while True:
        descriptor = open_file(path)
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
    """Hold the lock on `path` within the context, after waiting for it as long as it takes.

    Where the file system has no locks the block runs without one, so it has to be safe when two run it at once.

    Raises:
        CacheError: the file cannot be created.
    """
    descriptor = acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Try to lock `path` and yield whether it is locked; the holder may remove the file.

    It is never locked where the file system has no locks.

    Raises:
        CacheError: the file cannot be created.
    """
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = lock_file(path, wait=False, open_file=_open_in_cache)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def acquire(path: Path) -> int:
    """Wait for the lock on `path` and return a descriptor that holds it until it is closed.

    Where the file system has no locks, the descriptor holds nothing (see ``locked``).

    Raises:
        CacheError: the file cannot be created.
    """
    try:
        descriptor = lock_file(path, wait=True, open_file=_open_in_cache)
    except OSError:
        descriptor = _open_in_cache(path)
    assert descriptor is not None  # noqa: S101 - it was waited for; tells mypy
    lock_owner.write(descriptor)
    return descriptor


def _open_in_cache(path: Path) -> int:
    try:
        return open_lock_file(path)
    except OSError as error:
        raise CacheError(f"lock {path} cannot be created ({error.strerror}); make its folder writable") from error

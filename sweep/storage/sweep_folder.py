"""Lock the folder of a sweep."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.storage.store import Store
from sweep.system import file_locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.spec import Settings


@contextmanager
def folder_lock(settings: Settings) -> Iterator[None]:
    """Lock the folder of a sweep for this process, since two sweeps in one folder would disturb each other.

    Args:
        settings: name the folder.

    Raises:
        ConfigError: the folder cannot be written, or another process holds the lock.
    """
    root = settings.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = file_locks.open_lock_file(root / ".lock")
    except OSError as error:
        raise ConfigError(f"results={settings.results}: cannot be written ({error.strerror})") from error
    try:
        if not _locked(handle):
            holder = os.read(handle, 100).decode() or "another process"
            raise ConfigError(f"{root} is in use by {holder}: wait for it, or give this sweep a name=")
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        Store(settings.root).remove_temporary_files()
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        return file_locks.lock_descriptor(handle, wait=False)
    except OSError:  # a file system without locks: nothing tells whether another sweep writes here
        return False

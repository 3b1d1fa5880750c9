"""Lock the folder of a sweep."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.spec.settings import Settings


@contextmanager
def folder_lock(settings: Settings) -> Iterator[None]:
    """Hold the sweep's folder; two sweeps at once would measure each other.

    Raises:
        ConfigError: another process holds it.
    """
    root = settings.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"results={settings.results}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 100).decode() or "another process"
            raise ConfigError(f"{root} is in use by {holder}: wait for it, or give this sweep a name=") from error
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        Store(settings.root).clear_scraps()
        yield
    finally:
        os.close(handle)

"""Lock the folder of a sweep."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.errors import ConfigError, printable
from sweep.storage.cache import location
from sweep.storage.store import Store
from sweep.system import file_locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sweep.spec import Settings


FOLDERS = ("records", "samples", "telemetry", "sentinel", "logs", "parts", "artifacts", "parity", "plans")
CACHE_FOLDERS = ("models", "onnx", "engines", "references", "costs", "runtime", ".in-use")


@contextmanager
def folder_lock(settings: Settings) -> Iterator[None]:
    """Lock the folder of a sweep for this process, since two sweeps in one folder would disturb each other.

    Args:
        settings: name the folder.

    Raises:
        ConfigError: the folder cannot be written, a folder in it is a link, the cache is a link to what is no cache, or
            another process holds the lock.
    """
    root = settings.root
    _refuse_links(settings)
    _refuse_folders(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = file_locks.open_lock_file(root / ".lock")
    except OSError as error:
        raise ConfigError(f"results={settings.results}: cannot be written ({error.strerror})") from error
    try:
        if not _locked(handle):
            holder = printable(os.read(handle, 100).decode(errors="replace")) or "another process"
            raise ConfigError(f"{root} is in use by {holder}: wait for it, or give this sweep a name=")
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        Store(settings.root).remove_temporary_files()
        location.mark(settings.cache)
        yield
    finally:
        os.close(handle)


def _refuse_links(settings: Settings) -> None:
    """Refuse folders below ``results`` that are links: the sweep would write, and the cache remove, where they lead."""
    cache = settings.cache
    location.check(cache)
    inner = [folder / name for folder, names in ((settings.root, FOLDERS), (cache, CACHE_FOLDERS)) for name in names]
    for path in (settings.root, settings.results / "recipes", *inner):
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link to {path.readlink()}, and a sweep writes to no folder that its command line does "
                f"not name: remove the link, or set results= to a folder on the other disk"
            )


def _refuse_folders(root: Path) -> None:
    """Refuse a folder in place of a file that every sweep writes, before anything is measured."""
    for path in (root / "config.json", root / "report.html"):
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, and a sweep writes a file of that name there: remove the folder")


def _locked(handle: int) -> bool:
    try:
        return file_locks.lock_descriptor(handle, wait=False)
    except OSError:  # a file system without locks: nothing tells whether another sweep writes here
        return False

"""Find the address at which `sweep ui` serves a store, or will serve it, so that a printed link is the one that opens.

`sweep ui` locks a file beside the store, for as long as MLflow's server lives, and writes its address into it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.report.mlflow.store_uri import is_http, sqlite_path, without_password
from sweep.system import file_locks, regular_files

if TYPE_CHECKING:
    from pathlib import Path

PORT = 5000  # that `sweep ui` takes if it is free
_TRIED = 100  # ports above it
_LOCAL = "127.0.0.1"
_ANY = ("0.0.0.0", "::", "")  # noqa: S104 - hosts of a server that serves every address
_MOST_BYTES = 200  # of an address


@dataclass(frozen=True, slots=True, kw_only=True)
class UiAddress:
    """Hold the address of MLflow's pages over a store.

    Attributes:
        url: the address.
        port: port at which `sweep ui` has to be started for it; None if it is served already.
    """

    url: str
    port: int | None = None

    @property
    def words(self) -> list[str]:
        """Return the options with which `sweep ui` serves this address."""
        return [] if self.port in {None, PORT} else ["--port", str(self.port)]


def ui_address(uri: str) -> UiAddress:
    """Return the address of MLflow's pages over the store `uri`; those of a database may have to be served yet."""
    if is_http(uri):
        return UiAddress(url=without_password(uri).rstrip("/"))
    path = sqlite_path(uri)
    served = None if path is None else _served(_lock_path(path))
    if served is not None:
        return UiAddress(url=served)
    port = free_port()
    return UiAddress(url=f"http://{_LOCAL}:{port}", port=port)


def free_port() -> int:
    """Return the port that `sweep ui` takes on this machine: 5000, or the next one that no server listens at."""
    return next((port for port in range(PORT, PORT + _TRIED) if not _is_taken(port)), PORT)


def announce(uri: str, host: str, port: int) -> None:
    """Write the address into the file beside the store, which stays locked for the life of this process.

    The lock outlives ``execve``. Nothing is written where no file can be locked, or another server holds it.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    with contextlib.suppress(OSError):
        descriptor = file_locks.lock_file(_lock_path(path), wait=False)
        if descriptor is not None:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - its only argument
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"http://{_LOCAL if host in _ANY else host}:{port}".encode(), 0)


def _lock_path(store: Path) -> Path:
    return store.with_name(f".{store.name}.ui")


def _served(path: Path) -> str | None:
    """Return the address in the locked file at `path`; None if no process holds it."""
    if not path.is_file() or path.is_symlink():
        return None
    try:
        descriptor = file_locks.lock_file(path, wait=False)
        if descriptor is not None:
            os.close(descriptor)
            return None
        text = regular_files.read_text(path, follow=False, most=_MOST_BYTES)
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.startswith("http://") and text.isprintable() else None


def _is_taken(port: int) -> bool:
    try:
        socket.create_server((_LOCAL, port)).close()
    except OSError:
        return True
    return False

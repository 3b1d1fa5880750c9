"""Write files atomically and durably."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sweep.system import regular_files


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or nothing, even after a power cut if ``durable``.

    Args:
        path: file to create or replace; its folder is created.
        content: bytes to write.
        durable: flush the file and its folder to the disk.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def move_durable(source: Path, target: Path) -> None:
    """Move a file within its file system so that a reader sees all of it or nothing, a power cut too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with regular_files.open_input(source, follow=False) as file:
        os.fsync(file.fileno())
    source.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    folder = regular_files.open_folder(path)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

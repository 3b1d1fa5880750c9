"""Write files atomically and durably.

Temporary files and folders are named ``.NAME.HOST-PID-RANDOM``: two hosts that share a folder never have one name, and
what a killed process left is removed on its own host alone, since no other host knows that the process has ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sweep.system import lock_owner, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_OWNED = re.compile(r".*\.(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+)-\w+")
_NAME_BYTES = 120  # of the file's own name in that of a temporary one; a file system takes 255 for all


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or nothing, even after a power cut if ``durable``.

    Args:
        path: file to create or replace; its folder is created.
        content: bytes to write.
        durable: flush the file and its folder to the disk.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    with open_atomic(path, durable=durable) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomic(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file in the context that becomes `path` at its end, for content that is written piece by piece.

    Args:
        path: file to create or replace; its folder is created.
        durable: flush the file and its folder to the disk.

    Raises:
        OSError: the file could not be written; the old one is untouched, as it is where the context raises.
    """
    with errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_device(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path))
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    if durable:
        _sync(path.parent)


@contextlib.contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Let an OSError name `path`, which the user knows, in place of a temporary file or, where a disk is full, none.

    Raises:
        OSError: what the block raises, with `path`.
    """
    try:
        yield
    except OSError as error:
        temporary = str(error.filename or "").startswith(str(path.parent / f".{path.name}."))
        if error.errno is None or (error.filename is not None and not temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_device(path: Path) -> None:
    """Refuse to replace a device, which a rename would remove: as root, ``/dev/null`` for every program.

    Raises:
        OSError: one lies at ``path``.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "is a device, which would be replaced", str(path))


def temporary_prefix(path: Path) -> str:
    """Return how the name of a temporary file or folder for `path` begins; random characters follow."""
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    return f".{name}.{lock_owner.host_part()}-{os.getpid()}-"


def temporary_folder(path: Path) -> Path:
    """Create a folder beside `path`, in which it is made before it gets its name."""
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix(path)))


def temporary_path(path: Path) -> Path:
    """Return the path of a temporary file beside `path` that does not exist yet."""
    return path.with_name(f"{temporary_prefix(path)}{os.urandom(4).hex()}")


def is_of_other_host(name: str) -> bool:
    """Return whether the temporary file or folder of this name was made on another host."""
    match = _OWNED.fullmatch(name)
    return match is not None and match["host"] != lock_owner.host_part()


def remove_leftover_folders(path: Path) -> None:
    """Remove the temporary folders for `path` that processes of this host left; the caller holds the lock of `path`."""
    start = f".{os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])}.{lock_owner.host_part()}-"
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for item in entries:
            if item.name.startswith(start) and item.is_dir(follow_symlinks=False):
                shutil.rmtree(item.path, ignore_errors=True)


def remove_dead_folders(folder: Path, name: str = "") -> None:
    """Remove the temporary folders that processes of this host left in a folder and have ended; no lock is needed.

    Args:
        folder: where to look.
        name: name that they were to get; empty for any.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        start = f".{os.fsdecode(os.fsencode(name)[:_NAME_BYTES])}." if name else "."
        for item in entries:
            match = _OWNED.fullmatch(item.name) if item.name.startswith(start) else None
            if match and match["host"] == lock_owner.host_part() and not psutil.pid_exists(int(match["pid"])):
                shutil.rmtree(item.path, ignore_errors=True)  # a link stays


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

"""Open files: regular ones alone, no more bytes than a bound, and links only where a user named the path.

Every file that ``sweep`` reads or writes is opened here, so that no pipe, device or endless file holds it up and no
link in a folder from elsewhere leads it to another file; ``tests/unit/system/test_regular_files.py`` holds all modules
to it.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedRandom, BufferedReader
    from pathlib import Path

MOST_BYTES = 4 << 30
"""Most bytes of a file, packed and unpacked, where its reader sets no smaller bound."""

_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # without O_NONBLOCK, opening a pipe waits for its writer
_WRITING = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_CHUNK = 1 << 20
_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


def open_input(path: Path, *, follow: bool) -> BufferedReader:
    """Open a file for reading.

    Args:
        path: file to open.
        follow: follow a link at `path`: right for a path that a user named, wrong for one below ``results``.

    Raises:
        OSError: it is no regular file, is a link and `follow` is off, or cannot be opened; ``strerror`` says which.
    """
    return os.fdopen(_opened(path, _READING | (0 if follow else os.O_NOFOLLOW)), "rb")


def open_output(path: Path, *, append: bool = False) -> BufferedRandom:
    """Open a file for writing and reading back, and create it if it is missing; a link is never followed.

    Args:
        path: file to open, in an existing folder.
        append: keep its content and write behind it; otherwise its content is removed.

    Raises:
        OSError: it is a link or no regular file, or cannot be opened; ``strerror`` says which.
    """
    descriptor = _opened(path, _WRITING | (os.O_APPEND if append else 0), 0o666)
    if not append:
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "a+b" if append else "w+b")


def open_update(path: Path) -> BufferedRandom:
    """Open an existing file for reading and writing at any place; a link is never followed.

    Raises:
        OSError: it is missing, a link or no regular file, or cannot be opened; ``strerror`` says which.
    """
    return os.fdopen(_opened(path, _WRITING & ~os.O_CREAT), "r+b")


def open_lock(path: Path) -> int:
    """Open a lock file that only this user may access, and create it if it is missing; a link is never followed.

    Returns:
        Its descriptor, for reading and writing.

    Raises:
        OSError: it is a link or no regular file, or cannot be opened; ``strerror`` says which.
    """
    return _opened(path, _WRITING, 0o600)


def open_new(path: Path) -> int:
    """Create a file that only this user may access; of several processes that try, on any host, one succeeds.

    Returns:
        Its descriptor, for reading and writing.

    Raises:
        FileExistsError: something of that name is there.
        OSError: the file cannot be created.
    """
    return _opened(path, _WRITING | os.O_EXCL, 0o600)


def open_folder(path: Path) -> int:
    """Open a folder, to lock it or to flush its entries, and return its descriptor.

    Raises:
        OSError: it is no folder, or cannot be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)


def read_bytes(path: Path, *, follow: bool, most: int = MOST_BYTES) -> bytes:
    """Return the content of a file.

    Args:
        path: file to read.
        follow: follow a link at `path` (see ``open_input``).
        most: most bytes that it may have.

    Raises:
        OSError: as ``open_input``, or the file is longer than `most`.
    """
    with open_input(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        content = [file.read(size + 1)] if size <= most else [b""]
        while content[-1] and size <= most:  # until its end: it may grow, and the files of /proc state a size of 0
            content.append(file.read(_CHUNK))
            size = max(size, sum(map(len, content)))
    if size > most:
        raise OSError(errno.EFBIG, f"is longer than {most} bytes", str(path))
    return b"".join(content)


def read_text(path: Path, *, follow: bool, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """Return the content of a UTF-8 file, with the line ends of text files; see ``read_bytes``.

    Raises:
        OSError: as ``read_bytes``.
        UnicodeDecodeError: it is no UTF-8, and `errors` is ``strict``.
    """
    text = read_bytes(path, follow=follow, most=most).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_size(file: BufferedReader, most: int = MOST_BYTES) -> None:
    """Refuse a file of more than `most` bytes, and a zip archive, such as an .npz, that unpacks to more.

    Args:
        file: the open file, at its start, where it is left.
        most: most bytes.

    Raises:
        ValueError: it is too large; with its size.
    """
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise ValueError(f"it is {size} bytes long, of at most {most}")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            size = sum(item.file_size for item in packed.infolist())
        if size > most:
            raise ValueError(f"it unpacks to {size} bytes, of at most {most}")
    file.seek(0)


def _opened(path: Path, flags: int, mode: int = 0) -> int:
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "is a link, which is not followed here", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket, or a pipe without a reader
            raise OSError(errno.ENXIO, "is a pipe or a socket, not a regular file", str(path)) from error
        raise
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        os.set_blocking(descriptor, True)
        return descriptor
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, f"is a {_KINDS.get(kind, 'special file')}, not a regular file", str(path))

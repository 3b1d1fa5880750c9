"""Read the files of ``model.samples``: an .npz, an .npy, or a folder of them, without looking at a network.

Sizes and types come from the headers, so that a file of any size is refused before it is read.
"""

from __future__ import annotations

import hashlib
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import ModelError
from sweep.models.datasets import numpy_files
from sweep.spec import SampleData
from sweep.system import array_files, regular_files

KEY = "model.samples"
MOST_BYTES = 4 << 30
"""Largest size of all arrays together; they are held in memory."""

_KINDS = "an .npz with an array per input, an .npy for a network of one input, or a folder of them"
_ENDINGS = (".npz", ".npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFile:
    """Hold one file.

    Attributes:
        name: of the file, without its folder.
        arrays: headers or arrays by name; the only array of an .npy is called "".
    """

    name: str
    arrays: dict[str, Any]

    @property
    def stem(self) -> str:
        """Return the name without its ending."""
        return Path(self.name).stem


def parse_samples(text: str) -> SampleData:
    """Parse ``model.samples=text`` and compute the digest of the content that it names.

    Raises:
        ModelError: there is no such file or folder, or it is of no known kind.
    """
    path = Path(text).expanduser().resolve()
    data = of_path(str(path))
    if path.exists() and data.kind not in {"folder", "npz", "npy"}:
        raise ModelError(f"{KEY}={text}: ends neither in .npz nor .npy; give {_KINDS}")
    try:
        return of_path(str(path), content(data))
    except OSError as error:
        raise ModelError(f"{KEY}={text}: {error.strerror or error}: give {_KINDS}") from error


def of_path(path: str, digest: str | None = None) -> SampleData:
    """Return the samples in a file or folder, whose ending names the kind."""
    kind = "folder" if Path(path).is_dir() else Path(path).suffix.lower().lstrip(".")
    return SampleData(kind=kind, path=path, digest=digest)


def content(data: SampleData) -> str:
    """Compute the SHA-256 of a file; of a folder, that of each file with its name, which decides the order."""
    lines = []
    for file in _files(data):
        with regular_files.open_input(file, follow=True) as opened:
            name = file.name if data.kind == "folder" else ""
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {name}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files(data: SampleData) -> list[Path]:
    """List the files in their order: by name."""
    root = Path(data.source)
    files = [root]
    if data.kind == "folder":
        files = sorted(
            item for item in root.iterdir() if item.suffix.lower() in _ENDINGS and not item.name.startswith(".")
        )
        if not files:
            raise ModelError(f"{KEY}={root}: no {' or '.join(_ENDINGS)} in that folder; give {_KINDS}")
    size = 0
    for file in files:
        status = file.stat()
        size += status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{KEY}={file}: is a pipe, socket or device, not a file; give {_KINDS}")
        if not status.st_size:
            raise ModelError(f"{KEY}={file}: is empty (0 bytes); save it again with numpy.savez")
    _refuse_large(data, size)
    return files


def _refuse_large(data: SampleData, size: int) -> None:
    if size > MOST_BYTES:
        raise ModelError(
            f"{KEY}={data.source}: holds {size / (1 << 30):.1f} GiB, and {MOST_BYTES >> 30} GiB at most are read into "
            "memory; save fewer samples"
        )


def headers(data: SampleData) -> list[SampleFile]:
    """Return the shape and type of every array of every file, in the order of the files.

    Raises:
        ModelError: a file cannot be read, holds Python objects, or all together are too large.
    """
    read: list[SampleFile] = []
    for file in _files(data):
        try:
            read.append(SampleFile(name=file.name, arrays=_headers(file)))
        except numpy_files.UNREADABLE as error:
            raise _unreadable(file, error) from error
    _refuse_large(data, sum(item.nbytes for file in read for item in file.arrays.values()))
    return read


def arrays(data: SampleData) -> list[SampleFile]:
    """Read every array of every file, in the order of the files.

    Raises:
        ModelError: a file cannot be read, or has changed since it was planned.
    """
    headers(data)
    read = []
    for file in _files(data):
        try:
            read.append(SampleFile(name=file.name, arrays=numpy_files.read_arrays(file)))
        except numpy_files.UNREADABLE as error:
            raise _unreadable(file, error) from error
    if content(data) != data.digest:
        raise ModelError(f"{KEY}={data.source}: has changed since it was planned; start the sweep again")
    return read


def _headers(file: Path) -> dict[str, array_files.Header]:
    with array_files.open_arrays(file, follow=True, most=sys.maxsize) as opened:
        if "" in opened.names and file.suffix.lower() == ".npz":
            raise ValueError("it is no .npz, or was cut off: copy or save it again")
        return {name: opened.header(name) for name in opened.names}


def _unreadable(file: Path, error: BaseException) -> ModelError:
    text = " ".join(str(error).split()) or type(error).__name__
    return ModelError(f"{KEY}={file} cannot be read: {text}")

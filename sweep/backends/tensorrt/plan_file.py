"""Read the header of a plan that was built elsewhere, and its content, without any library.

The first four bytes name the kind of file: ``ftrt`` is TensorRT's, ``vtrt`` is TensorRT-RTX's. Bytes 24 to 27 are the
version of the library. TensorRT-RTX has the size of the whole file in bytes 16 to 23.

Source:
    ``printPlanVersion`` in samples/common/sampleEngines.cpp of TensorRT has the tag ``ftrt`` and the version. The tag
    ``vtrt`` and the size were seen in plans of TensorRT-RTX 1.4, 1.6 and 1.7.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from sweep.errors import ModelError, SessionError
from sweep.spec import BuiltPlan
from sweep.system import regular_files

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 1 << 40
"""Most bytes of a plan, which holds all weights."""

_LIBRARIES = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_HEADER = 28  # bytes that are read of it
_SIZE, _VERSION = slice(16, 24), slice(24, 28)
_LENGTH = 4  # bytes of the length of Ultralytics' metadata, which stands in front of its engines
_MOST_METADATA = 1 << 20  # bytes
_LFS_POINTER = b"version https://git-lfs"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Hold what the start of a file tells.

    Attributes:
        offset: bytes in front of the plan.
        library: library that built it.
        version: its version; None if the bytes hold none.
    """

    offset: int
    library: str
    version: str | None


def read(path: Path) -> BuiltPlan:
    """Return what identifies the plan in a file.

    Args:
        path: the file.

    Raises:
        ModelError: it is no plan, or cannot be read; one line.
    """
    _check_kind(path)
    try:
        header = _header(path)
        with regular_files.open_input(path, follow=True) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
    return BuiltPlan(path=str(path), digest=digest, library=header.library, version=header.version)


def content(path: Path, digest: str) -> bytes:
    """Return the plan itself, without what stands in front of it.

    Args:
        path: the file.
        digest: sha256 that the file had when it was planned.

    Raises:
        SessionError: the file is gone, or another one.
    """
    try:
        data = regular_files.read_bytes(path, follow=True, most=MOST_BYTES)
    except OSError as error:
        raise SessionError(f"{path}: {error.strerror or error}; start the sweep again where the plan is") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise SessionError(f"{path} has changed since it was planned; start the sweep again")
    return data[_header(path).offset :]


def _check_kind(path: Path) -> None:
    """Refuse what cannot be read to its end, before it is opened: a pipe would wait for ever."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"model.engine={path} is a folder; give the plan in it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"model.engine={path} is a pipe, socket or device, not a file; give a plan")
    if not status.st_size:
        raise ModelError(f"model.engine={path} is empty (0 bytes); copy or build the plan again")
    memory = psutil.virtual_memory().total
    if status.st_size > memory:
        raise ModelError(
            f"model.engine={path} has {status.st_size / _GIB:,.1f} GiB, and a plan is loaded whole into the "
            f"{memory / _GIB:,.1f} GiB of this machine; take a machine with more memory"
        )


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"model.engine={path}: {error.strerror or error}; give the path of a plan")


def _header(path: Path) -> Header:
    """Read the header at the start of the file, or after the metadata of Ultralytics."""
    size = path.stat().st_size
    with regular_files.open_input(path, follow=True) as file:
        start = file.read(len(_LFS_POINTER))
        offset = 0 if start[:4] in _LIBRARIES else _metadata_bytes(start)
        file.seek(offset)
        raw = file.read(_HEADER)
    library = _LIBRARIES.get(raw[:4])
    if library is None:
        raise ModelError(_no_plan(path, start))
    if len(raw) < _HEADER:
        raise ModelError(f"model.engine={path} is cut off after {size} bytes; copy or build the plan again")
    stated = int.from_bytes(raw[_SIZE], "little")
    if library == "tensorrt_rtx" and stated > size - offset:
        raise ModelError(
            f"model.engine={path} is cut off: its header tells of {stated} bytes and {size - offset} are there; "
            "copy or build the plan again"
        )
    version = ".".join(map(str, raw[_VERSION]))
    return Header(offset=offset, library=library, version=version if raw[_VERSION.start] else None)


def _metadata_bytes(start: bytes) -> int:
    """Return the bytes of the metadata in front of a plan: their length, then JSON; 0 if there are none."""
    length = int.from_bytes(start[:_LENGTH], "little")
    has_json = start[_LENGTH : _LENGTH + 1] == b"{"
    return _LENGTH + length if has_json and length <= _MOST_METADATA else 0


def _no_plan(path: Path, start: bytes) -> str:
    if start == _LFS_POINTER:
        return f"model.engine={path} is a Git LFS pointer, not the plan itself; run `git lfs pull`"
    if path.suffix == ".onnx" or _is_onnx(start):
        return f"model.engine={path} is an ONNX file, which is no plan yet; model.path={path} builds an engine of it"
    return (
        f"model.engine={path} is no plan of TensorRT or TensorRT-RTX: it starts with {start[:4]!r}, and theirs with "
        "ftrt or vtrt; give what trtexec --saveEngine wrote"
    )


def _is_onnx(start: bytes) -> bool:
    """Tell whether a file starts as an ONNX model does: the IR version, then the name of its producer."""
    return len(start) > 2 and start[0] == 0x08 and 0 < start[1] < 0x20 and start[2] in b"\x12\x1a\x22\x3a\x42"  # noqa: PLR2004 - bytes of protobuf fields

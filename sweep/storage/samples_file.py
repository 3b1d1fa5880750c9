"""Write samples to .npz files and read them back."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import RecordError
from sweep.storage.samples import ARRAYS, OPTIONAL_ARRAYS, PointSamples
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, RecursionError, NotImplementedError, AttributeError),
)
_MOST_BYTES = 4 << 30  # 60 million requests


def save(path: Path, points: list[PointSamples], *, durable: bool = True) -> None:
    """Write the points to one compressed npz, atomically; where ``durable``, to outlast a power cut."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_packed(points))
    write_atomic(path, buffer.getvalue(), durable=durable)


def hand_over(path: Path, points: list[PointSamples]) -> None:
    """Write the points for a reader that waits for them: quickly, and not to last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **_packed(points))


def handed_over(path: Path, clients: int) -> list[Path]:
    """Where each client of a job, whose samples go to ``path``, hands its own over."""
    return [path.with_name(f"{path.name}.client{number}") for number in range(clients)]


def _packed(points: list[PointSamples]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    heads = []
    for number, point in enumerate(points):
        heads.append({name: getattr(point, name) for name in _head_fields()})
        for name in (*ARRAYS, *OPTIONAL_ARRAYS):
            if getattr(point, name) is not None:
                arrays[f"{number}/{name}"] = getattr(point, name)
    arrays["points"] = np.frombuffer(json.dumps(heads).encode(), dtype=np.uint8)
    return arrays


def load(path: Path) -> list[PointSamples]:
    """The points of one npz, in the order they were saved.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            heads = json.loads(file["points"].tobytes())
            return [
                PointSamples(**head, **{name: file[f"{number}/{name}"] for name in ARRAYS}, **_optional(file, number))
                for number, head in enumerate(heads)
            ]
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The npz, once it is seen that it unpacks to what samples may take; nothing in it is ever unpickled."""
    with zipfile.ZipFile(path) as packed:
        size = sum(item.file_size for item in packed.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, of at most {_MOST_BYTES}")
    with np.load(path, allow_pickle=False) as file:
        yield file


def asked(path: Path, slo: str) -> bool:
    """Whether any point of the npz was measured for ``slo``; only the heads are read.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            return any(head.get("asked") == slo for head in json.loads(file["points"].tobytes()))
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


def _head_fields() -> tuple[str, ...]:
    return tuple(name for name in PointSamples.__slots__ if name not in {*ARRAYS, *OPTIONAL_ARRAYS})


def _optional(file: Any, number: int) -> dict[str, Any]:
    return {name: file[f"{number}/{name}"] for name in OPTIONAL_ARRAYS if f"{number}/{name}" in file}

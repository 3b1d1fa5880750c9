"""Write samples to .npz files and read them back."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec
import numpy as np

from sweep.errors import RecordError
from sweep.storage.record_types import Count, GpuState, Rate  # noqa: TC001 - msgspec reads them at run time
from sweep.storage.samples import ARRAYS, OPTIONAL_ARRAYS, PointSamples
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, RecursionError, NotImplementedError, AttributeError),
)
_MAX_BYTES = 4 << 30  # 60 million requests


class _Head(TypedDict):
    """What a file holds of a point beside its arrays, as ``PointSamples``."""

    kind: str
    index: int
    repeat: int
    batch: int
    offered_rps: Rate | None
    overloaded: bool
    complete: bool
    gathers: NotRequired[Count | None]
    origin_ns: NotRequired[int | None]
    telemetry: NotRequired[GpuState | None]
    stretch: NotRequired[int | None]
    asked: NotRequired[str | None]


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
    """Return the file in which each client of a job, whose samples go to ``path``, hands its own over."""
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
    """Read the points of one npz, in the order they were saved.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            return [PointSamples(**head, **_arrays(file, number)) for number, head in enumerate(_heads(file))]
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the npz once its unpacked size is seen to be that of samples; nothing in it is ever unpickled."""
    with zipfile.ZipFile(path) as packed:
        size = sum(item.file_size for item in packed.infolist())
    if size > _MAX_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, of at most {_MAX_BYTES}")
    with np.load(path, allow_pickle=False) as file:
        yield file


def asked(path: Path, slo: str) -> bool:
    """Tell whether any point of the npz was measured for ``slo``, as ``p99<=10``; only the heads are read.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            return any(head.get("asked") == slo for head in _heads(file))
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


def _head_fields() -> tuple[str, ...]:
    return tuple(name for name in PointSamples.__slots__ if name not in {*ARRAYS, *OPTIONAL_ARRAYS})


def _heads(file: Any) -> list[_Head]:
    return msgspec.convert(json.loads(file["points"].tobytes()), list[_Head])


def _arrays(file: Any, number: int) -> dict[str, np.ndarray]:
    """Return the arrays of one point: of numbers, one entry a request each."""
    names = [*ARRAYS, *(name for name in OPTIONAL_ARRAYS if f"{number}/{name}" in file)]
    arrays = {name: file[f"{number}/{name}"] for name in names}
    shape = arrays[ARRAYS[0]].shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != shape or array.dtype.kind not in "biuf":
            raise ValueError(f"{number}/{name} is {array.dtype} of shape {array.shape}")
    return arrays

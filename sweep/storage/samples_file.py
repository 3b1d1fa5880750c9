"""Write samples to .npz files and read them back.

The worker writes the samples of a pass once. Of a variant with a single pass that file becomes the variant's own;
several passes, and a search of the capacity, are merged into one.
"""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec
import numpy as np

from sweep.errors import RecordError
from sweep.storage.record_types import Count, CpuLoad, GpuState, Rate
from sweep.storage.samples import ARRAYS, OPTIONAL_ARRAYS, STAGES, PointSamples
from sweep.system import array_files, move_durable, open_atomic, regular_files

if TYPE_CHECKING:
    from pathlib import Path

_DAMAGES = (OSError, ValueError, KeyError, TypeError, MemoryError, RecursionError)
_MAX_BYTES = 8 << 30  # 10 minutes at 200,000 requests/s take 5.3 GB
_COMPRESSION = 1  # a quarter of the time of zlib's default, for files that are 2% larger
_ADDED = ("stretch", "telemetry", "cpu_load")  # of ``PointSamples``: what the process that measured does not know


class _Head(TypedDict):
    """Type the fields of ``PointSamples`` that a file stores as JSON beside the arrays."""

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
    cpu_load: NotRequired[CpuLoad | None]
    stretch: NotRequired[int | None]
    asked: NotRequired[str | None]


def save(path: Path, points: list[PointSamples], *, durable: bool = True) -> None:
    """Write the points to one compressed npz, atomically and array by array: no second copy of them is in memory.

    Args:
        path: file to create or replace.
        points: samples of all points, in measured order.
        durable: flush the file to the disk, so that it survives a power cut.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    with (
        open_atomic(path, durable=durable) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as packed,
    ):
        for name, array in _packed(points).items():
            with packed.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)


def complete(path: Path, points: list[PointSamples], target: Path) -> None:
    """Move a file durably to `target`, with what was added to its points since it was written.

    The arrays are not written again: the member ``added`` is appended, which ``load`` lays over the points' heads.
    """
    added = [{name: getattr(point, name) for name in _ADDED} for point in points]
    with (
        regular_files.open_update(path) as file,
        zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as packed,
        packed.open("added.npy", "w") as member,
    ):
        np.lib.format.write_array(member, _json_array(added))
    move_durable(path, target)


def save_uncompressed(path: Path, points: list[PointSamples]) -> None:
    """Write the points to one npz quickly, for a reader that waits for them; neither compressed nor durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with regular_files.open_output(path) as file:
        np.savez(file, **_packed(points))


def client_paths(path: Path, clients: int) -> list[Path]:
    """Return the file in which each client, by number, passes on its samples of a job that writes to ``path``."""
    return [path.with_name(f"{path.name}.client{number}") for number in range(clients)]


def windows_path(path: Path) -> Path:
    """Return the file that tells networks beside the measured one which windows it had, and so to stop."""
    return path.with_name(f"{path.name}.windows")


def _packed(points: list[PointSamples]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    heads = []
    for number, point in enumerate(points):
        heads.append({name: getattr(point, name) for name in _head_fields()})
        for name in (*ARRAYS, *OPTIONAL_ARRAYS):
            if getattr(point, name) is not None:
                arrays[f"{number}/{name}"] = getattr(point, name)
    arrays["points"] = _json_array(heads)
    return arrays


def _json_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def load(path: Path) -> list[PointSamples]:
    """Read the points of one npz, in the order they were saved.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with array_files.open_arrays(path, follow=False, most=_MAX_BYTES) as file:
            return [PointSamples(**head, **_arrays(file, number)) for number, head in enumerate(_heads(file))]
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


def was_measured_for(path: Path, slo: str) -> bool:
    """Return whether any point of the npz was measured for an SLO; no array is read.

    Args:
        path: file that ``save`` wrote.
        slo: tag of the SLO, such as ``p99<=10``.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with array_files.open_arrays(path, follow=False, most=_MAX_BYTES) as file:
            return any(head.get("asked") == slo for head in _heads(file))
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


def _head_fields() -> tuple[str, ...]:
    return tuple(name for name in PointSamples.__slots__ if name not in {*ARRAYS, *OPTIONAL_ARRAYS})


def _heads(file: Any) -> list[_Head]:
    heads = json.loads(file["points"].tobytes())
    if "added" in file:
        heads = [head | added for head, added in zip(heads, json.loads(file["added"].tobytes()), strict=True)]
    return msgspec.convert(heads, list[_Head])


def _arrays(file: Any, number: int) -> dict[str, np.ndarray]:
    """Return the arrays of one point, each of shape (requests,), that of the stages of shape (requests, stages).

    Raises:
        ValueError: an array has another shape or does not hold numbers.
    """
    names = [*ARRAYS, *(name for name in OPTIONAL_ARRAYS if f"{number}/{name}" in file)]
    arrays = {name: file[f"{number}/{name}"] for name in names}
    shape = arrays[ARRAYS[0]].shape
    for name, array in arrays.items():
        if array.ndim != (1 if name != STAGES else 2) or array.shape[:1] != shape or array.dtype.kind not in "biuf":
            raise ValueError(f"{number}/{name} is {array.dtype} of shape {array.shape}")
    return arrays

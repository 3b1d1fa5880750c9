"""Read a user's own calibration samples, check them, and cut them into batches.

Samples are the inputs of the network by name, of its own dtype. Images and token ids have loaders, for whom a folder of
pictures or a file of ids is all there is.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import ConfigError, ConversionError
from sweep.models.datasets import images, input_samples, numpy_files, user_arrays
from sweep.spec import CalibrationData
from sweep.system import regular_files, user_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.models.datasets.user_arrays import Arrays
    from sweep.models.signatures import Signature, TensorSpec

SAMPLES = 8
"""In each calibration batch."""

KEY = "model.calibration"
_KINDS = "an .npz, a folder of .npy, images:FOLDER, tokens:FILE or package.module:function"


def parse(text: str) -> CalibrationData:
    """Parse ``model.calibration=text`` and compute the digest of the content that it names.

    Raises:
        ConfigError: there is no such file, folder or function, or it is of no known kind.
    """
    kind, _, rest = text.partition(":")
    if kind in {"images", "tokens"} and rest:
        return _files(text, kind, Path(rest))
    path = Path(text)
    if not path.exists() and user_code.is_named(text):
        return CalibrationData(kind="function", name=text, digest=user_code.digest(KEY, text))
    return _files(text, "npy" if path.is_dir() else "npz", path)


def _files(text: str, kind: str, source: Path) -> CalibrationData:
    path = source.expanduser().resolve()
    try:
        files = _list_files(path, kind)
        lines = [f"{_sha256(file)}  {file.name}" for file in files]
    except OSError as error:
        raise ConfigError(f"{KEY}={text}: {error.strerror}: give {_KINDS}") from error
    if not files:
        endings = ", ".join(images.PICTURES) if kind == "images" else ".npy"
        raise ConfigError(f"{KEY}={text}: no {endings} in that folder")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return CalibrationData(kind=kind, path=str(path), digest=digest)


def _sha256(path: Path) -> str:
    with regular_files.open_input(path, follow=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list_files(path: Path, kind: str) -> list[Path]:
    """List the files that a loader reads, in their order."""
    if kind in {"npz", "tokens"}:
        return [path]
    endings = images.PICTURES if kind == "images" else (".npy",)
    return sorted(item for item in path.iterdir() if item.suffix.lower() in endings)


def check(data: CalibrationData, signature: Signature, count: int) -> None:
    """Read files and check them against the network's inputs; a function is left to the worker.

    Raises:
        ConfigError: names, dtypes, shapes or values are not such that the network could be fed; one line.
    """
    if data.kind == "function":
        return
    try:
        next(batches(data, signature, count))
    except ConversionError as error:
        raise ConfigError(str(error)) from error


def batches(data: CalibrationData, signature: Signature, count: int, size: int = SAMPLES) -> Iterator[Arrays]:
    """Return the first ``count`` x 8 samples of files in batches, or the first ``count`` batches of a function.

    Args:
        data: the user's samples.
        signature: the network's inputs.
        count: batches of 8 samples, at most.
        size: samples in a batch of files. For another size than 8 every batch is full, since the network takes no
            other: what is left over at the end is dropped, and fewer samples than one batch are repeated.

    Raises:
        ConversionError: names, dtypes, shapes or values are not such that the network could be fed; one line.
    """
    if data.kind == "function":
        yield from itertools.islice(_called(data, signature), count)
        return
    limit = count * SAMPLES
    try:
        readers = {"npz": _npz, "npy": _npy, "images": _images, "tokens": _tokens, "samples": _samples}
        read = readers[data.kind](data, signature, limit)
    except numpy_files.UNREADABLE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConversionError(f"{KEY}={data.source} cannot be read: {text}") from error
    _refuse(data, read, signature)
    yield from _cut(read, signature, size, limit)


def _called(data: CalibrationData, signature: Signature) -> Iterator[Arrays]:
    for number, batch in enumerate(user_code.batches(KEY, data.source, data.digest)):
        if not isinstance(batch, dict):
            raise ConversionError(
                f"{KEY}={data.source}: batch {number} is a {type(batch).__name__}, not a dict of arrays by input"
            )
        values = {str(name): np.asarray(value) for name, value in batch.items()}
        _refuse(data, values, signature)
        yield values


def _npz(data: CalibrationData, signature: Signature, limit: int) -> Arrays:
    del signature, limit
    return numpy_files.read_npz(Path(data.source), "arrays by input name")


def _samples(data: CalibrationData, signature: Signature, limit: int) -> Arrays:
    del limit
    return input_samples.calibration_arrays(data, signature)


def _npy(data: CalibrationData, signature: Signature, limit: int) -> Arrays:
    """Read a file for each input by its name; for a network of one input any number of files of samples or batches."""
    files = _list_files(Path(data.source), "npy")
    names = {spec.name for spec in signature.inputs}
    if len(names) > 1 or {file.stem for file in files} & names:
        return {file.stem: _array(file) for file in files}
    (spec,) = signature.inputs
    arrays = [_array(file) for file in files[:limit]]
    rank = len(spec.shape)
    if spec.batch_axis is None:
        return {spec.name: np.stack(arrays)}
    grown = [np.expand_dims(item, spec.batch_axis) if item.ndim == rank - 1 else item for item in arrays]
    return {spec.name: np.concatenate(grown, axis=spec.batch_axis)}


def _array(path: Path) -> np.ndarray:
    arrays = numpy_files.read_arrays(path)
    if "" not in arrays:
        raise ValueError(f"{path.name} is an .npz and not an .npy")
    return arrays[""]


def _images(data: CalibrationData, signature: Signature, limit: int) -> Arrays:
    return images.pictures(_list_files(Path(data.source), "images")[:limit], images.frame(signature))


def _tokens(data: CalibrationData, signature: Signature, limit: int) -> Arrays:
    """Read a sequence of ids a line, cut or padded with 0; the mask is 1 where there are ids, other inputs are 0."""
    text = regular_files.read_text(Path(data.source), follow=True)
    lines = [line.split() for line in text.splitlines() if line.strip()]
    sequences = [[int(word) for word in line] for line in lines[:limit]]
    kinds = {spec.name: _token_kind(spec, len(signature.inputs)) for spec in signature.inputs}
    if not sequences or list(kinds.values()).count("ids") != 1:
        raise ValueError(
            "tokens are lines of ids for a network with integer inputs [batch,length], one of them the ids; "
            f"found {len(sequences)} lines and inputs {', '.join(f'{name} {kind}' for name, kind in kinds.items())}"
        )
    _refuse_large_ids(sequences, signature)
    made = {}
    for spec in signature.inputs:
        length = int(spec.shape[1])
        rows = np.zeros((len(sequences), length), spec.dtype)
        for row, sequence in zip(rows, sequences, strict=True):
            kept = sequence[:length]
            if kinds[spec.name] != "rest":
                row[: len(kept)] = 1 if kinds[spec.name] == "mask" else kept
        made[spec.name] = rows
    return made


def _refuse_large_ids(sequences: list[list[int]], signature: Signature) -> None:
    """Raise an error on an id that the inputs' types cannot hold."""
    bounds = [np.iinfo(spec.dtype) for spec in signature.inputs]
    least, most = max(bound.min for bound in bounds), min(bound.max for bound in bounds)
    for number, sequence in enumerate(sequences, 1):
        if sequence and not least <= min(sequence) <= max(sequence) <= most:
            raise ValueError(f"sequence {number} holds an id below {least} or above {most}, which no input can take")


def _token_kind(spec: TensorSpec, count: int) -> str:
    """Tell ids, mask or rest by the input's name; refuse an input that is no row of integers a sample."""
    if spec.is_float or spec.batch_axis != 0 or len(spec.shape) != 2:  # noqa: PLR2004 - (batch, length)
        return "odd"
    name = spec.name.lower()
    if "mask" in name:
        return "mask"
    return "ids" if count == 1 or ("ids" in name and "type" not in name and "position" not in name) else "rest"


def _refuse(data: CalibrationData, arrays: Arrays, signature: Signature) -> None:
    """Raise an error on the first thing that keeps the network from being fed with these arrays."""
    fault = user_arrays.fault(arrays, signature)
    if fault:
        raise ConversionError(f"{KEY}={data.source}: {fault}")


def _cut(arrays: Arrays, signature: Signature, size: int, limit: int) -> Iterator[Arrays]:
    """Cut batches, the last of what is left; a network without a batch axis takes one sample at a time."""
    counts = [user_arrays.samples(spec, arrays[spec.name]) for spec in signature.inputs]
    total = next((count for count in counts if count is not None), 1)
    batched = any(spec.batch_axis is not None for spec in signature.inputs)
    if not batched:
        total, size = min(total, limit // SAMPLES), 1
    elif size != SAMPLES:
        total = max(min(total, limit) // size, 1) * size
    for start in range(0, min(total, max(limit, size)), size):
        yield {spec.name: _part(spec, arrays[spec.name], slice(start, start + size)) for spec in signature.inputs}


def _part(spec: TensorSpec, value: np.ndarray, rows: slice) -> np.ndarray:
    if spec.batch_axis is not None:
        part = value[(slice(None),) * spec.batch_axis + (rows,)]
        if part.shape[spec.batch_axis] < rows.stop - rows.start != SAMPLES:
            part = np.take(value, range(rows.start, rows.stop), axis=spec.batch_axis, mode="wrap")
        return np.ascontiguousarray(part)
    return value[rows.start] if value.ndim > len(spec.shape) else value

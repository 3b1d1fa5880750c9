"""Cut a user's own inputs into the batches that a network takes: for timing, comparison and calibration."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import ModelError
from sweep.models.datasets import sample_files, user_arrays
from sweep.models.datasets.sample_files import KEY, SampleFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.models.datasets.user_arrays import Arrays
    from sweep.models.signatures import Signature, TensorSpec
    from sweep.spec import CalibrationData, SampleData
    from sweep.system import array_files

APART_FROM = 16
"""Number of samples from which the first half is set apart for calibration: a guard reads 16, and eight say little."""


class InputSamples:
    """Hold a user's own inputs for one network.

    Args:
        data: the samples.
        signature: of the network.

    Attributes:
        count: number of samples; whole inputs for a network without a batch axis.

    Raises:
        ModelError: the files cannot be read, or the network cannot be fed with them; one line.
    """

    def __init__(self, data: SampleData, signature: Signature) -> None:
        self._network = signature
        self._batched = any(spec.batch_axis is not None for spec in signature.inputs)
        self._arrays = _arranged(data, signature)
        counts = (user_arrays.samples(spec, self._arrays[spec.name]) for spec in signature.inputs)
        self.count = next((count for count in counts if count is not None), 1)

    def size(self, batch: int) -> int:
        """Return the samples that one inference takes at a requested ``batch``."""
        return batch if self._batched else 1

    def feeds(self, batch: int, start: int, first: int = 0) -> Arrays:
        """Return the inputs of one inference, C-contiguous.

        Args:
            batch: samples in the batch axis.
            start: number of its first sample, counted from `first`; the last sample is followed by the one at `first`.
            first: number of the first sample to take; those before it are left out.
        """
        numbers = first + np.arange(start, start + self.size(batch)) % (self.count - first)
        return {spec.name: self._rows(spec, numbers) for spec in self._network.inputs}

    def up_to(self, count: int | None) -> Arrays:
        """Return the first ``count`` samples, or all, in one array per input, the samples along the batch axis."""
        return {
            spec.name: self._arrays[spec.name][(slice(None),) * (spec.batch_axis or 0) + (slice(count),)]
            if user_arrays.samples(spec, self._arrays[spec.name]) is not None
            else self._arrays[spec.name]
            for spec in self._network.inputs
        }

    def _rows(self, spec: TensorSpec, numbers: np.ndarray) -> np.ndarray:
        value = self._arrays[spec.name]
        if spec.batch_axis is not None:
            return np.asarray(value.take(numbers, axis=spec.batch_axis), order="C")
        return np.asarray(value[numbers[0]] if value.ndim > len(spec.shape) else value, order="C")


@functools.lru_cache(maxsize=1)  # a variant asks several times, and the arrays may take gigabytes
def load(data: SampleData, signature: Signature) -> InputSamples:
    """Return the samples for a network; the last ones are kept in memory.

    Raises:
        ModelError: as ``InputSamples``.
    """
    return InputSamples(data, signature)


def shapes(files: Sequence[SampleFile], names: Sequence[str]) -> dict[str, array_files.Header]:
    """Return the header of one file's array per input: what the files say of sizes that a network leaves open.

    Raises:
        ModelError: no file has them.
    """
    return dict(_named(files, names)[0].arrays)


def _arranged(data: SampleData, signature: Signature) -> Arrays:
    """Return one array per input, the samples along its batch axis, or along a new first axis where it has none."""
    files = _named(sample_files.arrays(data), [spec.name for spec in signature.inputs])
    parts: dict[str, list[np.ndarray]] = {spec.name: [] for spec in signature.inputs}
    group = _group(signature)
    for file in files:
        place = data.source if len(files) == 1 else f"{data.source}/{file.name}"
        labels = " (labels belong to model.labels=FILE)" if "labels" in file.arrays and "labels" not in parts else ""
        if set(file.arrays) != set(parts):
            held, wanted = ", ".join(sorted(file.arrays)) or "nothing", ", ".join(parts)
            raise ModelError(f"{KEY}={place}: holds {held}, but the network takes {wanted}: name them so{labels}")
        fitted = {spec.name: _fit(place, spec, file.arrays[spec.name], group) for spec in signature.inputs}
        if group is not None:
            _share_single(fitted, signature)
        fault = user_arrays.fault(fitted, signature) or _spread(fitted, signature)
        if fault:
            raise ModelError(f"{KEY}={place}: {fault}")
        for name, value in fitted.items():
            parts[name].append(value)
    joined = {spec.name: _joined(data, spec, parts[spec.name], signature) for spec in signature.inputs}
    fault = user_arrays.fault(joined, signature) if len(files) > 1 else None
    if fault:
        raise ModelError(f"{KEY}={data.source}: {fault}")
    return joined


def _named(files: Sequence[SampleFile], names: Sequence[str]) -> list[SampleFile]:
    """Name the arrays after the inputs, where a file does not: an .npy, and any one array for the only input.

    A folder with an .npy of each input's name is one file of all inputs.
    """
    if all(set(file.arrays) == {""} for file in files) and {file.stem for file in files} == set(names):
        return [SampleFile(name="", arrays={file.stem: file.arrays[""] for file in files})]
    if len(names) > 1:
        for file in files:
            if set(file.arrays) == {""}:
                raise ModelError(
                    f"{KEY}: {file.name} holds one array, but the network takes {', '.join(names)}: save an .npz with "
                    "an array for each"
                )
        return list(files)
    return [
        SampleFile(name=file.name, arrays=dict(zip(names, file.arrays.values(), strict=True)))
        if len(file.arrays) == 1
        else file
        for file in files
    ]


def _group(signature: Signature) -> int | None:
    """Return the samples of an inference of a network that has no batch axis, but one first size in all inputs."""
    if any(spec.batch_axis is not None for spec in signature.inputs):
        return None
    sizes = {int(spec.shape[0]) for spec in signature.inputs if spec.shape}
    return sizes.pop() if len(sizes) == 1 else None


def _fit(place: str, spec: TensorSpec, raw: np.ndarray, group: int | None) -> np.ndarray:
    """Return an array of the input's type, with its samples along the batch axis, where it can be had without loss.

    What does not fit is returned as it is, for ``user_arrays.fault`` to name what is wrong.
    """
    value, axis, rank = _typed(place, spec, raw), spec.batch_axis, len(spec.shape)
    if axis is None:
        return value if group is None or value.ndim != rank else _in_groups(value, spec, group)
    if value.ndim == rank - 1:
        value = np.expand_dims(value, axis)  # one sample
    inner = (*spec.shape[:axis], *spec.shape[axis + 1 :])
    along_batch = (*value.shape[:axis], *value.shape[axis + 1 :]) == inner
    return np.moveaxis(value, 0, axis) if value.ndim == rank and not along_batch and value.shape[1:] == inner else value


def _in_groups(value: np.ndarray, spec: TensorSpec, group: int) -> np.ndarray:
    """Return whole inputs along a new first axis, of samples along the first; the first ones fill up the last input."""
    if value.shape[1:] != spec.shape[1:] or not len(value):
        return value
    inputs = -(-len(value) // group)
    filled = value.take(np.arange(inputs * group) % len(value), axis=0)
    return filled.reshape(inputs, *spec.shape)


def _share_single(arrays: Arrays, signature: Signature) -> None:
    """Make the only value of an input that of all, where others of a network without a batch axis have several."""
    if any(len(value) > 1 for value in _in_rows(arrays, signature).values()):
        arrays.update(
            {name: np.asarray(value[0]) for name, value in _in_rows(arrays, signature).items() if len(value) == 1}
        )


def _in_rows(arrays: Arrays, signature: Signature) -> Arrays:
    """Return the inputs that have a row of whole inputs."""
    return {spec.name: arrays[spec.name] for spec in signature.inputs if arrays[spec.name].ndim == len(spec.shape) + 1}


def _typed(place: str, spec: TensorSpec, value: np.ndarray) -> np.ndarray:
    """Return the values in the input's type: integers of any width and double precision, where nothing is lost."""
    dtype = np.dtype(spec.dtype)
    if value.dtype == dtype:
        return value
    if value.dtype.kind in "iub" and dtype.kind in "iub":
        with np.errstate(over="ignore"):
            cast = value.astype(dtype)
        different = value[cast != value]
        if different.size:
            raise ModelError(
                f"{KEY}={place}: {spec.name} is {value.dtype} and holds {different[0]}, which {dtype}, the network's "
                "type, cannot hold: leave those samples out"
            )
        return cast
    if value.dtype.kind == dtype.kind == "f" and (dtype.itemsize >= np.dtype(np.float32).itemsize):
        with np.errstate(over="ignore"):
            cast = value.astype(dtype)
        if np.isfinite(cast).all() or not np.isfinite(value).all():
            return cast
        raise ModelError(
            f"{KEY}={place}: {spec.name} is {value.dtype} and holds {np.abs(value).max():.3g}, which {dtype}, the "
            "network's type, cannot hold: leave those samples out"
        )
    return value


def _spread(arrays: Arrays, signature: Signature) -> str | None:
    """Reduce an input without a batch axis to its one value, where others have one; say why that cannot be done."""
    if all(spec.batch_axis is None for spec in signature.inputs):
        return None
    for spec in signature.inputs:
        value = arrays[spec.name]
        if spec.batch_axis is None and user_arrays.samples(spec, value) is not None:
            if any(not np.array_equal(row, value[0]) for row in value):
                return f"{spec.name} differs by sample, but the network takes one value of it for the whole batch"
            arrays[spec.name] = np.asarray(value[0])
    return None


def _joined(data: SampleData, spec: TensorSpec, parts: list[np.ndarray], signature: Signature) -> np.ndarray:
    """Return the files' arrays of one input as one."""
    if spec.batch_axis is not None:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=spec.batch_axis)
    if len(parts) == 1:
        return parts[0]
    if any(other.batch_axis is not None for other in signature.inputs):
        if any(not np.array_equal(part, parts[0]) for part in parts):
            raise ModelError(
                f"{KEY}={data.source}: {spec.name} differs by file, but the network takes one value of it for all"
            )
        return parts[0]
    return np.concatenate([part if part.ndim > len(spec.shape) else part[None] for part in parts])


def calibration_arrays(data: CalibrationData, signature: Signature) -> Arrays:
    """Return the samples that calibrate: the first ones.

    Args:
        data: calibration data of kind samples.
        signature: of the network.

    Raises:
        ModelError: as ``InputSamples``.
    """
    return load(sample_files.of_path(data.source, data.digest), signature).up_to(data.first)

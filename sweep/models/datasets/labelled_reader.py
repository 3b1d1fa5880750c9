"""Read labelled data: arrays by input and the class of each sample, checked against the network's signature."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import ConfigError, ConversionError, LabelError
from sweep.models.datasets import images, labelled_files, numpy_files, user_arrays
from sweep.models.datasets.labelled_files import KEY
from sweep.models.signatures import BATCH
from sweep.system import user_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sweep.models.datasets.user_arrays import Arrays
    from sweep.models.signatures import Signature
    from sweep.spec import LabelledData

    Chunk = tuple[Arrays, np.ndarray]

LABELS = "labels"
"""The array of an .npz that holds the classes."""

_TOGETHER = 32  # pictures that are read at a time


def check(data: LabelledData, signature: Signature) -> None:
    """Read an .npz whole, and of pictures the names and sizes; a function is left to the worker.

    Raises:
        ConfigError: the network cannot be fed or scored with these; one line.
    """
    try:
        network, _ = by_sample(data, signature)
        if data.kind == "images":
            _check_pictures(data)
        if data.kind != "function":
            next(chunks(data, network))
    except LabelError as error:
        raise ConfigError(str(error)) from error


def _check_pictures(data: LabelledData) -> None:
    """Read the header of every picture."""
    for file, _ in labelled_files.pictures(data):
        try:
            images.look_at(file)
        except ValueError as error:
            raise _unreadable(data, error) from error


def by_sample(data: LabelledData, signature: Signature) -> tuple[Signature, int | None]:
    """Return the network with a batch axis to put samples along, and how many it takes where that is fixed."""
    if any(spec.batch_axis is not None for spec in signature.inputs):
        return signature, None
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape}
    if len(sizes) != 1:
        raise LabelError(f"{KEY}={data.source}: the network has no batch axis, and its inputs no first size in common")
    inputs = tuple(
        dataclasses.replace(spec, shape=(BATCH, *spec.shape[1:])) if spec.shape else spec for spec in signature.inputs
    )
    return dataclasses.replace(signature, inputs=inputs), int(sizes.pop())


def chunks(data: LabelledData, network: Signature) -> Iterator[Chunk]:
    """Yield the samples as they are read, each chunk checked against the network."""
    read = {"npz": _npz, "images": _images, "function": _function}[data.kind](data, network)
    while True:
        try:
            chunk = next(read, None)
        except numpy_files.UNREADABLE as error:
            raise _unreadable(data, error) from error
        if chunk is None:
            return
        fault = user_arrays.fault(chunk[0], network) or _spread(chunk[0], network)
        fault = fault or _labels_fault(data, chunk[1], _count(chunk[0], network))
        if fault:
            raise LabelError(f"{KEY}={data.source}: {fault}")
        yield chunk


def some(data: LabelledData, network: Signature, choose: Callable[[int], np.ndarray]) -> Arrays:
    """Return the inputs of the samples that ``choose`` picks by number, given how many a file or folder has.

    Raises:
        LabelError: they cannot be had, or do not fit.
    """
    if data.kind == "images":
        try:
            labelled = labelled_files.pictures(data)
            files = [labelled[number][0] for number in choose(len(labelled))]
            return images.pictures(files, images.frame(network))
        except numpy_files.UNREADABLE as error:
            raise _unreadable(data, error) from error
    arrays, labels = next(chunks(data, network))
    return rows(arrays, network, choose(len(labels)))


def rows(arrays: Arrays, network: Signature, numbers: np.ndarray) -> Arrays:
    """Select samples by number; an input without a batch axis stays as it is."""
    return {
        spec.name: arrays[spec.name]
        if spec.batch_axis is None
        else np.ascontiguousarray(arrays[spec.name].take(numbers, axis=spec.batch_axis))
        for spec in network.inputs
    }


def _unreadable(data: LabelledData, error: Exception) -> LabelError:
    text = " ".join(str(error).split()) or type(error).__name__
    return LabelError(f"{KEY}={data.source} cannot be read: {text}")


def _npz(data: LabelledData, network: Signature) -> Iterator[Chunk]:
    if any(spec.name == LABELS for spec in network.inputs):
        raise LabelError(
            f"{KEY}={data.source}: the network has an input called {LABELS} itself; give package.module:function"
        )
    arrays = numpy_files.read_npz(Path(data.source), "arrays by input name and labels")
    if LABELS not in arrays:
        raise LabelError(f"{KEY}={data.source}: holds {', '.join(sorted(arrays)) or 'nothing'}, and no array {LABELS}")
    labels = arrays.pop(LABELS)
    yield arrays, labels


def _images(data: LabelledData, network: Signature) -> Iterator[Chunk]:
    target, labelled = images.frame(network), labelled_files.pictures(data)
    for start in range(0, len(labelled), _TOGETHER):
        part = labelled[start : start + _TOGETHER]
        yield images.pictures([file for file, _ in part], target), np.array([number for _, number in part])


def _function(data: LabelledData, network: Signature) -> Iterator[Chunk]:
    del network
    batches = user_code.batches(KEY, data.source, data.digest)
    for number in itertools.count():
        try:
            batch = next(batches, None)
        except ConversionError as error:
            raise LabelError(str(error)) from error
        if batch is None:
            return
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], dict):  # noqa: PLR2004 - inputs, labels
            raise LabelError(
                f"{KEY}={data.source}: batch {number} is a {type(batch).__name__}, not (arrays by input, labels)"
            )
        yield {str(name): np.asarray(value) for name, value in batch[0].items()}, np.asarray(batch[1])


def _spread(arrays: Arrays, network: Signature) -> str | None:
    """Repeat the single value of an input without a batch axis beside others that have one."""
    for spec in network.inputs:
        if spec.batch_axis is None and user_arrays.samples(spec, arrays[spec.name]) is not None:
            return f"{spec.name} has a value a sample, but the network takes one for the whole batch"
    return None


def _count(arrays: Arrays, network: Signature) -> int:
    counts = (user_arrays.samples(spec, arrays[spec.name]) for spec in network.inputs)
    return next(count for count in counts if count is not None)


def _labels_fault(data: LabelledData, labels: np.ndarray, count: int) -> str | None:
    """Return why these labels are not the classes of so many samples; None if they are."""
    if labels.ndim != 1:
        hint = "; of one-hot rows take .argmax(axis=1)" if labels.ndim > 1 else ""
        return f"{LABELS} have shape {list(labels.shape)}, not one class a sample{hint}"
    if labels.dtype.kind not in "iu":
        return f"{LABELS} are {labels.dtype}, not integers: save them as .astype('int64')"
    if len(labels) != count:
        return f"holds {len(labels)} {LABELS} for {count} samples"
    if labels.min() < 0:
        return f"{LABELS}[{labels.argmin()}] is {labels.min()}: classes count from 0"
    return _beyond(labels, data.output, data.classes)


def _beyond(labels: np.ndarray, output: str, classes: int | None) -> str | None:
    """Return a label that the output has no class for; None if there is none, or the number of classes is not known."""
    if classes is None or labels.max() < classes:
        return None
    hint = "; take 1 off labels that count from 1" if labels.max() == classes and labels.min() > 0 else ""
    return (
        f"{LABELS}[{labels.argmax()}] is {labels.max()}, but output {output} has {classes} classes, from 0 to "
        f"{classes - 1}{hint}"
    )

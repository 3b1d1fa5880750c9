"""Cut labelled data into the batches that a session takes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LabelError
from sweep.models.datasets import labelled_files
from sweep.models.datasets.labelled_files import KEY
from sweep.models.datasets.labelled_reader import by_sample, chunks, rows, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.models.datasets.labelled_reader import Chunk
    from sweep.models.datasets.user_arrays import Arrays
    from sweep.models.signatures import Signature
    from sweep.spec import LabelledData


class Samples:
    """Read the user's labelled samples that a variant is scored on.

    Args:
        data: as asked.
        signature: of the network.

    Attributes:
        output: name of the output [batch,classes] whose largest entry is the answer.
        what: says in the record what they are; with their count once they were gone through.
        identity: digest of what the network was fed with; None until they were gone through.

    Raises:
        LabelError: the network has no batch axis to put samples along.
    """

    def __init__(self, data: LabelledData, signature: Signature) -> None:
        self._data = data
        self._network, self._fixed = by_sample(data, signature)
        self.output = data.output
        self.what = _what(data, None)
        self.identity: str | None = None

    def look(self) -> None:
        """See that a function gives what can be scored, by its first batch; files were looked at when it was planned.

        Raises:
            LabelError: it does not.
        """
        if self._data.kind == "function" and next(chunks(self._data, self._network), None) is None:
            raise LabelError(f"{KEY}={self._data.source}: gives no batch")

    def size(self, batch: int) -> int:
        """Return the samples of an inference: ``batch``, or what a network without a batch axis was exported with."""
        return self._fixed or batch

    def draw(self, batch: int, seed: int) -> Arrays:
        """Return inputs of ``size(batch)`` samples chosen by the seed; of a function the first ones that it gives.

        The first of them are the same whatever the batch.

        Raises:
            LabelError: they cannot be had, or do not fit.
        """
        if self._data.kind == "function":
            return next(self.batches(batch))[0]
        random = np.random.default_rng([seed])
        return some(self._data, self._network, lambda count: random.integers(0, count, size=self.size(batch)))

    def batches(self, batch: int) -> Iterator[Chunk]:
        """Yield inputs and labels as ``Labelled.batches`` does, the last batch filled up with its last sample.

        Raises:
            LabelError: they cannot be had, do not fit, or are not those of the plan or of the last time.
        """
        step, fed, count = self.size(batch), hashlib.sha256(), 0
        remainder: Chunk | None = None
        for chunk in chunks(self._data, self._network):
            count += len(chunk[1])
            _feed(fed, *chunk)
            arrays, labels = chunk if remainder is None else self._joined(remainder, chunk)
            whole = len(labels) - len(labels) % step
            for start in range(0, whole, step):
                yield rows(arrays, self._network, np.arange(start, start + step)), labels[start : start + step]
            rest = np.arange(whole, len(labels))
            remainder = (rows(arrays, self._network, rest), labels[rest]) if len(rest) else None
        if remainder is not None:
            arrays, labels = remainder
            yield rows(arrays, self._network, np.minimum(np.arange(step), len(labels) - 1)), labels
        self._conclude(count, fed.hexdigest())

    def _conclude(self, count: int, fed: str) -> None:
        data = self._data
        if not count:
            raise LabelError(f"{KEY}={data.source}: holds no sample")
        if data.kind != "function" and labelled_files.content(data) != data.digest:
            raise LabelError(f"{KEY}={data.source}: has changed since it was planned; start the sweep again")
        identity = f"{fed} {data.output}"
        if self.identity not in {None, identity}:
            raise LabelError(f"{KEY}={data.source}: gives other samples each time; make it give the same, as by a seed")
        self.identity, self.what = identity, _what(data, count)

    def _joined(self, one: Chunk, other: Chunk) -> Chunk:
        arrays = {}
        for spec in self._network.inputs:
            pair = one[0][spec.name], other[0][spec.name]
            if spec.batch_axis is None and not np.array_equal(*pair):
                raise LabelError(f"{KEY}={self._data.source}: {spec.name} is one value for all, and differs by batch")
            arrays[spec.name] = pair[0] if spec.batch_axis is None else np.concatenate(pair, axis=spec.batch_axis)
        return arrays, np.concatenate([one[1], other[1]])


def _what(data: LabelledData, count: int | None) -> str:
    name = data.name or Path(data.source).name
    counted = "" if count is None else f"{count:,} "
    return f"{counted}{'pictures' if data.kind == 'images' else 'samples'} of {name}"


def _feed(fed: hashlib._Hash, arrays: Arrays, labels: np.ndarray) -> None:
    for name in sorted(arrays):
        fed.update(name.encode())
        fed.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    fed.update(labels.astype(np.int64).data)

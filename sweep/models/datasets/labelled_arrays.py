"""Hold samples with their labels, whose score tells what a precision costs where errors against fp32 cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Hold samples whose class is known.

    Attributes:
        what: says in the record what they are, such as ``597 held-out images of ...``.
        inputs: every input by name, samples along the first axis.
        labels: the class of each sample, int.
        output: name of the output [batch,classes] whose largest entry is the answer.
    """

    what: str
    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    output: str

    @property
    def identity(self) -> str:
        """Return what tells these samples from any other."""
        return self.what

    @staticmethod
    def size(batch: int) -> int:
        """Return the samples of an inference."""
        return batch

    def batches(self, batch: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield inputs and labels, ``batch`` samples at a time; the last one is filled up with its last sample.

        Labels are those of the samples themselves, so there may be fewer of them than samples in the last batch.
        """
        for start in range(0, len(self.labels), batch):
            rows = np.minimum(np.arange(start, start + batch), len(self.labels) - 1)
            yield (
                {name: np.ascontiguousarray(values[rows]) for name, values in self.inputs.items()},
                self.labels[start : start + batch],
            )

    def draw(self, batch: int, seed: int) -> dict[str, np.ndarray]:
        """Return inputs of ``batch`` samples chosen by the seed; the first ones are the same whatever the batch."""
        rows = np.random.default_rng([seed]).integers(0, len(self.labels), size=batch)
        return {name: np.ascontiguousarray(values[rows]) for name, values in self.inputs.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Describe the data that a network was made for.

    Attributes:
        training: what it was trained on; calibration may look at it.
        held_out: what it has not seen; it is scored on that.
    """

    training: Callable[[], Labelled]
    held_out: Callable[[], Labelled]

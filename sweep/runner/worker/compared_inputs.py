"""Hold the inputs on which the outputs of a session are compared with the reference, and join what they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Arrays = Mapping[str, np.ndarray]
    Infer = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedInputs:
    """Hold batches of inputs, each as large as an inference takes them.

    Attributes:
        batches: inputs of each, by name; at least one.
        counts: number of samples in each that are in none before; what follows them is a repetition.
        size: samples that an inference takes.
    """

    batches: tuple[Arrays, ...]
    counts: tuple[int, ...]
    size: int

    @property
    def samples(self) -> int:
        """Return the number of samples in all batches."""
        return sum(self.counts)

    def first(self, count: int) -> ComparedInputs:
        """Return the first batches, at most ``count``."""
        return ComparedInputs(batches=self.batches[:count], counts=self.counts[:count], size=self.size)

    def run(self, infer: Infer) -> dict[str, np.ndarray]:
        """Return the outputs of all samples, one batch after the other."""
        return self.join([infer(feeds) for feeds in self.batches])

    def changed(self, change: Callable[[Arrays], Arrays]) -> ComparedInputs:
        """Return the inputs after ``change`` of each batch."""
        batches = tuple(change(feeds) for feeds in self.batches)
        return ComparedInputs(batches=batches, counts=self.counts, size=self.size)

    def feeds(self) -> dict[str, np.ndarray]:
        """Return the inputs of all samples."""
        return self.join(self.batches)

    def join(self, outputs: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """Return the outputs of the batches as those of one batch, without the repetitions at its end.

        Args:
            outputs: of each batch, by name. Those of a scalar become a vector; those whose first size is not the
                batch's follow each other whole.
        """
        if len(outputs) == 1 and self.counts[0] == self.size:
            return dict(outputs[0])
        joined = {}
        for name in outputs[0]:
            parts = [
                part[name][:count] if part[name].ndim and len(part[name]) == self.size else np.atleast_1d(part[name])
                for part, count in zip(outputs, self.counts, strict=True)
            ]
            joined[name] = np.concatenate(parts)
        return joined

"""Describe the inputs and outputs of a network: names, dtypes, shapes, and the ranges of random inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BATCH = "batch"
DEFAULT_RANGE = (0.0, 1.0)
"""Range of integers and booleans, and the missing end of a float range of which one end was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Describe one input of a network.

    Attributes:
        name: the ONNX input's name.
        dtype: numpy's name of the element type, such as ``float32``, ``int64`` or ``bool``.
        shape: one entry per dimension, an int or the word ``batch``; () is a scalar.
        low: smallest value drawn, inclusive; None means the default.
        high: largest value drawn, inclusive for integers; None means the default.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: float | None = None
    high: float | None = None

    @property
    def batch_axis(self) -> int | None:
        """Return the position of the batch in the shape, or None if the input has no batch axis."""
        return self.shape.index(BATCH) if BATCH in self.shape else None

    @property
    def is_float(self) -> bool:
        """Tell whether the elements are floating point."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Return the ends of the range that values are drawn from; None for floats without a range: standard normal."""
        if self.is_float and self.low is None and self.high is None:
            return None
        low, high = DEFAULT_RANGE
        return (low if self.low is None else self.low, high if self.high is None else self.high)

    def concrete(self, batch: int) -> tuple[int, ...]:
        """Return the shape with ``batch`` samples in the batch axis."""
        return tuple(batch if isinstance(size, str) else size for size in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """Describe one output of a user's file, as the file declares it.

    Attributes:
        name: the ONNX output's name.
        is_float: its elements are floating point.
        shape: an int or a symbol per dimension; None where the file does not say.
    """

    name: str
    is_float: bool
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Describe the inputs and outputs of a network.

    Attributes:
        inputs: every tensor that a caller must feed, in graph order.
        outputs: the graph outputs' names, in graph order.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]


def render_shape(shape: tuple[int | str, ...]) -> str:
    """Spell the shape as it is typed on the command line: ``[2,batch,128]``."""
    return f"[{','.join(str(size) for size in shape)}]"

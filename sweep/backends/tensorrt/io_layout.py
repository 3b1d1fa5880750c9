"""Convert a tensor of four dimensions to the layout in which an engine reads or writes it, and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 4
"""Dimensions of the tensors that have a layout besides the linear one: samples, channels, height, width."""
_NAME = re.compile(r"(CHW|HWC)(\d*)")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLayout:
    """Describe a layout by TensorRT's name of it.

    Attributes:
        channels_last: each pixel holds its channels side by side (HWC, HWC8, HWC16); else each group of ``vector``
            channels is a plane of its own (CHW2, CHW4, CHW16, CHW32).
        vector: number of channels to whose multiple the tensor is padded.

    Source:
        *Supported Data Types and Tensor Formats* of the TensorRT developer guide.
    """

    channels_last: bool
    vector: int

    def packed_shape(self, shape: Shape) -> Shape:
        """Return the shape of the memory that holds a tensor of ``shape`` (samples, channels, height, width)."""
        samples, channels, height, width = shape
        groups = -(-channels // self.vector)
        if self.channels_last:
            return (samples, height, width, groups * self.vector)
        return (samples, groups, height, width, self.vector)

    def pack(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return ``value`` in this layout; padded channels are zero."""
        samples, channels, height, width = value.shape
        groups = -(-channels // self.vector)
        padded = np.zeros((samples, groups * self.vector, height, width), value.dtype)
        padded[:, :channels] = value
        if self.channels_last:
            return padded.transpose(0, 2, 3, 1)
        return padded.reshape(samples, groups, self.vector, height, width).transpose(0, 1, 3, 4, 2)

    def unpack(self, packed: NDArray[Any], shape: Shape) -> NDArray[Any]:
        """Return the tensor of ``shape`` that lies in this layout in ``packed``, without the padding."""
        if self.channels_last:
            value = packed.transpose(0, 3, 1, 2)
        else:
            samples, groups, height, width, vector = packed.shape
            value = packed.transpose(0, 1, 4, 2, 3).reshape(samples, groups * vector, height, width)
        return value[:, : shape[1]]


def parse(name: str) -> IoLayout | None:
    """Return the layout of TensorRT's ``name``; None for the linear one.

    Raises:
        ValueError: the layout is not known.
    """
    if name == "LINEAR":
        return None
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(name)
    return IoLayout(channels_last=match[1] == "HWC", vector=int(match[2] or 1))

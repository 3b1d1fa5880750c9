"""Check the range of an input's random values against its dtype."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import ModelError

if TYPE_CHECKING:
    from sweep.models.signatures import TensorSpec


def integer_bounds(spec: TensorSpec) -> tuple[int, int]:
    """Return the smallest and largest whole number in the range of an integer or boolean input, both inclusive."""
    low, high = spec.bounds or (0.0, 1.0)
    return math.ceil(low), math.floor(high)


def check_range(spec: TensorSpec, model: str) -> None:
    """Make sure that values can be drawn for this input.

    Args:
        spec: the input.
        model: the model's name, for the error.

    Raises:
        ModelError: the range is empty, not finite, or beyond what the dtype can hold.
    """
    if spec.bounds is None:
        return
    low, high = spec.bounds
    request = f"model.inputs.{spec.name}: low={low:g}, high={high:g}"
    smallest, largest = _limits(spec.dtype)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(f"{request} is not finite; give numbers")
    if low > high:
        raise ModelError(f"{request} is an empty range (the default is 0 to 1); give low <= high")
    if low < smallest or high > largest:
        raise ModelError(
            f"{request}: model {model!r} takes {spec.dtype}, which holds {smallest:g} to {largest:g}; stay inside"
        )
    if not spec.is_float and math.ceil(low) > math.floor(high):
        raise ModelError(f"{request}: model {model!r} takes {spec.dtype}, and no whole number lies between; widen it")


def _limits(dtype: str) -> tuple[float, float]:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return (0.0, 1.0)
    if kind.kind == "f":
        return (float(np.finfo(kind).min), float(np.finfo(kind).max))
    info = np.iinfo(kind)
    return (int(info.min), int(info.max))

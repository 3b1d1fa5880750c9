"""Check a user's own arrays against the inputs of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sweep.models.signatures import Signature, TensorSpec

Arrays = dict[str, np.ndarray]


def fault(arrays: Arrays, signature: Signature) -> str | None:
    """Return the first thing that keeps the network from being fed with these arrays; None if they fit.

    Args:
        arrays: by name, samples along the batch axis; an input without one may have a row of whole inputs.
        signature: of the network.
    """
    faults = (_fault(spec, arrays) for spec in signature.inputs)
    first_fault = _names(arrays, signature) or next(filter(None, faults), None)
    if first_fault is not None:
        return first_fault
    counts = {spec.name: samples(spec, arrays[spec.name]) for spec in signature.inputs}
    several = {name: count for name, count in counts.items() if count is not None}
    if len(set(several.values())) > 1:
        return "holds " + ", ".join(f"{count} samples of {name}" for name, count in several.items())
    return "holds no sample" if 0 in several.values() else None


def _names(arrays: Arrays, signature: Signature) -> str | None:
    input_names = [spec.name for spec in signature.inputs]
    if set(arrays) == set(input_names):
        return None
    present = ", ".join(sorted(arrays)) or "nothing"
    return f"holds {present}, but the network takes {', '.join(input_names)}: name them so"


def _fault(spec: TensorSpec, arrays: Arrays) -> str | None:
    value = arrays[spec.name]
    if value.dtype != np.dtype(spec.dtype):
        return f"{spec.name} is {value.dtype}, the network takes {spec.dtype}: save it as .astype('{spec.dtype}')"
    if not _fits(spec, value):
        sizes = ",".join(str(size) for size in spec.shape)
        return f"{spec.name} has shape {list(value.shape)}, the network takes [{sizes}]"
    bad = int(np.count_nonzero(~np.isfinite(value))) if value.dtype.kind == "f" else 0
    return f"{spec.name} holds {bad} NaN or Inf of {value.size} values: leave those samples out" if bad else None


def _fits(spec: TensorSpec, value: np.ndarray) -> bool:
    shape = value.shape
    if spec.batch_axis is None and len(shape) == len(spec.shape) + 1:
        shape = shape[1:]  # a row of whole inputs
    return len(shape) == len(spec.shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(spec.shape, shape, strict=True)
    )


def samples(spec: TensorSpec, value: np.ndarray) -> int | None:
    """Count the samples of the array; None where it is one value for all."""
    if spec.batch_axis is not None:
        return int(value.shape[spec.batch_axis])
    return len(value) if value.ndim > len(spec.shape) else None

"""Draw random input values: the same for the same seed, whatever the batch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.models.value_ranges import integer_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.models.signatures import Signature, TensorSpec


def draw(signature: Signature, batch: int, seed: int) -> dict[str, NDArray[Any]]:
    """Draw values for every input, C-contiguous, each input with its own generator of (seed, name).

    Samples are drawn one after the other, so sample i is the same in every batch that has it.

    Args:
        signature: the inputs: dtypes, shapes and ranges. Ranges are uniform; floats without one are
            standard normal.
        batch: samples in the batch axis; inputs without one get a single value for all samples.
        seed: 0 or more.

    Returns:
        Arrays by input name, of the spec's dtype and of the shape ``spec.concrete(batch)``.
    """
    return {spec.name: _draw(spec, batch, seed) for spec in signature.inputs}


def _draw(spec: TensorSpec, batch: int, seed: int) -> NDArray[Any]:
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    shape, axis = spec.concrete(batch), spec.batch_axis
    if axis is None:
        return _values(spec, shape, generator)
    samples = _values(spec, (shape[axis], *shape[:axis], *shape[axis + 1 :]), generator)
    return np.asarray(np.moveaxis(samples, 0, axis), order="C")


def _values(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    if not spec.is_float:
        low, high = integer_bounds(spec)
        return np.asarray(generator.integers(low, high, size=shape, dtype=np.dtype(spec.dtype), endpoint=True))
    if spec.bounds is None:
        return np.asarray(generator.standard_normal(shape), dtype=spec.dtype)
    low_value, high_value = spec.bounds
    return np.asarray(low_value + (high_value - low_value) * generator.random(shape), dtype=spec.dtype)

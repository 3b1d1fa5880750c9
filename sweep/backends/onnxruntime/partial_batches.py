"""Determine which smaller batches an onnxruntime graph accepts, and slice the inputs for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.onnxruntime import NUMERIC_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

Feeds = dict[str, np.ndarray]


def feeds(session: Any, whole: Mapping[str, np.ndarray], batch: int) -> list[Feeds]:
    """Return the first 1, 2, ... samples of ``whole``, up to one less than the batch; as views where possible.

    Args:
        session: onnxruntime's session; its inputs show which dimensions are symbolic.
        whole: value of each input at the full batch.
        batch: samples in ``whole``.

    Returns:
        The inputs at each smaller batch. Empty if the graph does not accept them: no input has a symbolic batch, one
        has more than one symbolic dimension, or one sample does not yield one sample of output.
    """
    axes = {item.name: _symbolic_axes(item.shape) for item in session.get_inputs()}
    sizes = {whole[name].shape[axis] for name, free in axes.items() for axis in free}
    if sizes != {batch} or any(len(free) > 1 for free in axes.values()):
        return []
    parts = [
        {name: _slice_batch(value, axes[name], count) for name, value in whole.items()} for count in range(1, batch)
    ]
    return parts if parts and _yields_one_sample(session, whole, parts[0], batch) else []


def _symbolic_axes(shape: list[int | str | None]) -> list[int]:
    """Return the axes of the symbolic dimensions."""
    return [axis for axis, size in enumerate(shape) if not isinstance(size, int)]


def _slice_batch(value: np.ndarray, axes: list[int], count: int) -> np.ndarray:
    if not axes:
        return value
    return np.ascontiguousarray(value[(slice(None),) * axes[0] + (slice(count),)])


def _yields_one_sample(session: Any, whole: Mapping[str, np.ndarray], one: Feeds, batch: int) -> bool:
    """Return whether each output of one sample has the shape of the full output with the batch axis, if any, at 1."""
    names = [item.name for item in session.get_outputs() if item.type in NUMERIC_TYPES]
    if not names:
        return False
    full = [value.shape for value in session.run(names, dict(whole))]
    try:
        part = [value.shape for value in session.run(names, one)]
    except Exception:  # noqa: BLE001 - onnxruntime's errors share no class; the batch is then padded, and that is recorded
        return False
    return all(
        len(partial) == len(whole_shape)
        and all(
            small == large or (small, large) == (1, batch) for small, large in zip(partial, whole_shape, strict=True)
        )
        for partial, whole_shape in zip(part, full, strict=True)
    )

"""Which smaller batches an onnxruntime graph takes, and the inputs for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Feeds = dict[str, np.ndarray]


def feeds(session: Any, whole: Mapping[str, np.ndarray], batch: int) -> list[Feeds]:
    """The first 1, 2, ... samples of ``whole``, up to one less than the batch; views of it where they can be.

    Args:
        session: onnxruntime's; its inputs say which dimensions are symbolic.
        whole: value of each input at the full batch.
        batch: samples in it.

    Returns:
        Nothing where the graph does not take them: no input has a symbolic batch, one has more than one symbolic
        dimension, or one sample does not come out as one sample.
    """
    axes = {item.name: _free(item.shape) for item in session.get_inputs()}
    sizes = {whole[name].shape[axis] for name, free in axes.items() for axis in free}
    if sizes != {batch} or any(len(free) > 1 for free in axes.values()):
        return []
    parts = [{name: _first(value, axes[name], count) for name, value in whole.items()} for count in range(1, batch)]
    return parts if parts and _one_comes_out(session, whole, parts[0], batch) else []


def _free(shape: list[int | str | None]) -> list[int]:
    """Axes of the symbolic dimensions."""
    return [axis for axis, size in enumerate(shape) if not isinstance(size, int)]


def _first(value: np.ndarray, axes: list[int], count: int) -> np.ndarray:
    if not axes:
        return value
    return np.ascontiguousarray(value[(slice(None),) * axes[0] + (slice(count),)])


def _one_comes_out(session: Any, whole: Mapping[str, np.ndarray], one: Feeds, batch: int) -> bool:
    """Whether each output of one sample is that of the batch with the batch's axis, if it has one, at 1."""
    full = [value.shape for value in session.run(None, dict(whole))]
    try:
        part = [value.shape for value in session.run(None, one)]
    except Exception:  # noqa: BLE001 - onnxruntime's errors share no class; the batch is then padded, and that is recorded
        return False
    return all(
        len(found) == len(asked)
        and all(small == large or (small, large) == (1, batch) for small, large in zip(found, asked, strict=True))
        for found, asked in zip(part, full, strict=True)
    )

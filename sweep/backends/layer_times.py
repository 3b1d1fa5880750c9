"""Summarise the durations of layers over many inferences, as a layer profile holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict


def summarise(durations_us: Sequence[float]) -> JsonDict | None:
    """Return {median_us, p10_us, p90_us, count} of the durations of one layer; None without any.

    Args:
        durations_us: one an inference, us.
    """
    if not len(durations_us):
        return None
    low, middle, high = np.percentile(np.asarray(durations_us, dtype=np.float64), (10, 50, 90))
    return {"median_us": float(middle), "p10_us": float(low), "p90_us": float(high), "count": len(durations_us)}


def median(values: Sequence[float]) -> float | None:
    """Return the median of values; None without any."""
    return float(np.median(np.asarray(values, dtype=np.float64))) if len(values) else None


def subtract_cost(layers: Sequence[JsonDict], timed_us: float) -> float | None:
    """Subtract what the profiler adds to each layer, so that the layers take no longer than the inference does.

    Each layer is shortened by the same time, and none below 0.

    Args:
        layers: layers with their times, which are changed.
        timed_us: duration of an inference without the profiler, us.

    Returns:
        What was subtracted from each layer, us; None where the layers take no longer as they are.
    """
    times = [layer["time"] for layer in layers if layer["time"] is not None]
    medians = np.sort(np.array([time["median_us"] for time in times]))[::-1]
    if medians.sum() <= timed_us or not len(medians):
        return None
    # The longest n layers remain where they are longer than the cost at which they fill the inference.
    costs = (np.cumsum(medians) - timed_us) / np.arange(1, len(medians) + 1)
    cost = float(costs.max())
    for time in times:
        for name in ("median_us", "p10_us", "p90_us"):
            time[name] = max(time[name] - cost, 0.0)
    return cost


def cost_notes(cost_us: float | None) -> list[str]:
    """Return what the reader has to know where a cost was subtracted from every layer."""
    if cost_us is None:
        return []
    return [
        (
            f"the profiler adds about {cost_us:.1f} us to each layer, which is subtracted so that the layers fill an "
            "inference without it; a layer that was shorter counts as 0"
        )
    ]

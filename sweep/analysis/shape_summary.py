"""Summarise the requests of a load of several shapes by the engine that served them, and the cost of padding.

Pure: the same samples give the same summary for as long as they are on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles
from sweep.spec import elements, shape_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples, Shaped, ShapeFigures


def shaped(passes: Sequence[PointSamples], load: LoadAxes) -> Shaped:
    """Return the figures by shape of one point.

    Args:
        passes: samples of the point in every pass.
        load: its mix of shapes.

    Returns:
        {} where all requests had one shape, and where none was measured.
    """
    parts = [samples.shape[samples.measured] for samples in passes if samples.shape is not None]
    if load.shapes is None or len(parts) < len(passes) or not sum(map(len, parts)):
        return {}
    own = np.array([elements(entry.shape) for entry in load.shapes.entries], dtype=np.float64)
    computed = np.array([elements(shape) for shape in load.engine_shapes], dtype=np.float64)
    places = np.array(load.engine_places)
    count = sum(map(len, parts))
    figures: list[ShapeFigures] = []
    for number, shape in enumerate(load.engine_shapes):
        served = [places[part] == number for part in parts]
        requests = int(sum(map(np.count_nonzero, served)))
        if not requests:
            continue
        useful = sum(float(own[part[keep]].sum()) for part, keep in zip(parts, served, strict=True))
        latencies = [samples.latency_ms[keep] for samples, keep in zip(passes, served, strict=True)]
        figures.append(
            {
                "shape": shape_text(shape),
                "requests": requests,
                "share": requests / count,
                "padding": _padding(useful, requests * computed[number]),
                "latency_ms": percentiles.passes_summary(latencies),
            }
        )
    useful = sum(float(own[part].sum()) for part in parts)
    return {"shapes": figures, "padding": _padding(useful, sum(float(computed[places[part]].sum()) for part in parts))}


def _padding(useful: float, computed: float) -> float:
    """Return the share of `computed` elements that are padding."""
    return max(1.0 - useful / float(computed), 0.0)

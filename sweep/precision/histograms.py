"""Ranges by percentile or entropy: onnxruntime's thresholds, of histograms that are collected here.

Its own calibrator keeps what every tensor held in every batch, and its collector, which does not know the largest value
beforehand, bins by searching uneven edges: several times slower. Here that value is known, and a few tensors at a time
leave an inference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.precision import activation_ranges
from sweep.precision.onnx_tools import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

METHODS = ("percentile", "entropy")
"""What there is besides the largest value."""

PERCENTILE = 99.99
"""In percent, where none is given."""

_BINS = 2048
_LEVELS = 128  # of int8, either side of 0 shared
_AT_ONCE_BYTES = 256 << 20  # of tensors that leave one inference
_SUFFIX = "__whole"


def thresholds(
    model: ModelProto,
    largest: Mapping[str, float],
    calibration: Sequence[Mapping[str, np.ndarray]],
    method: str,
    percentile: float,
) -> dict[str, float]:
    """The |x| at which each tensor is clipped, at most its largest.

    Args:
        model: a float32 graph with its weights loaded; given back as it was.
        largest: the largest |x| of the tensors that are wanted.
        calibration: batches, each a dict of every graph input by name.
        method: ``percentile``: that share of all |x| stays below; ``entropy``: where the histogram loses least to
            128 even steps (Kullback-Leibler).
        percentile: in percent, for the first.

    Source:
        S. Migacz, "8-bit Inference with TensorRT", GTC 2017, for the second.
    """
    wanted = [name for name, size in largest.items() if 0 < size < math.inf]
    found = dict(largest)
    for chunk in activation_ranges.chunks(
        wanted, activation_ranges.bytes_of(model, wanted, calibration[0]), _AT_ONCE_BYTES
    ):
        part = {name: largest[name] for name in chunk}
        for name, size in _collected(model, part, calibration, method, percentile).items():
            found[name] = min(size, largest[name]) or largest[name]
    return found


def _collected(
    model: ModelProto,
    largest: Mapping[str, float],
    calibration: Sequence[Mapping[str, np.ndarray]],
    method: str,
    percentile: float,
) -> dict[str, float]:
    import numpy as np
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=_BINS,
        num_quantized_bins=_LEVELS,
        percentile=percentile,
        scenario="same",
    )
    signed = method == "entropy"  # its histogram spans both signs, the percentile's the magnitude
    for name, counts in _counted(model, largest, calibration, signed=signed).items():
        low, high = np.float32(-largest[name]), np.float32(largest[name])
        edges = np.linspace(low if signed else 0, high, _BINS + 1, dtype=np.float32)
        collector.histogram_dict[name] = (counts, edges, low, high, *([high] if signed else []))
    with quiet():
        limits = collector.compute_collection_result()
    return {name: float(max(abs(low), abs(high))) for name, (low, high, *_) in limits.items()}


def _counted(
    model: ModelProto,
    largest: Mapping[str, float],
    calibration: Sequence[Mapping[str, np.ndarray]],
    *,
    signed: bool,
) -> dict[str, np.ndarray]:
    """Histograms over even bins, of values or of magnitudes."""
    import numpy as np

    counts = {name: np.zeros(_BINS, np.int64) for name in largest}
    with activation_ranges.exposed(model, {name: ("Identity", name + _SUFFIX) for name in largest}) as run:
        for batch in calibration:
            for (name, size), values in zip(largest.items(), run(batch), strict=True):
                seen = values if signed else np.abs(values)
                counts[name] += np.histogram(seen, _BINS, (-size if signed else 0.0, size))[0]
    return counts

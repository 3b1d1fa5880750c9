"""Compute clipping ranges by percentile or entropy with onnxruntime's thresholds, on histograms collected here.

onnxruntime's own calibrator keeps every tensor of every batch, and its collector, which does not know the largest value
beforehand, bins by searching uneven edges: several times slower. Here that value is known, and each inference returns a
few tensors only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.precision import activation_ranges
from sweep.precision.onnx_tools import quiet_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

METHODS = ("percentile", "entropy")
"""List the methods beside the largest value."""

DEFAULT_PERCENTILE = 99.99
"""Set the percentile, in percent, where the recipe has none."""

_BINS = 2048
_QUANTIZED_BINS = 128  # int8 levels of one sign
_CHUNK_BYTES = 256 << 20  # of tensors that one inference returns
_VALUES_SUFFIX = "__whole"


def clipping_thresholds(
    model: ModelProto,
    largest: Mapping[str, float],
    calibration: Sequence[Mapping[str, np.ndarray]],
    method: str,
    percentile: float,
) -> dict[str, float]:
    """Compute the |x| at which each tensor is clipped, at most its largest.

    Args:
        model: a float32 graph with its weights loaded; unchanged afterwards.
        largest: the largest |x| by name of each tensor to clip.
        calibration: batches, each an array for every graph input by name.
        method: ``percentile``: that share of all |x| stays below; ``entropy``: the clip that loses least against 128
            even steps, by Kullback-Leibler divergence.
        percentile: in percent, for the first method.

    Returns:
        The threshold by tensor name; a tensor that is 0, infinite or NaN keeps its largest |x|.

    Source:
        S. Migacz, "8-bit Inference with TensorRT", GTC 2017, for ``entropy``.
    """
    tensors = [name for name, size in largest.items() if 0 < size < math.inf]
    limits = dict(largest)
    for chunk in activation_ranges.chunk_by_size(
        tensors, activation_ranges.tensor_bytes(model, tensors, calibration[0]), _CHUNK_BYTES
    ):
        part = {name: largest[name] for name in chunk}
        for name, size in _collect_thresholds(model, part, calibration, method, percentile).items():
            limits[name] = min(size, largest[name]) or largest[name]
    return limits


def _collect_thresholds(
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
        num_quantized_bins=_QUANTIZED_BINS,
        percentile=percentile,
        scenario="same",
    )
    signed = method == "entropy"  # entropy's histogram spans both signs; the percentile's holds magnitudes
    for name, counts in _collect_histograms(model, largest, calibration, signed=signed).items():
        low, high = np.float32(-largest[name]), np.float32(largest[name])
        edges = np.linspace(low if signed else 0, high, _BINS + 1, dtype=np.float32)
        collector.histogram_dict[name] = (counts, edges, low, high, *([high] if signed else []))
    with quiet_onnxruntime():
        limits = collector.compute_collection_result()
    return {name: float(max(abs(low), abs(high))) for name, (low, high, *_) in limits.items()}


def _collect_histograms(
    model: ModelProto,
    largest: Mapping[str, float],
    calibration: Sequence[Mapping[str, np.ndarray]],
    *,
    signed: bool,
) -> dict[str, np.ndarray]:
    """Collect histograms over even bins, of values or of magnitudes."""
    import numpy as np

    counts = {name: np.zeros(_BINS, np.int64) for name in largest}
    with activation_ranges.extra_outputs(model, {name: ("Identity", name + _VALUES_SUFFIX) for name in largest}) as run:
        for batch in calibration:
            for (name, size), values in zip(largest.items(), run(batch), strict=True):
                sample = values if signed else np.abs(values)
                counts[name] += np.histogram(sample, _BINS, (-size if signed else 0.0, size))[0]
    return counts

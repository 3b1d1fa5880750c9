"""Summarise where the requests of a pipeline spend their time: each stage, and the rest by name.

Pure: the same samples give the same summary for as long as they are on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sweep.spec import Pipeline
    from sweep.storage import PointSamples, Staged, StageFigures

_COPIES = ("gpu_h2d_ms", "gpu_d2h_ms")


def staged(passes: Sequence[PointSamples], pipeline: Pipeline | None) -> Staged:
    """Return the figures by stage of one point.

    Args:
        passes: samples of the point in every pass.
        pipeline: its stages; None for one network.

    Returns:
        {} for one network, where a damaged record has other stages, and where nothing was measured.
    """
    parts = [(samples, samples.stage_ms) for samples in passes if samples.stage_ms is not None]
    if pipeline is None or len(parts) < len(passes) or any(ms.shape[1] != len(pipeline.stages) for _, ms in parts):
        return {}
    times = [ms[samples.measured].astype(np.float64) for samples, ms in parts]
    latency = _mean([samples.latency_ms for samples, _ in parts])
    if latency is None:
        return {}
    figures: list[StageFigures] = []
    for number, stage in enumerate(pipeline.stages):
        own = [each[:, number] for each in times]
        mean = _mean(own) or 0.0
        figures.append(
            {
                "stage": stage.name,
                "runs": stage.count,
                "share": _share(mean, latency),
                "latency_ms": percentiles.passes_summary(own),
            }
        )
    queue = _mean([_ms(samples.issued_ns - samples.scheduled_ns)[samples.measured] for samples, _ in parts]) or 0.0
    copies = sum(
        _mean([getattr(samples, name)[samples.measured] for samples, _ in parts]) or 0.0 for name in _timed(parts)
    )
    stages = sum(_mean([each[:, number] for each in times]) or 0.0 for number in range(len(pipeline.stages)))
    return {
        "stages": figures,
        "stage_rest": {
            "queue_ms": queue,
            "copies_ms": copies,
            "other_ms": latency - stages - queue - copies,
        },
    }


def _timed(parts: Sequence[tuple[PointSamples, NDArray[np.float32]]]) -> list[str]:
    """Return the copies that every pass timed."""
    return [
        name
        for name in _COPIES
        if all(
            (values := getattr(samples, name)) is not None and not np.isnan(values[samples.measured]).any()
            for samples, _ in parts
        )
    ]


def _ms(duration_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    return duration_ns / 1e6


def _mean(parts: Sequence[NDArray[np.float64]]) -> float | None:
    """Return the mean over all passes; None where there are no values."""
    values = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])
    return float(values.mean()) if len(values) else None


def _share(mean_ms: float, latency_ms: float) -> float:
    """Return the share of the latency, 0 to 1; the clocks of two devices may differ in the last digits."""
    return min(max(mean_ms / latency_ms, 0.0), 1.0) if latency_ms > 0 else 0.0

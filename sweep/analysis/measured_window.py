"""Find the measured window of a load point and its throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Ints, PointSamples


def window_ips(samples: PointSamples) -> float | None:
    """Return the samples/s completed inside the measured window; None where nothing was measured."""
    start, end = window(samples)
    if end <= start:
        return None
    inside = (samples.done_ns > start) & (samples.done_ns <= end)
    return float(np.count_nonzero(inside) * samples.batch / ((end - start) / 1e9))


def window(samples: PointSamples) -> tuple[int, int]:
    """Return start and end of the measured window, ns: first to last measured arrival (closed: until a stream ends)."""
    keep = samples.measured
    if not keep.any():
        return 0, 0
    start = int(samples.scheduled_ns[keep].min())
    if samples.kind != "closed":
        return start, int(samples.scheduled_ns[keep].max())
    ids = samples.stream_id
    return start, min(int(samples.done_ns[keep & (ids == stream)].max()) for stream in np.unique(ids[keep]))


def measured_window(samples: PointSamples) -> tuple[int, int, int] | None:
    """Return start and end of the measured window, ns on the session's clock, and the samples completed in it.

    None where nothing was measured, or in a file that does not tell when.
    """
    start, end = window(samples)
    rate_ips = window_ips(samples)
    if rate_ips is None or samples.origin_ns is None:
        return None
    return samples.origin_ns + start, samples.origin_ns + end, round(rate_ips * (end - start) / 1e9)


def completions(samples: PointSamples) -> percentiles.Floats:
    """Return the start of the measured window and each completion in it: ns, ascending."""
    start, end = window(samples)
    done = samples.done_ns[samples.measured]
    return np.sort(np.append(done[(done > start) & (done <= end)], start)).astype(np.float64)


def issue_lag_ms(passes: Sequence[PointSamples]) -> float | None:
    """Return the generator's own delay: p99 of issued - due over measured requests that met a free stream, ms.

    Due is the scheduled arrival or, where the server gathers, when the batch was to leave.
    """
    lags = [_lag_ns(samples) for samples in passes]
    pooled = np.sort(np.concatenate(lags)) / 1e6
    return percentiles.percentile(pooled, 0.99) if len(pooled) else None


def _lag_ns(samples: PointSamples) -> Ints:
    keep = samples.measured & samples.slot_free
    due = samples.scheduled_ns if samples.ready_ns is None else samples.ready_ns
    return np.asarray(samples.issued_ns[keep] - due[keep])

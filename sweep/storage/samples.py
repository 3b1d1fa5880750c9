"""Hold the raw samples of one variant: the times of each request, warm-up included and marked.

Everything that is printed is a pure function of these (``sweep.analysis.percentiles``), so a figure can be recomputed
from disk for as long as the file lasts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage.record_types import CpuLoad, GpuState

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
GpuMs = NDArray[np.float32]
NEVER = -1  # done_ns of a request that was never completed

ARRAYS = ("scheduled_ns", "issued_ns", "done_ns", "slot_free", "warmup", "stream")
_GATHERED = ("ran_with", "ready_ns")  # None without server batching
ASIDE = ("closed", "calm", "busy", "probe", "confirm")  # kinds that are no rung of the ladder
GPU_ARRAYS = ("gpu_h2d_ms", "gpu_compute_ms", "gpu_d2h_ms")  # None where the backend does not time its device
PARTS = (*GPU_ARRAYS, "enqueue_ms")  # columns of ``base.SupportsPartTimes``
STAGES = "stage_ms"  # the one array of two dimensions: a column for each stage
OPTIONAL_ARRAYS = (*_GATHERED, *PARTS, "client", "shape", STAGES)
_TIMES = ("scheduled_ns", "issued_ns", "done_ns", "ready_ns")  # from the point's origin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointSamples:
    """Hold one load point of one pass. All arrays have one entry per request, in schedule order.

    Attributes:
        kind: ``closed``, ``poisson``, ``constant`` or ``trace``; ``calm`` and ``busy`` probe service times, ``probe``
            and ``confirm`` search the capacity at an SLO.
        index: place on the rate ladder, lowest rate first; -1 for the closed loop and the probes of service times.
        repeat: pass that measured it, from 0.
        batch: samples per request.
        offered_rps: offered rate, requests/s; None for the closed loop.
        overloaded: the backlog bound was passed and the point stopped early.
        complete: minimum duration and minimum count were both reached.
        origin_ns: zero of the times below on the session's clock; None in files of versions that did not store it.
        cpu_load: use of the cores in the measured window; None where it was not measured.
        telemetry: state of the GPU in the measured window (``analysis.gpu_telemetry``); None if it was not monitored.
        scheduled_ns: arrival by the schedule, monotonic clock; for the closed loop the issue time.
        issued_ns: when the request was handed to the session.
        done_ns: completion as the host saw it; ``NEVER`` where it was not reached.
        slot_free: a stream was waiting for this request when it was due.
        warmup: whether the request does not count: it came before the measured window or, with several clients, while
            not all of them ran.
        stream: stream that served it, of its client.
        gathers: most requests that the server gathers into one inference; None where each runs by itself.
        ran_with: requests in the inference that served it, itself included; 0 where none did. With ``gathers``.
        ready_ns: when that inference was due by the batching rule: the batch was full, or its oldest request had waited
            long enough. With ``gathers``.
        stretch: sentinel interval of this pass, as the number of the sentinel's run before it; None without a sentinel.
        gpu_h2d_ms: GPU time of the copies to the device; NaN for a request that was not served or copied nothing.
        gpu_compute_ms: GPU time of the inference alone.
        gpu_d2h_ms: GPU time of the copies back.
        enqueue_ms: host time that the enqueue of the inference took, copies left out.
        asked: SLO for which ``probe`` and ``confirm`` were measured, as ``p99<=10``; None for the rest.
        client: client that served it; None where there is one.
        shape: entry of ``load.shapes`` whose shape it had; None where all had that of the model.
        stage_ms: time of each stage of a pipeline, shape (requests, stages), ms; NaN for a request that was not served.
            None for one network.
    """

    kind: str
    index: int
    repeat: int
    batch: int
    offered_rps: float | None
    overloaded: bool
    complete: bool
    scheduled_ns: Ints
    issued_ns: Ints
    done_ns: Ints
    slot_free: Bools
    warmup: Bools
    stream: NDArray[np.int16]
    gathers: int | None = None
    ran_with: NDArray[np.int32] | None = None
    ready_ns: Ints | None = None
    origin_ns: int | None = None
    telemetry: GpuState | None = None
    cpu_load: CpuLoad | None = None
    stretch: int | None = None
    gpu_h2d_ms: GpuMs | None = None
    gpu_compute_ms: GpuMs | None = None
    gpu_d2h_ms: GpuMs | None = None
    enqueue_ms: GpuMs | None = None
    asked: str | None = None
    client: NDArray[np.int16] | None = None
    shape: NDArray[np.int16] | None = None
    stage_ms: NDArray[np.float32] | None = None

    @property
    def stream_id(self) -> NDArray[np.int64]:
        """Return the number of the stream that served each request, counted over all clients."""
        stream = self.stream.astype(np.int64)
        return stream if self.client is None else self.client * (int(stream.max(initial=0)) + 1) + stream

    @property
    def measured(self) -> Bools:
        """Return which requests count: completed and after the warm-up."""
        return np.asarray(~self.warmup & (self.done_ns != NEVER), dtype=np.bool_)

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """Return the latency of each measured request from its scheduled arrival, in arrival order, ms."""
        keep = self.measured
        return np.asarray((self.done_ns[keep] - self.scheduled_ns[keep]) / 1e6)


def merged(parts: Sequence[PointSamples]) -> PointSamples:
    """Merge the samples that several clients measured at the same time into one point, in schedule order.

    Args:
        parts: samples of each client, by number; their origins are times on one clock.

    Returns:
        Samples with the rates of all clients added up; ``client`` names the client of each request.
    """
    origin = min(part.origin_ns or 0 for part in parts)
    moved = [_moved(part, (part.origin_ns or 0) - origin) for part in parts]
    order = np.argsort(np.concatenate([part.scheduled_ns for part in moved]), kind="stable")
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in moved])[order]
        for name in (*ARRAYS, *OPTIONAL_ARRAYS)
        if getattr(moved[0], name) is not None
    }
    client = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part.stream) for part in parts])[order]
    offered = [part.offered_rps for part in parts if part.offered_rps is not None]
    return dataclasses.replace(
        parts[0],
        **columns,
        client=client,
        origin_ns=origin,
        offered_rps=sum(offered) if offered else None,
        overloaded=any(part.overloaded for part in parts),
        complete=all(part.complete for part in parts),
    )


def _moved(part: PointSamples, by_ns: int) -> PointSamples:
    """Return the samples with their times counted from an origin that lies ``by_ns`` earlier."""
    times: dict[str, Any] = {name: getattr(part, name) for name in _TIMES if getattr(part, name) is not None}
    moved: dict[str, Any] = {name: np.where(value == NEVER, value, value + by_ns) for name, value in times.items()}
    return dataclasses.replace(part, **moved)


def sentinel_intervals(points: list[PointSamples]) -> list[int | None]:
    """Return the sentinel interval of each pass, in the order of passes.

    Points of the search for a capacity belong to no pass and are left out.
    """
    return list({point.repeat: point.stretch for point in points if point.asked is None}.values())

"""Raw samples of one variant: what the clock said, request by request, warm-up included and marked.

Everything that is printed is a pure function of these (``sweep.stats``), so a figure can be recomputed
from disk for as long as the file lasts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweep.errors import RecordError
from sweep.record import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
GpuMs = NDArray[np.float32]
NEVER = -1  # done_ns of a request that was never completed

_ARRAYS = ("scheduled_ns", "issued_ns", "done_ns", "slot_free", "warmup", "stream")
_GATHERED = ("ran_with", "ready_ns")  # None without server batching
ASIDE = ("closed", "calm", "busy", "probe", "confirm")  # kinds that are no rung of the ladder
_DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, RecursionError, NotImplementedError, AttributeError),
)
_MOST_BYTES = 4 << 30  # 60 million requests
GPU_ARRAYS = ("gpu_h2d_ms", "gpu_compute_ms", "gpu_d2h_ms")  # None where the backend does not time its device
PARTS = (*GPU_ARRAYS, "enqueue_ms")  # columns of ``base.TimesParts``
_OPTIONAL = (*_GATHERED, *PARTS, "client")
_TIMES = ("scheduled_ns", "issued_ns", "done_ns", "ready_ns")  # from the point's origin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointSamples:
    """One load point of one pass. All arrays have one entry per request, in schedule order.

    Attributes:
        kind: ``closed``, ``poisson``, ``constant`` or ``trace``; ``calm`` and ``busy`` probe service times, ``probe``
            and ``confirm`` search the capacity at an SLO.
        index: place on the ladder, lowest rate first; -1 for the closed loop and the probes of service times.
        repeat: pass that measured it, from 0.
        batch: samples per request.
        offered_rps: offered rate, requests/s; None for the closed loop.
        overloaded: the backlog bound was passed and the point stopped early.
        complete: minimum duration and minimum count were both reached.
        origin_ns: zero of the times below on the session's clock; None in files of before it was kept.
        telemetry: what the GPU did in the measured window (``sweep.gpu_state``); None where nothing watched it.
        scheduled_ns: arrival by the schedule, monotonic clock; for the closed loop the issue time.
        issued_ns: when the request was handed to the session.
        done_ns: completion as the host saw it; ``NEVER`` where it was not reached.
        slot_free: a stream was waiting for this request when it was due.
        warmup: does not count: before the measured window or, of several clients, while not all of them ran.
        stream: stream that served it, of its client.
        gathers: most requests that the server gathers into one inference; None where each runs by itself.
        ran_with: requests in the inference that served it, itself included; 0 where none did. With ``gathers``.
        ready_ns: when that inference was to start by the rule: full, or its oldest had waited. With ``gathers``.
        stretch: number of the sentinel's run before this pass; None where no sentinel runs.
        gpu_h2d_ms: GPU time of the copies to the device; NaN for a request that was not served or copied nothing.
        gpu_compute_ms: GPU time of the inference alone.
        gpu_d2h_ms: GPU time of the copies back.
        enqueue_ms: host time that the enqueue of the inference took, copies left out.
        asked: SLO for which ``probe`` and ``confirm`` were measured, as ``p99<=10``; None for the rest.
        client: client that served it; None where there is one.
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
    telemetry: dict[str, Any] | None = None
    stretch: int | None = None
    gpu_h2d_ms: GpuMs | None = None
    gpu_compute_ms: GpuMs | None = None
    gpu_d2h_ms: GpuMs | None = None
    enqueue_ms: GpuMs | None = None
    asked: str | None = None
    client: NDArray[np.int16] | None = None

    @property
    def lane(self) -> NDArray[np.int64]:
        """Number of the stream that served each request, counted over all clients."""
        own = self.stream.astype(np.int64)
        return own if self.client is None else self.client * (int(own.max(initial=0)) + 1) + own

    @property
    def measured(self) -> Bools:
        """Requests that count: completed and after the warm-up."""
        return np.asarray(~self.warmup & (self.done_ns != NEVER), dtype=np.bool_)

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """Latency of each measured request, from the scheduled arrival, in arrival order."""
        keep = self.measured
        return np.asarray((self.done_ns[keep] - self.scheduled_ns[keep]) / 1e6)


def merged(parts: Sequence[PointSamples]) -> PointSamples:
    """One point of what several clients measured at the same time, in the order of all their schedules.

    Args:
        parts: of each client, by number; their origins are times on one clock.
    """
    origin = min(part.origin_ns or 0 for part in parts)
    moved = [_moved(part, (part.origin_ns or 0) - origin) for part in parts]
    order = np.argsort(np.concatenate([part.scheduled_ns for part in moved]), kind="stable")
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in moved])[order]
        for name in (*_ARRAYS, *_OPTIONAL)
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
    """The same times from an origin that lies ``by_ns`` earlier."""
    times: dict[str, Any] = {name: getattr(part, name) for name in _TIMES if getattr(part, name) is not None}
    moved: dict[str, Any] = {name: np.where(value == NEVER, value, value + by_ns) for name, value in times.items()}
    return dataclasses.replace(part, **moved)


def save(path: Path, points: list[PointSamples], *, durable: bool = True) -> None:
    """Write the points to one compressed npz, atomically; where ``durable``, to outlast a power cut."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_packed(points))
    write_atomic(path, buffer.getvalue(), durable=durable)


def hand_over(path: Path, points: list[PointSamples]) -> None:
    """Write the points for a reader that waits for them: quickly, and not to last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **_packed(points))


def handed_over(path: Path, clients: int) -> list[Path]:
    """Where each client of a job, whose samples go to ``path``, hands its own over."""
    return [path.with_name(f"{path.name}.client{number}") for number in range(clients)]


def _packed(points: list[PointSamples]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    heads = []
    for number, point in enumerate(points):
        heads.append({name: getattr(point, name) for name in _head_fields()})
        for name in (*_ARRAYS, *_OPTIONAL):
            if getattr(point, name) is not None:
                arrays[f"{number}/{name}"] = getattr(point, name)
    arrays["points"] = np.frombuffer(json.dumps(heads).encode(), dtype=np.uint8)
    return arrays


def load(path: Path) -> list[PointSamples]:
    """The points of one npz, in the order they were saved.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            heads = json.loads(file["points"].tobytes())
            return [
                PointSamples(**head, **{name: file[f"{number}/{name}"] for name in _ARRAYS}, **_optional(file, number))
                for number, head in enumerate(heads)
            ]
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The npz, once it is seen that it unpacks to what samples may take; nothing in it is ever unpickled."""
    with zipfile.ZipFile(path) as packed:
        size = sum(item.file_size for item in packed.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, of at most {_MOST_BYTES}")
    with np.load(path, allow_pickle=False) as file:
        yield file


def asked(path: Path, slo: str) -> bool:
    """Whether any point of the npz was measured for ``slo``; only the heads are read.

    Raises:
        RecordError: the file is not there or damaged.
    """
    try:
        with _opened(path) as file:
            return any(head.get("asked") == slo for head in json.loads(file["points"].tobytes()))
    except _DAMAGES as error:
        raise RecordError(f"samples {path} cannot be read ({error}); measure again with force=true") from error


def stretches(points: list[PointSamples]) -> list[int | None]:
    """Number of the sentinel's run before each pass, by pass; the search of a capacity is no pass."""
    return list({point.repeat: point.stretch for point in points if point.asked is None}.values())


def _head_fields() -> tuple[str, ...]:
    return tuple(name for name in PointSamples.__slots__ if name not in {*_ARRAYS, *_OPTIONAL})


def _optional(file: Any, number: int) -> dict[str, Any]:
    return {name: file[f"{number}/{name}"] for name in _OPTIONAL if f"{number}/{name}" in file}

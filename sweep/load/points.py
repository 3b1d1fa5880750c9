"""One load point: a closed loop or an open loop at one rate -> its samples."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.base import TimesParts
from sweep.load import batcher, servers, trace
from sweep.load.arrivals import Schedule, drawn
from sweep.samples import NEVER, PARTS, PointSamples
from sweep.summary import STABLE_WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sweep.axes import LoadAxes
    from sweep.backends.base import Session, Stream

_START_NS = 5_000_000  # to the schedule's zero: threads start, and the first arrivals find them waiting
_LONGEST_BURST_S = 60.0  # for a stream that has not run once
_STRETCHES = 3  # warm-up stretches that must agree
_WARMUP_LIMIT = 10  # times load.warmup_s after which warm-up ends, stable or not
_STRETCH_COUNT = 2  # inferences per stream in each warm-up stretch, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a point stands.

    Attributes:
        index: rung of the ladder; -1 for the closed loop.
        repeat: pass, from 0.
        batch: samples per inference; also per request, unless the server batches (``samples_per_request``).
    """

    index: int
    repeat: int
    batch: int


def samples_per_request(load: LoadAxes, batch: int) -> int:
    """Samples that one open-loop arrival carries: 1 where the server gathers them, else the whole batch."""
    return batch if load.batch_wait_ms is None else 1


def now_ns(session: Session) -> int:
    """The latest time on the session's clocks."""
    return max(stream.clock.now_ns() for stream in session.streams)


def closed_point(session: Session, load: LoadAxes, place: Place) -> PointSamples:
    """Closed loop at ``load.depth``: warm-up until the throughput is stable, then the measured window."""
    warm = _warm_up(session, load)
    start = _align(session)
    least = math.ceil(load.min_requests / len(session.streams))
    until = servers.Until(start, _ns(load.min_s), _ns(load.max_s), least)
    measured = _run_closed(session, load.depth, until)
    complete = sum(len(server.done) for server in measured) >= load.min_requests
    return _closed_samples(warm, measured, place, complete=complete)


def burst(session: Session, depth: int, seconds: float) -> int:
    """All streams at once for a while, each for one inference at least; the number of inferences."""
    until = servers.Until(_align(session), _ns(seconds), _ns(_LONGEST_BURST_S), 1)
    return sum(len(server.done) for server in _run_closed(session, depth, until))


def _warm_up(session: Session, load: LoadAxes) -> list[list[servers.ClosedServer]]:
    """Stretches of closed loop until the last three agree on throughput within 5%, or the limit is reached."""
    stretches: list[list[servers.ClosedServer]] = []
    rates: list[float] = []
    first = _align(session)
    while True:
        start = _align(session)
        until = servers.Until(start, _ns(load.warmup_s / _STRETCHES), _ns(load.max_s), _STRETCH_COUNT)
        ran = _run_closed(session, load.depth, until)
        stretches.append(ran)
        end = now_ns(session)
        rates.append(sum(len(server.done) for server in ran) / max(end - start, 1))
        last = rates[-_STRETCHES:]
        stable = len(last) == _STRETCHES and max(last) <= min(last) * (1 + STABLE_WITHIN)
        spent = end - first
        if (stable and spent >= _ns(load.warmup_s)) or spent >= _ns(max(load.warmup_s * _WARMUP_LIMIT, load.max_s)):
            return stretches


def _run_closed(session: Session, depth: int, until: servers.Until) -> list[servers.ClosedServer]:
    ran = [servers.ClosedServer(stream, depth, until) for stream in session.streams]
    _take_gpu_ms(session)
    servers.run(ran, virtual=session.virtual)
    for server, gpu_ms in zip(ran, _take_gpu_ms(session), strict=True):
        server.gpu_ms = gpu_ms
    return ran


def _take_gpu_ms(session: Session) -> list[NDArray[np.float32] | None]:
    """What each stream's device timed since the last call; None where it does not."""

    def take(stream: Stream) -> NDArray[np.float32] | None:
        return stream.take_parts_ms() if isinstance(stream, TimesParts) else None

    return [take(stream) for stream in session.streams]


def _gpu_columns(gpu_ms: NDArray[np.float32] | None) -> dict[str, Any]:
    return {} if gpu_ms is None else dict(zip(PARTS, np.ascontiguousarray(gpu_ms.T), strict=True))


def _closed_samples(
    warm: list[list[servers.ClosedServer]], measured: list[servers.ClosedServer], place: Place, *, complete: bool
) -> PointSamples:
    rows = [
        (issued, done, number, is_warm)
        for stretch, is_warm in [*((item, True) for item in warm), (measured, False)]
        for number, server in enumerate(stretch)
        for issued, done in zip(server.issued, server.done, strict=True)
    ]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    issued, done, number, is_warm = (np.array(column, dtype=np.int64)[order] for column in zip(*rows, strict=True))
    origin = issued[0]
    timed = [server.gpu_ms for stretch in (*warm, measured) for server in stretch if server.gpu_ms is not None]
    return PointSamples(
        kind="closed",
        index=place.index,
        repeat=place.repeat,
        batch=place.batch,
        offered_rps=None,
        overloaded=False,
        complete=complete,
        origin_ns=int(origin),
        scheduled_ns=issued - origin,
        issued_ns=issued - origin,
        done_ns=done - origin,
        slot_free=np.ones(len(issued), dtype=np.bool_),
        warmup=is_warm.astype(np.bool_),
        stream=number.astype(np.int16),
        **_gpu_columns(np.concatenate(timed)[order] if timed else None),
    )


def open_point(session: Session, load: LoadAxes, rate_rps: float, place: Place) -> PointSamples:
    """Open loop at ``rate_rps`` requests/s: the whole schedule drawn first, then issued as it falls due."""
    kind = load.arrivals if load.kind == "curve" else load.kind
    seed = (load.seed, place.index + 1, place.repeat)
    return replay(session, load, drawn(kind, rate_rps, request_counts(load, rate_rps), seed), place)


def trace_point(session: Session, load: LoadAxes, place: Place) -> PointSamples:
    """Open loop over the arrivals of ``load.trace``, all of them measured."""
    return replay(session, load, trace.replayed(load), place)


def replay(session: Session, load: LoadAxes, schedule: Schedule, place: Place) -> PointSamples:
    """Issue every arrival of ``schedule`` as it falls due, gathered into batches where ``load`` asks for it."""
    if load.batch_wait_ms is not None and session.partial_batches:
        session.prepare(range(1, place.batch))
    _take_gpu_ms(session)
    with contextlib.nullcontext() if session.virtual else servers.quiet_interpreter():  # its gc.collect takes 20 ms
        origin = _align(session) + (0 if session.virtual else _START_NS)
        queue, crew = _crew(session, load, (schedule.due_ns + origin).tolist(), place.batch)
        servers.run(crew, virtual=session.virtual)
    gpu_ms = _by_request(queue, crew, _take_gpu_ms(session))
    issued, done = np.array(queue.issued, dtype=np.int64), np.array(queue.done, dtype=np.int64)
    return PointSamples(
        kind=schedule.kind,
        index=place.index,
        repeat=place.repeat,
        batch=samples_per_request(load, place.batch),
        offered_rps=schedule.rate_rps,
        overloaded=queue.overloaded,
        complete=schedule.measured >= load.min_requests and not queue.overloaded,
        origin_ns=origin,
        scheduled_ns=schedule.due_ns,
        issued_ns=np.where(issued < 0, issued, issued - origin),
        done_ns=np.where(done < 0, done, done - origin),
        slot_free=np.array(queue.slot_free, dtype=np.bool_),
        warmup=np.arange(len(done)) < schedule.warmup,
        stream=np.array(queue.served_by, dtype=np.int16),
        **_gathered_columns(queue, origin),
        **_gpu_columns(gpu_ms),
    )


def _crew(
    session: Session, load: LoadAxes, due: list[int], batch: int
) -> tuple[servers.Queue, Sequence[servers.OpenServer | batcher.BatchServer]]:
    """The queue of the arrivals, and a server for each stream."""
    if load.batch_wait_ms is None:
        queue = servers.Queue(due, _ns(load.max_wait_s))
        return queue, [servers.OpenServer(stream, queue, number) for number, stream in enumerate(session.streams)]
    rule = batcher.Rule(batch=batch, max_wait_ns=_ns(load.batch_wait_ms / 1e3))
    gathered = batcher.BatchQueue(due, _ns(load.max_wait_s), rule)
    partial = session.partial_batches
    return gathered, [
        batcher.BatchServer(stream, gathered, number, partial=partial) for number, stream in enumerate(session.streams)
    ]


def _gathered_columns(queue: servers.Queue, origin_ns: int) -> dict[str, Any]:
    if not isinstance(queue, batcher.BatchQueue):
        return {}
    ran_with, ready = np.array(queue.ran_with, dtype=np.int32), np.array(queue.ready, dtype=np.int64)
    return {
        "gathers": queue.rule.batch,
        "ran_with": ran_with,
        "ready_ns": np.where(ran_with > 0, ready - origin_ns, NEVER),
    }


def _by_request(
    queue: servers.Queue,
    crew: Sequence[servers.OpenServer | batcher.BatchServer],
    taken: list[NDArray[np.float32] | None],
) -> NDArray[np.float32] | None:
    """The streams' GPU times in the order of the requests; those that ran together have the same.

    A stream serves its requests in that order.
    """
    served_by, done = np.array(queue.served_by), np.array(queue.done)
    out = np.full((len(done), len(PARTS)), np.nan, dtype=np.float32)
    for number, (server, times) in enumerate(zip(crew, taken, strict=True)):
        if times is None:
            return None
        each = np.repeat(times, server.sizes, axis=0) if isinstance(server, batcher.BatchServer) else times
        out[(served_by == number) & (done != NEVER)] = each
    return out


def request_counts(load: LoadAxes, rate_rps: float) -> tuple[int, int]:
    """Warm-up and measured requests of an open-loop point at ``rate_rps``."""
    wanted = max(load.min_requests, math.ceil(rate_rps * load.min_s))
    affordable = max(1, math.floor(rate_rps * load.max_s))
    return math.ceil(rate_rps * load.warmup_s), min(wanted, affordable)


def _align(session: Session) -> int:
    """Bring virtual clocks to the same time; the time."""
    now = now_ns(session)
    if session.virtual:
        for stream in session.streams:
            stream.clock.sleep_until_ns(now)
    return now


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def total_rates(fractions: Sequence[float], peak_ips: float) -> tuple[float, ...]:
    """Offered rates in samples/s, lowest first."""
    return tuple(sorted(fraction * peak_ips for fraction in fractions))

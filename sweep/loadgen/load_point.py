"""Measure one load point: a closed loop, or an open loop at one rate."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.analysis import STABLE_WITHIN
from sweep.backends import SupportsPartTimes
from sweep.loadgen import arrival_trace, closed_loop, dynamic_batching, issue_loops, open_loop, shape_mix
from sweep.loadgen.arrivals import Schedule, draw_schedule
from sweep.loadgen.communicator import agree_on_start, communicator_of, latest_now_ns, merge_clients
from sweep.storage import NEVER, PARTS, STAGES, PointSamples
from sweep.system import ClockWatch, clock_jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sweep.backends import Session, Stream
    from sweep.spec import LoadAxes

_START_NS = 5_000_000  # to the schedule's zero: threads start, and the first arrivals find them waiting
_START_NS_PER_ARRIVAL = 200  # and the arrays of the schedule are made
_LONGEST_BURST_S = 60.0  # for a stream that has not run once
_WARMUP_INTERVALS = 3  # that must agree
_WARMUP_LIMIT = 10  # times load.warmup_s after which warm-up ends, stable or not
_WINDOW_MARGIN = 1.2  # a common window is this much longer than the rate of the warm-up says
_COUNT_MARGIN = 1.02  # over the count: the ends of a common window, where not every client runs, do not count
_MIN_INTERVAL_INFERENCES = 2  # per stream in each warm-up interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Locate a point in the load of a variant.

    Attributes:
        index: rung of the rate ladder; -1 for the closed loop.
        repeat: pass, from 0.
        batch: samples per inference; also per request, unless the server batches (``samples_per_request``).
    """

    index: int
    repeat: int
    batch: int


def samples_per_request(load: LoadAxes, batch: int) -> int:
    """Return how many samples one open-loop arrival carries: 1 where the server batches, else ``batch``."""
    return batch if load.batch_wait_ms is None else 1


def closed_point(session: Session, load: LoadAxes, place: Place) -> PointSamples:
    """Measure a closed loop at ``load.depth``: warm-up until the throughput is stable, then the measured window.

    Args:
        session: what is driven.
        load: its depth, warm-up and bounds.
        place: place of the point.
    """
    together = communicator_of(session).size > 1 and not session.virtual
    with (
        issue_loops.quiet_interpreter() if together else contextlib.nullcontext()
    ):  # else its gc.collect delays one start
        draws = shape_mix.of_point(load, session, place.index, place.repeat)
        warm, rate_rps = _warm_up(session, load, draws)
        if communicator_of(session).size > 1:
            measured = _common_window(session, load, rate_rps, warm, draws)
        else:
            least = math.ceil(load.min_requests / len(session.streams))
            measured = _run_closed(session, load.depth, _ns(load.min_s), _ns(load.max_s), least, draws)
    complete = sum(len(server.done) for server in measured) >= load.min_requests
    return merge_clients(session, _closed_samples(warm, measured, place, complete=complete), load.min_requests)


def burst(session: Session, depth: int, seconds: float) -> int:
    """Run all streams at once, each for one inference at least.

    Args:
        session: what is driven.
        depth: inferences in flight per stream.
        seconds: duration, s.

    Returns:
        The number of inferences.
    """
    servers = _run_closed(session, depth, _ns(seconds), _ns(_LONGEST_BURST_S), 1)
    return sum(len(server.done) for server in servers)


def _warm_up(
    session: Session, load: LoadAxes, draws: shape_mix.ShapeDraws | None
) -> tuple[list[list[closed_loop.ClosedServer]], float]:
    """Run intervals of closed loop until the last three agree on throughput within 5%, or the limit is reached.

    Returns:
        The servers of each interval, and requests/s of all clients in the last one.
    """
    intervals: list[list[closed_loop.ClosedServer]] = []
    rates: list[float] = []
    first = latest_now_ns(session)
    while True:
        servers = _run_closed(
            session,
            load.depth,
            _ns(load.warmup_s / _WARMUP_INTERVALS),
            _ns(load.max_s),
            _MIN_INTERVAL_INFERENCES,
            draws,
        )
        intervals.append(servers)
        rates.append(sum(communicator_of(session).all_gather(_rate_rps(servers))))
        last = rates[-_WARMUP_INTERVALS:]
        stable = len(last) == _WARMUP_INTERVALS and max(last) <= min(last) * (1 + STABLE_WITHIN)
        elapsed_ns = latest_now_ns(session) - first
        limit_ns = _ns(max(load.warmup_s * _WARMUP_LIMIT, load.max_s))
        if (stable and elapsed_ns >= _ns(load.warmup_s)) or elapsed_ns >= limit_ns:
            return intervals, rates[-1]


def _rate_rps(servers: Sequence[closed_loop.ClosedServer]) -> float:
    """Return requests/s of one client; 0 where it was delayed for so long that it served nothing."""
    active = [server for server in servers if len(server.done)]
    start = min((int(server.issued[0]) for server in active), default=0)
    end = max((int(server.done[-1]) for server in active), default=0)
    return sum(len(server.done) for server in active) / (max(end - start, 1) / 1e9)


def _common_window(
    session: Session,
    load: LoadAxes,
    rate_rps: float,
    warm: list[list[closed_loop.ClosedServer]],
    draws: shape_mix.ShapeDraws | None,
) -> list[closed_loop.ClosedServer]:
    """Run a closed loop of a length that all clients agree on: what their count needs at ``rate_rps``.

    A window that turns out too short for the count joins the warm-up, and a longer one follows.
    """
    window_s = min(max(load.min_s, _WINDOW_MARGIN * load.min_requests / max(rate_rps, 1e-9)), load.max_s)
    while True:
        servers = _run_closed(session, load.depth, _ns(window_s), _ns(window_s), 0, draws)
        counted = sum(communicator_of(session).all_gather(sum(len(server.done) for server in servers)))
        if counted >= load.min_requests * _COUNT_MARGIN or window_s >= load.max_s:
            return servers
        warm.append(servers)
        window_s = min(window_s * max(_WINDOW_MARGIN, _WINDOW_MARGIN * load.min_requests / max(counted, 1)), load.max_s)


def _run_closed(
    session: Session, depth: int, min_ns: int, max_ns: int, least: int, draws: shape_mix.ShapeDraws | None = None
) -> list[closed_loop.ClosedServer]:
    """Run a closed loop from now, or from the start that all clients agree on; bounds as of ``closed_loop.Until``."""
    entries = [None] * len(session.streams) if draws is None else draws.closed()
    start, watch = agree_on_start(session), ClockWatch()
    servers = [
        closed_loop.ClosedServer(
            stream,
            depth,
            closed_loop.Until(start, min_ns, max_ns, least),
            None if draws is None or own is None else _in_turn(stream, draws.engines[own]),
        )
        for stream, own in zip(session.streams, entries, strict=True)
    ]
    _take_gpu_ms(session)
    session.streams[0].clock.sleep_until_ns(start)
    issue_loops.run(servers, virtual=session.virtual)
    if not session.virtual:
        watch.check()
        for server in servers:
            _check_order(np.array(server.issued), np.array(server.done))
    for server, gpu_ms in zip(servers, _take_gpu_ms(session), strict=True):
        server.gpu_ms = gpu_ms
    for server, own in zip(servers, entries, strict=True):
        server.shapes = None if own is None else np.resize(own, len(server.issued))
    return servers


def _in_turn(stream: Stream, engines: NDArray[np.int16]) -> Callable[[], None]:
    """Return a call that starts an inference of the next shape on a stream, and of the first one after the last."""
    enqueue, following = stream.enqueue_shape, itertools.cycle(engines.tolist()).__next__  # type: ignore[attr-defined]

    def call() -> None:
        enqueue(following())

    return call


def _check_order(issued: NDArray[np.int64], done: NDArray[np.int64]) -> None:
    """Check that the times of one stream, in the order in which they were read, never go back.

    A clock that is set forward and back again within one window shows no difference at the window's end.

    Raises:
        LoadError: they do.
    """
    if (np.diff(issued) < 0).any() or (np.diff(done) < 0).any() or (done < issued).any():
        raise clock_jumps.jumped(None)


def _take_gpu_ms(session: Session) -> list[NDArray[np.float32] | None]:
    """Return the times that each stream's device took since the last call, ms; None where it takes none."""

    def take(stream: Stream) -> NDArray[np.float32] | None:
        return stream.take_parts_ms() if isinstance(stream, SupportsPartTimes) else None

    return [take(stream) for stream in session.streams]


def _gpu_columns(gpu_ms: Sequence[NDArray[np.float32]], order: NDArray[np.int64] | slice) -> dict[str, Any]:
    """Return the part times as columns, in this order of the requests, and those of the stages of a pipeline.

    A part without any time takes no memory; no part of a pipeline has a column where no device was timed.
    """
    columns: dict[str, Any] = {}
    of_stages = bool(gpu_ms) and gpu_ms[0].shape[1] > len(PARTS)
    if of_stages:
        columns[STAGES] = np.concatenate([own[:, len(PARTS) :] for own in gpu_ms])[order]
        if all(np.isnan(own[:, : len(PARTS)]).all() for own in gpu_ms):
            return columns
    for number, name in enumerate(PARTS if gpu_ms else ()):
        if all(np.isnan(own[:, number]).all() for own in gpu_ms):
            columns[name] = np.broadcast_to(np.float32(np.nan), sum(map(len, gpu_ms)))
        else:
            columns[name] = np.concatenate([own[:, number] for own in gpu_ms])[order]
    return columns


def _closed_samples(
    warm: list[list[closed_loop.ClosedServer]],
    measured: list[closed_loop.ClosedServer],
    place: Place,
    *,
    complete: bool,
) -> PointSamples:
    of_each = [
        (server, number, is_warm)
        for interval, is_warm in [*((item, True) for item in warm), (measured, False)]
        for number, server in enumerate(interval)
    ]
    counts = [len(server.done) for server, _, _ in of_each]
    issued = np.concatenate([np.asarray(server.issued, dtype=np.int64) for server, _, _ in of_each])
    done = np.concatenate([np.asarray(server.done, dtype=np.int64) for server, _, _ in of_each])
    number = np.repeat(np.array([number for _, number, _ in of_each], dtype=np.int16), counts)
    is_warm = np.repeat(np.array([is_warm for _, _, is_warm in of_each], dtype=np.bool_), counts)
    order: NDArray[np.int64] | slice = slice(None)
    if (np.diff(issued) <= 0).any():  # several streams
        order = np.lexsort((is_warm, number, done, issued))
        issued, done, number, is_warm = issued[order], done[order], number[order], is_warm[order]
    origin = issued[0]
    issued -= origin
    done -= origin
    shapes = [server.shapes for server, _, _ in of_each if server.shapes is not None]
    timed = [server.gpu_ms for server, _, _ in of_each if server.gpu_ms is not None]
    return PointSamples(
        kind="closed",
        index=place.index,
        repeat=place.repeat,
        batch=place.batch,
        offered_rps=None,
        overloaded=False,
        complete=complete,
        origin_ns=int(origin),
        scheduled_ns=issued,
        issued_ns=issued,  # one array for both: a closed loop issues when it schedules
        done_ns=done,
        slot_free=np.ones(len(issued), dtype=np.bool_),
        warmup=is_warm,
        stream=number,
        shape=np.concatenate(shapes)[order] if shapes else None,
        **_gpu_columns(timed, order),
    )


def open_point(session: Session, load: LoadAxes, rate_rps: float, place: Place) -> PointSamples:
    """Measure an open loop: the whole schedule is drawn first, then issued as it falls due.

    Args:
        session: what is driven.
        load: its arrival process, bounds and seed.
        rate_rps: rate that all clients offer together, requests/s.
        place: place of the point; its index and repeat are part of the seed.
    """
    kind = load.arrivals if load.kind == "curve" else load.kind
    seed = (load.seed, place.index + 1, place.repeat)
    clients = communicator_of(session)
    return replay(
        session,
        load,
        draw_schedule(kind, rate_rps, request_counts(load, rate_rps), seed, clients.rank, clients.size),
        place,
    )


def trace_point(session: Session, load: LoadAxes, place: Place) -> PointSamples:
    """Measure an open loop over the arrivals of ``load.trace``, all of them; several clients take them in turn.

    Raises:
        LoadError: the file cannot be read, or is not the one that was planned.
    """
    clients = communicator_of(session)
    return replay(session, load, arrival_trace.replay_schedule(load).deal(clients.rank, clients.size), place)


def replay(session: Session, load: LoadAxes, schedule: Schedule, place: Place) -> PointSamples:
    """Issue every arrival of ``schedule`` as it falls due, gathered into batches where ``load`` asks for it."""
    return merge_clients(session, _replayed(session, load, schedule, place), load.min_requests)


def _replayed(session: Session, load: LoadAxes, schedule: Schedule, place: Place) -> PointSamples:
    if load.batch_wait_ms is not None and session.partial_batches:
        session.prepare(range(1, place.batch))
    draws = shape_mix.of_point(load, session, place.index, place.repeat)
    shapes = None if draws is None else draws.arrivals(len(schedule.due_ns))
    engines = None if draws is None else draws.engines[shapes].tolist()
    _take_gpu_ms(session)
    with contextlib.nullcontext() if session.virtual else issue_loops.quiet_interpreter():  # its gc.collect takes time
        watch = ClockWatch()
        origin = agree_on_start(session, _START_NS + _START_NS_PER_ARRIVAL * len(schedule.due_ns))
        queue, servers = _servers(session, load, (schedule.due_ns + origin).tolist(), place.batch, engines)
        issue_loops.run(servers, virtual=session.virtual)
    gpu_ms = _by_request(queue, servers, _take_gpu_ms(session))
    issued, done = np.array(queue.issued, dtype=np.int64), np.array(queue.done, dtype=np.int64)
    if not session.virtual:
        watch.check()
        served_by = np.array(queue.served_by)
        for number in range(len(servers)):
            own = (served_by == number) & (done != NEVER)
            _check_order(issued[own], done[own])
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
        shape=shapes,
        **_gathered_columns(queue, origin),
        **_gpu_columns([] if gpu_ms is None else [gpu_ms], slice(None)),
    )


def _servers(
    session: Session, load: LoadAxes, due: list[int], batch: int, engines: Sequence[int] | None
) -> tuple[open_loop.Queue, Sequence[open_loop.OpenServer | dynamic_batching.BatchServer]]:
    """Make the queue of the arrivals, and a server for each stream."""
    if load.batch_wait_ms is None:
        queue = open_loop.Queue(due, _ns(load.max_wait_s))
        return queue, [
            open_loop.OpenServer(stream, queue, number, engines) for number, stream in enumerate(session.streams)
        ]
    rule = dynamic_batching.Rule(batch=batch, max_wait_ns=_ns(load.batch_wait_ms / 1e3))
    gathered = dynamic_batching.BatchQueue(due, _ns(load.max_wait_s), rule)
    partial = session.partial_batches
    return gathered, [
        dynamic_batching.BatchServer(stream, gathered, number, partial=partial)
        for number, stream in enumerate(session.streams)
    ]


def _gathered_columns(queue: open_loop.Queue, origin_ns: int) -> dict[str, Any]:
    if not isinstance(queue, dynamic_batching.BatchQueue):
        return {}
    ran_with, ready = np.array(queue.ran_with, dtype=np.int32), np.array(queue.ready, dtype=np.int64)
    return {
        "gathers": queue.rule.batch,
        "ran_with": ran_with,
        "ready_ns": np.where(ran_with > 0, ready - origin_ns, NEVER),
    }


def _by_request(
    queue: open_loop.Queue,
    servers: Sequence[open_loop.OpenServer | dynamic_batching.BatchServer],
    stream_times: list[NDArray[np.float32] | None],
) -> NDArray[np.float32] | None:
    """Return the streams' GPU times in the order of the requests; requests of one batch have the same.

    A stream serves its requests in that order.
    """
    served_by, done = np.array(queue.served_by), np.array(queue.done)
    columns = next((times.shape[1] for times in stream_times if times is not None), len(PARTS))
    out = np.full((len(done), columns), np.nan, dtype=np.float32)
    for number, (server, times) in enumerate(zip(servers, stream_times, strict=True)):
        if times is None:
            return None
        each = np.repeat(times, server.sizes, axis=0) if isinstance(server, dynamic_batching.BatchServer) else times
        out[(served_by == number) & (done != NEVER)] = each
    return out


def request_counts(load: LoadAxes, rate_rps: float) -> tuple[int, int]:
    """Return how many warm-up and measured requests an open-loop point has at ``rate_rps`` requests/s."""
    required = max(load.min_requests, math.ceil(rate_rps * load.min_s))
    affordable = max(1, math.floor(rate_rps * load.max_s))
    return math.ceil(rate_rps * load.warmup_s), min(required, affordable)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def total_rates(fractions: Sequence[float], peak_ips: float) -> tuple[float, ...]:
    """Return the offered rates at ``fractions`` of the peak, samples/s, lowest first."""
    return tuple(sorted(fraction * peak_ips for fraction in fractions))

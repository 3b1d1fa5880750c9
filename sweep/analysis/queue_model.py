"""Predict latencies from measured service times by simulating the queue in front of the streams.

Every function is pure: the same samples and the same arrivals give the same latencies. The model assumes no arrival
process: arrivals are an argument, so each process is predicted by its own. Service times come from the closed loop
and from two short probes; the samples of the predicted points are never looked at.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweep.analysis import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import PercentileName
    from sweep.storage import LatencySummary, PointSamples, Prediction, PredictionError

# Kinds of the two probes of service times. Sample files store these words, so they stay as they are.
UNLOADED, SATURATED = "calm", "busy"
_PREDICTED_PERCENTILES: tuple[PercentileName, ...] = ("p50", "p99")
_MAX_REQUESTS = 20_000  # simulated for one pass of a point; a shorter schedule is simulated up to _MAX_DRAWS times
_MAX_DRAWS = 5
_REPLAY = 11  # of the seed's children, so that no arrivals are drawn from the same stream

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """Hold the measured cost of a request, alone and under full concurrency.

    Attributes:
        streams: servers of all clients together.
        unloaded_ns: from arrival to completion of requests that found all streams idle, shape (n,), ns, in order.
        saturated_ns: from one completion to the next on a stream while all streams are busy at depth 1, shape (m,),
            ns, in order.
        clients: processes that the streams belong to, the same number each; each client has its own queue.
    """

    streams: int
    unloaded_ns: Floats
    saturated_ns: Floats
    clients: int = 1

    @property
    def capacity_rps(self) -> float:
        """Return the rate past which the queue grows without end, requests/s."""
        return float(self.streams / (self.saturated_ns.mean() / 1e9))

    def slowdowns(self) -> list[float]:
        """Return the time that a unit of work takes while k streams are busy, for k = 0 .. streams; 1 for k = 1.

        Linear in k between what was measured with one stream and with all streams busy.
        """
        most = float(self.saturated_ns.mean() / self.unloaded_ns.mean()) if self.streams > 1 else 1.0
        steps = max(self.streams - 1, 1)
        return [1.0, *(1 + (most - 1) * (busy - 1) / steps for busy in range(1, self.streams + 1))]


def estimate_service(points: Sequence[PointSamples]) -> Service | None:
    """Collect the service times that the closed loop and the probes beside it measured.

    Without a saturated probe the closed loop stands for it (its depth was 1). Without an unloaded one, as in samples
    of an earlier version, a lone request is taken to cost what a busy stream's does.

    Args:
        points: all samples of a variant.

    Returns:
        The service times; None without a closed loop.
    """
    closed = [point for point in points if point.kind == "closed"]
    saturated = [point for point in points if point.kind == SATURATED] or closed
    spacing = np.concatenate([_completion_gaps_ns(point) for point in saturated] or [np.empty(0)])
    if not closed or not len(spacing):
        return None
    unloaded = np.concatenate([_lone_latency_ns(point) for point in points if point.kind == UNLOADED] or [np.empty(0)])
    streams = max(int(point.stream_id.max(initial=0)) + 1 for point in closed)
    clients = max(1 if point.client is None else int(point.client.max(initial=0)) + 1 for point in closed)
    return Service(
        streams=streams,
        clients=clients,
        unloaded_ns=unloaded if len(unloaded) else spacing,
        saturated_ns=spacing,
    )


def _lone_latency_ns(point: PointSamples) -> Floats:
    """Return latencies of requests that found an idle stream; one that waited behind a stall was not alone."""
    keep = point.measured & point.slot_free
    return (point.done_ns[keep] - point.scheduled_ns[keep]).astype(np.float64)


def _completion_gaps_ns(point: PointSamples) -> Floats:
    """Return the gaps between completions on each stream; the gaps of all streams in the order of completion."""
    done, stream = point.done_ns[point.measured], point.stream_id[point.measured]
    ends, gaps = [], []
    for number in np.unique(stream):
        stream_ends = np.sort(done[stream == number])
        ends.append(stream_ends[1:])
        gaps.append(np.diff(stream_ends))
    if not gaps:
        return np.empty(0)
    order = np.argsort(np.concatenate(ends), kind="stable")
    return np.concatenate(gaps)[order].astype(np.float64)


def simulate_latency_ms(
    service: Service, due_ns: Floats, seed: int = 0, client: NDArray[np.int64] | None = None
) -> Floats:
    """Simulate a first-in-first-out queue in front of ``service.streams`` servers.

    Several clients have a queue each, in front of their own streams, and slow each other down.

    Service times are the measured ones, replayed in measured order from a seeded place, so that slow requests which
    came together stay together. A request that finds an idle stream takes a time of ``unloaded_ns``, one that had to
    wait a time of ``saturated_ns``; all requests in service share one slowdown, that of the number of busy streams.

    Args:
        service: measured service times.
        due_ns: arrival times, shape (n,), ns, ascending.
        seed: seed of the place from which the measured times are replayed.
        client: rank of the client that each arrival is for, shape (n,); None deals them out at random.

    Returns:
        Latency of each arrival, shape (n,), ms.
    """
    count = len(due_ns)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_REPLAY,)))
    slowdowns = service.slowdowns()
    unloaded = _replay_from_random_place(service.unloaded_ns, count, rng)
    saturated = _replay_from_random_place(service.saturated_ns, count, rng) / slowdowns[-1]
    if client is None:
        client = rng.integers(service.clients, size=count) if service.clients > 1 else np.zeros(count, dtype=np.int64)
    idle = [service.streams // service.clients] * service.clients
    done = _completions_ns(due_ns.tolist(), client.tolist(), idle, unloaded.tolist(), saturated.tolist(), slowdowns)
    return (np.asarray(done) - due_ns) / 1e6


def _replay_from_random_place(measured: Floats, count: int, rng: np.random.Generator) -> Floats:
    start = int(rng.integers(len(measured)))
    return measured[(start + np.arange(count)) % len(measured)]


def _completions_ns(
    due: list[float],
    client: list[int],
    idle: list[int],
    unloaded: list[float],
    saturated: list[float],
    slowdowns: list[float],
) -> list[float]:
    """Return the completion time of each arrival, ns, by an event simulation.

    ``work`` is a clock that counts the work which one request in service has received: all requests in service receive
    work at the same speed, so they complete in the order of ``work`` at their start plus their own service time.

    Args:
        due: arrival times, ns.
        client: client of each arrival.
        idle: idle streams of each client at the start.
        unloaded: service time of each request if it finds a stream idle, at a slowdown of 1.
        saturated: its service time if it had to wait, at a slowdown of 1.
        slowdowns: as ``Service.slowdowns``.
    """
    if sum(idle) == 1:
        return _one_stream_completions_ns(due, unloaded, saturated)
    count = len(due)
    done = [0.0] * count
    running: list[tuple[float, int]] = []  # work clock at completion, request
    waiting: list[deque[int]] = [deque() for _ in idle]
    now = work = 0.0
    arriving = 0
    while arriving < count or running:
        slowdown = slowdowns[len(running)]
        next_end = now + (running[0][0] - work) * slowdown if running else float("inf")
        if arriving < count and due[arriving] <= next_end:
            work += (due[arriving] - now) / slowdown if running else 0.0
            now = due[arriving]
            queue = client[arriving]
            if idle[queue]:
                idle[queue] -= 1
                heappush(running, (work + unloaded[arriving], arriving))
            else:
                waiting[queue].append(arriving)
            arriving += 1
        else:
            work, request = heappop(running)
            now = done[request] = next_end
            queue = client[request]
            if waiting[queue]:
                request = waiting[queue].popleft()
                heappush(running, (work + saturated[request], request))
            else:
                idle[queue] += 1
    return done


def _one_stream_completions_ns(due: list[float], unloaded: list[float], saturated: list[float]) -> list[float]:
    """Return the completion times of a single stream, on which no request slows another: twenty times as fast."""
    done, free = [], -math.inf
    for arrival, alone, after_another in zip(due, unloaded, saturated, strict=True):
        free = free + after_another if arrival <= free else arrival + alone
        done.append(free)
    return done


def predict_point(service: Service, passes: Sequence[PointSamples], measured_ms: LatencySummary) -> Prediction:
    """Predict the percentiles of one point from the very schedules of its passes, whatever process drew them.

    Args:
        service: measured service times.
        passes: samples of the point, one a pass; only their schedules are used.
        measured_ms: the point's ``latency_ms``, by percentile.

    Returns:
        {p50_ms, p99_ms, error: {p50, p99}}; an error is predicted / measured - 1, None where nothing was measured.
    """
    ordered = np.sort(np.concatenate([_simulate_pass_ms(service, samples) for samples in passes]))
    p50_ms, p99_ms = (percentiles.percentile(ordered, percentiles.PERCENTILES[name]) for name in _PREDICTED_PERCENTILES)
    error: PredictionError = {"p50": _error(p50_ms, measured_ms["p50"]), "p99": _error(p99_ms, measured_ms["p99"])}
    return {"p50_ms": p50_ms, "p99_ms": p99_ms, "error": error}


def _error(predicted_ms: float, measured_ms: float | None) -> float | None:
    return predicted_ms / measured_ms - 1 if measured_ms else None


def _simulate_pass_ms(service: Service, samples: PointSamples) -> Floats:
    """Simulate the schedule of one pass, a short one several times; latencies after the warm-up, ms."""
    due = samples.scheduled_ns[:_MAX_REQUESTS].astype(np.float64)
    client = None if samples.client is None else samples.client[: len(due)].astype(np.int64)
    keep = ~samples.warmup[: len(due)]
    if not keep.any():
        keep[:] = True
    draws = min(max(_MAX_REQUESTS // len(due), 1), _MAX_DRAWS)
    return np.concatenate([simulate_latency_ms(service, due, seed, client)[keep] for seed in range(draws)])

"""Measured service times -> the latencies that a schedule of arrivals would see, by simulating the queue.

Pure: the same samples and the same arrivals give the same latencies. What the generator did to be measured
(the closed loop, and two short probes) is all that it needs; the ladder's own samples are never looked at.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweep.analysis import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict
    from sweep.storage.samples import PointSamples

CALM, BUSY = "calm", "busy"  # kinds of the two probes that measure service times
_SHOWN = ("p50", "p99")
_REQUESTS = 20_000  # simulated for one point, at most; a shorter schedule is run up to _DRAWS times
_DRAWS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """What one request costs, alone and under full concurrency.

    Attributes:
        streams: servers, of all clients together.
        calm_ns: from arrival to completion of requests that found every stream idle, in order.
        busy_ns: from one completion to the next on a stream while all are busy at depth 1, in order.
        clients: processes that the streams belong to, the same number each; each has a queue of its own.
    """

    streams: int
    calm_ns: Floats
    busy_ns: Floats
    clients: int = 1

    @property
    def capacity_rps(self) -> float:
        """Requests/s past which the queue grows without end."""
        return float(self.streams / (self.busy_ns.mean() / 1e9))

    def paces(self) -> list[float]:
        """Time that a unit of work takes while k streams are busy, k = 0 .. streams; 1 for a lone request.

        Linear in k between what was measured at one and at all streams busy.
        """
        slowest = float(self.busy_ns.mean() / self.calm_ns.mean()) if self.streams > 1 else 1.0
        steps = max(self.streams - 1, 1)
        return [1.0, *(1 + (slowest - 1) * (busy - 1) / steps for busy in range(1, self.streams + 1))]


def service_of(points: Sequence[PointSamples]) -> Service | None:
    """Service times from the closed loop and the probes beside it; None where no loop was closed.

    Without a ``busy`` probe the closed loop stands for it (its depth was 1); without a ``calm`` one, as in
    samples of an earlier version, a lone request is taken to cost what a busy stream's does.
    """
    closed = [point for point in points if point.kind == "closed"]
    busy = [_spacing_ns(point) for point in points if point.kind == BUSY] or [_spacing_ns(point) for point in closed]
    spaced = np.concatenate(busy) if busy else np.empty(0)
    if not closed or not len(spaced):
        return None
    calm = np.concatenate([_alone_ns(point) for point in points if point.kind == CALM] or [np.empty(0)])
    streams = max(int(point.lane.max(initial=0)) + 1 for point in closed)
    clients = max(1 if point.client is None else int(point.client.max(initial=0)) + 1 for point in closed)
    return Service(streams=streams, clients=clients, calm_ns=calm if len(calm) else spaced, busy_ns=spaced)


def _alone_ns(point: PointSamples) -> Floats:
    """Latencies of the requests that found a free stream: what a stall made wait says nothing of a lone one."""
    keep = point.measured & point.slot_free
    return (point.done_ns[keep] - point.scheduled_ns[keep]).astype(np.float64)


def _spacing_ns(point: PointSamples) -> Floats:
    """Gaps between completions on each stream, all streams in the order of completion."""
    done, stream = point.done_ns[point.measured], point.lane[point.measured]
    ends, gaps = [], []
    for number in np.unique(stream):
        mine = np.sort(done[stream == number])
        ends.append(mine[1:])
        gaps.append(np.diff(mine))
    if not gaps:
        return np.empty(0)
    order = np.argsort(np.concatenate(ends), kind="stable")
    return np.concatenate(gaps)[order].astype(np.float64)


def latencies_ms(service: Service, due_ns: Floats, seed: int = 0, client: NDArray[np.int64] | None = None) -> Floats:
    """Latency of each arrival of a first-in-first-out queue in front of ``service.streams`` servers.

    Several clients have a queue each, in front of their own streams, and share the pace.

    Service times are the measured ones, in the order in which they were measured, from a seeded place on: what
    is slow for a while stays so. A request that finds an idle stream draws from ``calm_ns``, one that had to wait
    from ``busy_ns``; all requests in service share one pace, that of the number of busy streams at the time.

    Args:
        service: what a request costs.
        due_ns: arrival times, ascending.
        seed: of the place from which the measured times are replayed.
        client: whom each arrival is for; None deals them out at random.
    """
    count = len(due_ns)
    rng = np.random.default_rng([seed, 11])
    paces = service.paces()
    calm = _replayed(service.calm_ns, count, rng)
    busy = _replayed(service.busy_ns, count, rng) / paces[-1]
    if client is None:
        client = rng.integers(service.clients, size=count) if service.clients > 1 else np.zeros(count, dtype=np.int64)
    free = [service.streams // service.clients] * service.clients
    done = _served(due_ns.tolist(), client.tolist(), free, calm.tolist(), busy.tolist(), paces)
    return (np.asarray(done) - due_ns) / 1e6


def _replayed(measured: Floats, count: int, rng: np.random.Generator) -> Floats:
    start = int(rng.integers(len(measured)))
    return measured[(start + np.arange(count)) % len(measured)]


def _served(
    due: list[float], whom: list[int], free: list[int], calm: list[float], busy: list[float], paces: list[float]
) -> list[float]:
    """Completion times. ``work`` is a clock of work that one request in service has got; all run at its pace.

    Args:
        due: arrivals.
        whom: client of each.
        free: idle streams of each client, all of them.
        calm: service time of each request if a stream is idle, at the pace of a lone one.
        busy: the same if it had to wait.
        paces: as ``Service.paces``.
    """
    count = len(due)
    done = [0.0] * count
    running: list[tuple[float, int]] = []  # work clock at completion, request
    waiting: list[deque[int]] = [deque() for _ in free]
    now = work = 0.0
    arriving = 0
    while arriving < count or running:
        pace = paces[len(running)]
        ends = now + (running[0][0] - work) * pace if running else float("inf")
        if arriving < count and due[arriving] <= ends:
            work += (due[arriving] - now) / pace if running else 0.0
            now = due[arriving]
            own = whom[arriving]
            if free[own]:
                free[own] -= 1
                heappush(running, (work + calm[arriving], arriving))
            else:
                waiting[own].append(arriving)
            arriving += 1
        else:
            work, request = heappop(running)
            now = done[request] = ends
            own = whom[request]
            if waiting[own]:
                request = waiting[own].popleft()
                heappush(running, (work + busy[request], request))
            else:
                free[own] += 1
    return done


def point_prediction(service: Service, passes: Sequence[PointSamples], measured: JsonDict) -> JsonDict:
    """A point's ``prediction``: what the very schedules of its passes were predicted to show.

    Args:
        service: from ``service_of``.
        passes: samples of the point; only their schedules are used.
        measured: the point's ``latency_ms``.

    Returns:
        {p50_ms, p99_ms, error: {p50, p99}}; an error is predicted / measured - 1, None where nothing was measured.
    """
    ordered = np.sort(np.concatenate([_predicted(service, samples) for samples in passes]))
    found = {name: percentiles.percentile(ordered, percentiles.PERCENTILES[name]) for name in _SHOWN}
    error = {name: found[name] / measured[name] - 1 if measured[name] else None for name in _SHOWN}
    return {**{f"{name}_ms": value for name, value in found.items()}, "error": error}


def _predicted(service: Service, samples: PointSamples) -> Floats:
    due = samples.scheduled_ns[:_REQUESTS].astype(np.float64)
    whom = None if samples.client is None else samples.client[: len(due)].astype(np.int64)
    keep = ~samples.warmup[: len(due)]
    if not keep.any():
        keep[:] = True
    draws = min(max(_REQUESTS // len(due), 1), _DRAWS)
    return np.concatenate([latencies_ms(service, due, seed, whom)[keep] for seed in range(draws)])

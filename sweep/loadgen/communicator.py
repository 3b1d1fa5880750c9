"""Synchronise the clients that measure one variant together; a single client needs no synchronisation.

Every decision of the load generator rests on values that all clients have gathered, so each client decides alike.
CLOCK_MONOTONIC (``time.perf_counter_ns`` on Linux) is one clock for all processes of a machine: clients can agree on
a start, and the samples of all clients lie on one time axis.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from sweep.errors import LoadError
from sweep.storage import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.backends import Session, Stream
    from sweep.spec import JsonDict
    from sweep.storage import PointSamples

_START_DELAY_NS = 20_000_000  # from the last client's gather to the common start: its answer has to reach all clients
Value = TypeVar("Value")


class Communicator(Protocol):
    """Exchange values between the clients of one variant, as a communicator of MPI does.

    Attributes:
        rank: number of this client, from 0.
        size: number of clients.
    """

    rank: int
    size: int

    def all_gather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every client (plain values, as JSON has them), by rank; waits for all clients."""
        ...

    def all_gather_points(self, own_samples: PointSamples) -> list[PointSamples]:
        """Return every client's samples of the point that all have just measured, by rank; waits for all clients."""
        ...


class SingleClient:
    """Communicate with nobody: the communicator of a client that measures alone."""

    rank = 0
    size = 1

    def all_gather(self, value: Any) -> list[Any]:
        """Return ``[value]``."""
        return [value]

    def all_gather_points(self, own_samples: PointSamples) -> list[PointSamples]:
        """Return ``[own_samples]``."""
        return [own_samples]


SINGLE_CLIENT = SingleClient()


class ClientSession:
    """Attach a communicator to the session of one client among several.

    Args:
        session: the client's own session, whose streams take this client's part of the load.
        communicator: connects it to the other clients.
    """

    def __init__(self, session: Session, communicator: Communicator) -> None:
        self.communicator = communicator
        self.streams: Sequence[Stream] = session.streams
        self.virtual: bool = session.virtual
        self.partial_batches: bool = session.partial_batches
        self.realised: JsonDict = session.realised
        self.engine_facts: JsonDict = session.engine_facts
        self.prepare = session.prepare
        self.outputs = session.outputs
        self.infer = session.infer
        self.close = session.close


def communicator_of(session: Session) -> Communicator:
    """Return the communicator of ``session``; that of a single client where it has none."""
    return session.communicator if isinstance(session, ClientSession) else SINGLE_CLIENT


def latest_now_ns(session: Session) -> int:
    """Return the latest time on the clocks of all clients' sessions, ns; all clients get the same value."""
    times: list[int] = communicator_of(session).all_gather(max(stream.clock.now_ns() for stream in session.streams))
    return max(times)


def agree_on_start(session: Session, ahead_ns: int = 0) -> int:
    """Agree with the other clients on a start, and bring virtual clocks there.

    Args:
        session: this client's session.
        ahead_ns: shortest time from now to the start on real clocks, ns.

    Returns:
        The start on the session's clock, ns. Several clients on real clocks start late enough for all to know it.
    """
    start = latest_now_ns(session)
    if session.virtual:
        for stream in session.streams:
            stream.clock.sleep_until_ns(start)
        return start
    return start + ahead_ns + (_START_DELAY_NS if communicator_of(session).size > 1 else 0)


def in_rank_order(communicator: Communicator, action: Callable[[], Value]) -> Value:
    """Run ``action`` in one client at a time, by rank.

    Args:
        communicator: connects the clients; each of them calls this function.
        action: what this client runs when its turn has come.

    Returns:
        What ``action`` returned in this client, once all clients have run theirs.
    """
    for _ in range(communicator.rank):
        communicator.all_gather(None)
    value = action()
    for _ in range(communicator.rank, communicator.size):
        communicator.all_gather(None)
    return value


def merge_clients(session: Session, own_samples: PointSamples, min_requests: int) -> PointSamples:
    """Merge the samples that all clients took of one point.

    Requests of a closed loop outside the window in which all clients ran are marked as warm-up.

    Args:
        session: this client's session.
        own_samples: this client's samples.
        min_requests: fewest measured requests of all clients together for the point to be ``complete``.

    Returns:
        One point with the requests of all clients; ``own_samples`` itself for a single client.

    Raises:
        LoadError: the clients measured different points.
    """
    communicator = communicator_of(session)
    if communicator.size == 1:
        return own_samples
    parts = communicator.all_gather_points(own_samples)
    places = {(part.kind, part.index, part.repeat, part.batch) for part in parts}
    if len(places) > 1:
        raise LoadError(f"the clients measured different points: {sorted(places)}")
    point = samples.merged(parts)
    if point.kind == "closed":
        point = _cut_to_common_window(point, communicator.size)
    counted = int(np.count_nonzero(~point.warmup))
    return dataclasses.replace(point, complete=counted >= min_requests and not point.overloaded)


def _cut_to_common_window(point: PointSamples, clients: int) -> PointSamples:
    """Mark as warm-up what lies outside the window in which all clients ran: everything, where one of them did not."""
    assert point.client is not None  # noqa: S101 - merged samples have it; tells mypy
    starts, ends = [], []
    for client in range(clients):
        of_client = point.measured & (point.client == client)
        if not of_client.any():
            return dataclasses.replace(point, warmup=np.ones_like(point.warmup))
        starts.append(int(point.scheduled_ns[of_client].min()))
        by_stream = [of_client & (point.stream == stream) for stream in np.unique(point.stream[of_client])]
        ends.append(min(int(point.done_ns[of_stream].max()) for of_stream in by_stream))
    outside = (point.scheduled_ns < max(starts)) | (point.scheduled_ns > min(ends))
    return dataclasses.replace(point, warmup=point.warmup | outside)

"""What the clients of one variant agree on while they measure its curve together; for a single client it is nothing.

Every decision of the load generator is made from values that all clients have, so that each makes the same.
CLOCK_MONOTONIC (``time.perf_counter_ns`` on Linux) is one clock for all processes of a machine: a start can be agreed
upon, and samples of all clients stand on one axis.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from sweep.errors import LoadError
from sweep.storage import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.backends.base import Session, Stream
    from sweep.spec import JsonDict
    from sweep.storage.samples import PointSamples

_TOGETHER_NS = 20_000_000  # from when the last client is ready to the common start: the word has to reach all of them
Made = TypeVar("Made")


class Meeting(Protocol):
    """Where clients wait for each other.

    Attributes:
        client: number of this one, from 0.
        clients: how many there are.
    """

    client: int
    clients: int

    def all(self, value: Any) -> list[Any]:
        """Every client's ``value`` (plain values, as JSON has them), once all have come, by client."""
        ...

    def points(self, own: PointSamples) -> list[PointSamples]:
        """Every client's samples of the point that all have just measured, by client."""
        ...


class Alone:
    """The meeting of a single client: it waits for nobody."""

    client = 0
    clients = 1

    def all(self, value: Any) -> list[Any]:
        """Its own value."""
        return [value]

    def points(self, own: PointSamples) -> list[PointSamples]:
        """Its own samples."""
        return [own]


ALONE = Alone()


class Member:
    """The session of one client among several; to the load generator a session like any other.

    Args:
        session: its own, whose streams take this client's part of the load.
        meeting: where it meets the others.
    """

    def __init__(self, session: Session, meeting: Meeting) -> None:
        self.meeting = meeting
        self.streams: Sequence[Stream] = session.streams
        self.virtual: bool = session.virtual
        self.partial_batches: bool = session.partial_batches
        self.realised: JsonDict = session.realised
        self.engine_facts: JsonDict = session.engine_facts
        self.prepare = session.prepare
        self.outputs = session.outputs
        self.infer = session.infer
        self.close = session.close


def of(session: Session) -> Meeting:
    """Where the client of ``session`` meets the others."""
    return session.meeting if isinstance(session, Member) else ALONE


def now_ns(session: Session) -> int:
    """The latest time on the clocks of every client's session; a decision may rest on it."""
    times: list[int] = of(session).all(max(stream.clock.now_ns() for stream in session.streams))
    return max(times)


def begin(session: Session, ahead_ns: int = 0) -> int:
    """The start that all clients share, ns, ``ahead_ns`` or more from now; virtual clocks are brought there.

    With several clients on real clocks it is late enough for all of them to hear of it.
    """
    start = now_ns(session)
    if session.virtual:
        for stream in session.streams:
            stream.clock.sleep_until_ns(start)
        return start
    return start + ahead_ns + (_TOGETHER_NS if of(session).clients > 1 else 0)


def in_turn(meeting: Meeting, make: Callable[[], Made]) -> Made:
    """What ``make`` gives; one client makes it at a time."""
    for _ in range(meeting.client):
        meeting.all(None)
    made = make()
    for _ in range(meeting.client, meeting.clients):
        meeting.all(None)
    return made


def merged(session: Session, own: PointSamples, least: int) -> PointSamples:
    """One point of all clients' samples; what lies outside the window in which all of them ran does not count.

    Args:
        session: this client's.
        own: its samples.
        least: fewest requests of all clients together, for the point to be complete.

    Raises:
        LoadError: the clients measured different points.
    """
    meeting = of(session)
    if meeting.clients == 1:
        return own
    parts = meeting.points(own)
    places = {(part.kind, part.index, part.repeat, part.batch) for part in parts}
    if len(places) > 1:
        raise LoadError(f"the clients measured different points: {sorted(places)}")
    point = samples.merged(parts)
    if point.kind == "closed":
        point = _cut(point, meeting.clients)
    counted = int(np.count_nonzero(~point.warmup))
    return dataclasses.replace(point, complete=counted >= least and not point.overloaded)


def _cut(point: PointSamples, clients: int) -> PointSamples:
    """A closed loop cut to the window in which every client ran; it is empty where one of them did nothing in it."""
    assert point.client is not None  # noqa: S101 - it was merged; tells mypy
    starts, ends = [], []
    for client in range(clients):
        mine = point.measured & (point.client == client)
        if not mine.any():
            return dataclasses.replace(point, warmup=np.ones_like(point.warmup))
        starts.append(int(point.scheduled_ns[mine].min()))
        lanes = [mine & (point.stream == stream) for stream in np.unique(point.stream[mine])]
        ends.append(min(int(point.done_ns[lane].max()) for lane in lanes))
    outside = (point.scheduled_ns < max(starts)) | (point.scheduled_ns > min(ends))
    return dataclasses.replace(point, warmup=point.warmup | outside)

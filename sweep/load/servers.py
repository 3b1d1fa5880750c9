"""One server per stream, one step per request; threads on the host's clock, in turn on virtual clocks.

A free server takes the next arrival, waits for its due time and issues it; a request that is due while
all servers are busy is taken by the first that becomes free. That is a first-in-first-out queue in front of
the streams, without a dispatcher between the schedule and the session.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
import threading
from array import array
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sweep.samples import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sweep.backends.base import Stream

_PR_SET_TIMERSLACK = 29
_SWITCH_S = 0.0005  # a finished stream gets the GIL back within this


class Server(Protocol):
    """Drives one stream.

    Attributes:
        stream: the stream.
    """

    stream: Stream

    def step(self) -> bool:
        """Serve one request; False when there is nothing left to do."""
        ...


class Queue:
    """The arrivals of one open-loop point, shared by its servers, and what became of each.

    Attributes:
        due: scheduled time of each request, ns on the session's clock.
        issued: when it was handed to a stream; ``NEVER`` if it was not.
        done: when its completion was seen; ``NEVER`` if it was not.
        slot_free: 1 where a server was waiting for it when it was due.
        served_by: index of the server.
        max_wait_ns: a request that waited longer than this ends the point.
        overloaded: one did.
    """

    def __init__(self, due: Sequence[int], max_wait_ns: int) -> None:
        count = len(due)
        self.due = list(due)
        self.issued = array("q", [NEVER]) * count
        self.done = array("q", [NEVER]) * count
        self.slot_free = array("b", [0]) * count
        self.served_by = array("h", [0]) * count
        self.max_wait_ns = max_wait_ns
        self.overloaded = False
        self.next_index = itertools.count().__next__  # atomic under the GIL


class OpenServer:
    """Takes arrivals from the queue, one at a time."""

    def __init__(self, stream: Stream, queue: Queue, number: int) -> None:
        self.stream = stream
        self._queue = queue
        self._number = number

    def step(self) -> bool:
        """Take the next arrival, wait for it, run it to completion."""
        queue, stream = self._queue, self.stream
        index = queue.next_index()
        if queue.overloaded or index >= len(queue.due):
            return False
        clock, due = stream.clock, queue.due[index]
        now = clock.now_ns()
        if now <= due:
            now = clock.sleep_until_ns(due)
            queue.slot_free[index] = 1
        elif now - due > queue.max_wait_ns:
            queue.overloaded = True
            return False
        queue.issued[index] = now
        queue.served_by[index] = self._number
        stream.enqueue()
        stream.wait()
        queue.done[index] = clock.now_ns()
        return True


class ClosedServer:
    """Keeps ``depth`` inferences in flight until the time is up and the count is reached.

    Attributes:
        issued: when each inference was enqueued, ns.
        done: when its completion was seen, ns.
        gpu_ms: what the device timed of each, once the loop is over (``base.TimesGpu``); None if it times nothing.
    """

    gpu_ms: NDArray[np.float32] | None = None

    def __init__(self, stream: Stream, depth: int, until: Until) -> None:
        self.stream = stream
        self.issued: list[int] = []
        self.done: list[int] = []
        self._depth = min(depth, stream.max_depth)
        self._in_flight: deque[int] = deque()
        self._until = until

    def step(self) -> bool:
        """Fill the stream up to its depth, then wait for the oldest inference."""
        stream, in_flight = self.stream, self._in_flight
        now = stream.clock.now_ns()
        going = not self._until.over(now, len(self.done))
        while going and len(in_flight) < self._depth:
            in_flight.append(stream.clock.now_ns())
            stream.enqueue()
        if not in_flight:
            return False
        stream.wait()
        self.issued.append(in_flight.popleft())
        self.done.append(stream.clock.now_ns())
        return True


class Until:
    """When a closed loop ends: minimum time and minimum count both reached, or the longest time."""

    def __init__(self, start_ns: int, min_ns: int, max_ns: int, min_count: int) -> None:
        self._earliest = start_ns + min_ns
        self._latest = start_ns + max_ns
        self._min_count = min_count

    def over(self, now_ns: int, count: int) -> bool:
        """Whether a server that has completed ``count`` inferences is to stop at ``now_ns``."""
        return now_ns >= self._latest or (now_ns >= self._earliest and count >= self._min_count)


def run(servers: Sequence[Server], *, virtual: bool) -> None:
    """Step every server until none has anything left; raises what a step raised."""
    if virtual:
        _run_in_turn(servers)
        return
    with _quiet_interpreter():
        if len(servers) == 1:
            _run_alone(servers[0])
        else:
            _run_threads(servers)


def _run_in_turn(servers: Sequence[Server]) -> None:
    """The server whose virtual clock is furthest behind goes next: the order in which they become free."""
    going = list(servers)
    while len(going) > 1:
        server = min(going, key=lambda item: item.stream.clock.now_ns())
        if not server.step():
            going.remove(server)
    while going and going[0].step():
        pass


def _run_alone(server: Server) -> None:
    _precise_sleep()
    step = server.step
    while step():
        pass


def _run_threads(servers: Sequence[Server]) -> None:
    errors: list[BaseException] = []

    def work(server: Server) -> None:
        try:
            _run_alone(server)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _precise_sleep() -> None:
    """Ask Linux to wake this thread on time rather than within its default 50 us of slack."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


@contextmanager
def _quiet_interpreter() -> Iterator[None]:
    """No garbage collection in the timed loop, and quick hand-over of the GIL between streams."""
    before = sys.getswitchinterval()
    gc.collect()
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.enable()

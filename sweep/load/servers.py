"""One server per stream: in turn on virtual clocks, by one thread that polls where streams can be, else a thread each.

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
import time
from array import array
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sweep.backends.base import Polled
from sweep.samples import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sweep.backends.base import Stream

_PR_SET_TIMERSLACK = 29
_SWITCH_S = 0.0005  # a finished stream gets the GIL back within this
_WAKE_NS = 10_000_000  # before it is due; who sleeps wakes late, and finds core and bus slow: 20 us more on an H200
BUSY, OVER = 0, -1  # answers of ``advance`` that are no times


class Server(Protocol):
    """Drives one stream.

    Attributes:
        stream: the stream.
    """

    stream: Stream

    def step(self) -> bool:
        """Serve one request; False when there is nothing left to do."""
        ...

    def advance(self) -> int:
        """Do what can be done without waiting, on a stream that is ``Polled``.

        Returns:
            ``BUSY`` to be called again at once, ``OVER`` when there is nothing left to do, else the time in ns before
            which there is nothing to do.
        """
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
        self._running: int | None = None
        self._next: int | None = None
        self._in_time = False

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

    def advance(self) -> int:
        """Note a completion, take the next arrival, issue it if it is due."""
        queue, stream = self._queue, self.stream
        if self._running is not None:
            if not stream.poll():  # type: ignore[attr-defined]  # ``run`` calls this for streams that have it
                return BUSY
            queue.done[self._running] = stream.clock.now_ns()
            self._running = None
        if queue.overloaded:
            return OVER
        index, now = self._next, stream.clock.now_ns()
        if index is None:
            index = queue.next_index()
            if index >= len(queue.due):
                return OVER
            self._next, self._in_time = index, now <= queue.due[index]
        due = queue.due[index]
        if now < due:
            return due
        if not self._in_time and now - due > queue.max_wait_ns:
            queue.overloaded = True
            return OVER
        queue.issued[index], queue.served_by[index], queue.slot_free[index] = now, self._number, self._in_time
        stream.enqueue()
        self._running, self._next = index, None
        return BUSY


class ClosedServer:
    """Keeps ``depth`` inferences in flight until the time is up and the count is reached.

    Attributes:
        issued: when each inference was enqueued, ns.
        done: when its completion was seen, ns.
        gpu_ms: what the device timed of each, once the loop is over (``base.TimesParts``); None if it times nothing.
    """

    gpu_ms: NDArray[np.float32] | None = None

    def __init__(self, stream: Stream, depth: int, until: Until) -> None:
        self.stream = stream
        self.issued: list[int] = []
        self.done: list[int] = []
        self._depth = min(depth, stream.max_depth)
        self._in_flight: deque[int] = deque()
        self._until = until
        self._filled = False

    def step(self) -> bool:
        """Wait for the oldest inference and start another in its place, before anything else is done."""
        if not self._filled:
            self._fill()
        if not self._in_flight:
            return False
        self.stream.wait()
        self._next()
        return True

    def serve(self) -> None:
        """Step until nothing is left; nothing is looked up twice, for engines of a few microseconds."""
        self._fill()
        in_flight, over, enqueue, wait = self._in_flight, self._until.over, self.stream.enqueue, self.stream.wait
        now, issued, done = self.stream.clock.now_ns, self.issued.append, self.done.append
        count = 0
        while in_flight:
            wait()
            seen = now()
            count += 1
            if not over(seen, count):
                in_flight.append(seen)
                enqueue()
            issued(in_flight.popleft())
            done(seen)

    def advance(self) -> int:
        """Note a completion and start another inference in its place."""
        if not self._filled:
            self._fill()
        if not self._in_flight:
            return OVER
        if self.stream.poll():  # type: ignore[attr-defined]  # ``run`` calls this for streams that have it
            self._next()
        return BUSY

    def _fill(self) -> None:
        """One inference in any case: a machine so busy that the time is over before the first still gives a sample."""
        self._filled = True
        clock = self.stream.clock
        while len(self._in_flight) < self._depth and not (self._in_flight and self._until.over(clock.now_ns(), 0)):
            self._in_flight.append(clock.now_ns())
            self.stream.enqueue()

    def _next(self) -> None:
        in_flight, done = self._in_flight, self.done
        now = self.stream.clock.now_ns()
        if not self._until.over(now, len(done) + 1):
            in_flight.append(now)
            self.stream.enqueue()
        self.issued.append(in_flight.popleft())
        done.append(now)


class Until:
    """When a closed loop ends: minimum time and minimum count both reached, or the longest time."""

    def __init__(self, start_ns: int, min_ns: int, max_ns: int, min_count: int) -> None:
        self._earliest = start_ns + min(min_ns, max_ns)
        self._latest = start_ns + max_ns
        self._min_count = min_count

    def over(self, now_ns: int, count: int) -> bool:
        """Whether a server that has completed ``count`` inferences is to stop at ``now_ns``."""
        return now_ns >= self._earliest and (count >= self._min_count or now_ns >= self._latest)


def run(servers: Sequence[Server], *, virtual: bool) -> None:
    """Serve until no server has anything left; raises what a step raised.

    One thread drives all streams that can be polled: on an H200, four streams of a 20 us engine gave it 4.3 times
    the throughput of a thread each, which take turns at the GIL (docs/decisions/0013).
    """
    if virtual:
        _run_in_turn(servers)
        return
    with quiet_interpreter():
        if polled([server.stream for server in servers]) and not _is_one_closed_loop(servers):
            _run_polled(servers)
        elif len(servers) == 1:
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


def polled(streams: Sequence[Stream]) -> bool:
    """Whether one thread drives these streams."""
    return all(isinstance(stream, Polled) and stream.spins for stream in streams)


def _is_one_closed_loop(servers: Sequence[Server]) -> bool:
    """A single closed loop has nothing to do while it waits, and CUDA's own wait is quicker than polling."""
    return len(servers) == 1 and isinstance(servers[0], ClosedServer)


def _run_polled(servers: Sequence[Server]) -> None:
    _precise_sleep()
    going = list(servers)
    while going:
        wake = sys.maxsize
        for server in going:
            answer = server.advance()
            if answer == OVER:
                going = [other for other in going if other is not server]
            elif answer < wake:
                wake = answer
        if BUSY < wake < sys.maxsize:
            ahead = wake - time.perf_counter_ns() - _WAKE_NS
            if ahead > 0:
                time.sleep(ahead / 1e9)


def _run_alone(server: Server) -> None:
    _precise_sleep()
    if isinstance(server, ClosedServer):
        server.serve()
        return
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
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection in the timed loop, and quick hand-over of the GIL between streams; once, if nested."""
    if not gc.isenabled():
        yield
        return
    before = sys.getswitchinterval()
    gc.collect()
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.enable()

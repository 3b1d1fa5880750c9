"""Keep a fixed number of inferences in flight on one stream (closed loop)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from sweep.loadgen.stream_server import CALL_AGAIN, FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from sweep.backends import Stream


class ClosedServer:
    """Keep ``depth`` inferences in flight until the time is up and the count is reached.

    Attributes:
        depth: inferences in flight, no more than the stream can hold.
        until: as given.
        takes_shapes: its inferences have shapes of a mix.
        issued: when each inference was enqueued, ns.
        done: when its completion was seen, ns.
        gpu_ms: what the device timed of each, once the loop is over (``base.SupportsPartTimes``); None if it times
            nothing.
        shapes: entry of the mix of shapes that each had, once the loop is over; None without a mix.

    Args:
        stream: runs them.
        depth: inferences in flight.
        until: decides when the loop ends.
        enqueue: starts the next inference; None takes that of the stream, which runs the batch of the load.
    """

    gpu_ms: NDArray[np.float32] | None = None
    shapes: NDArray[np.int16] | None = None

    def __init__(self, stream: Stream, depth: int, until: Ending, enqueue: Callable[[], None] | None = None) -> None:
        self.stream = stream
        self.issued: Any = []  # a list while Python fills it; compiled code leaves an array of int64
        self.done: Any = []
        self.takes_shapes = enqueue is not None
        self.depth = min(depth, stream.max_depth)
        self._in_flight: deque[int] = deque()
        self.until = until
        self._filled = False
        self._enqueue: Callable[[], None] = enqueue or stream.enqueue

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
        """Step until nothing is left; the loop looks up no attribute, for engines of a few microseconds."""
        self._fill()
        in_flight, over, enqueue, wait = self._in_flight, self.until.over, self._enqueue, self.stream.wait
        now, issued, done = self.stream.clock.now_ns, self.issued.append, self.done.append
        count = 0
        while in_flight:
            wait()
            end_ns = now()
            count += 1
            if not over(end_ns, count):
                in_flight.append(end_ns)
                enqueue()
            issued(in_flight.popleft())
            done(end_ns)

    def advance(self) -> int:
        """Note a completion and start another inference in its place."""
        if not self._filled:
            self._fill()
        if not self._in_flight:
            return FINISHED
        if self.stream.poll():  # type: ignore[attr-defined]  # ``run`` calls this for streams that have it
            self._next()
        return CALL_AGAIN

    def _fill(self) -> None:
        """Start ``depth`` inferences; one in any case, so that a machine too slow to start gives a sample too."""
        self._filled = True
        clock = self.stream.clock
        while len(self._in_flight) < self.depth and not (self._in_flight and self.until.over(clock.now_ns(), 0)):
            self._in_flight.append(clock.now_ns())
            self._enqueue()

    def _next(self) -> None:
        in_flight, done = self._in_flight, self.done
        now = self.stream.clock.now_ns()
        if not self.until.over(now, len(done) + 1):
            in_flight.append(now)
            self._enqueue()
        self.issued.append(in_flight.popleft())
        done.append(now)


class Ending(Protocol):
    """Decide when a closed loop ends."""

    def over(self, now_ns: int, count: int) -> bool:
        """Return whether a server that has completed ``count`` inferences has to stop at ``now_ns``."""
        ...


class Until:
    """Decide when a closed loop ends: once it reached its minimum time and count, or its longest time.

    Args:
        start_ns: start of the loop on the stream's clock, ns.
        min_ns: shortest duration, ns.
        max_ns: longest duration, ns.
        min_count: fewest completed inferences, unless the longest duration ends the loop.

    Attributes:
        start_ns: as given.
        earliest_ns: end of the shortest duration, ns.
        latest_ns: end of the longest duration, ns.
        min_count: as given.
    """

    def __init__(self, start_ns: int, min_ns: int, max_ns: int, min_count: int) -> None:
        self.start_ns = start_ns
        self.earliest_ns = start_ns + min(min_ns, max_ns)
        self.latest_ns = start_ns + max_ns
        self.min_count = min_count

    def over(self, now_ns: int, count: int) -> bool:
        """Return whether a server that has completed ``count`` inferences has to stop at ``now_ns``.

        A clock that shows less than the start was set back, and would end the loop as much later.
        """
        if now_ns < self.earliest_ns:
            return now_ns < self.start_ns
        return count >= self.min_count or now_ns >= self.latest_ns

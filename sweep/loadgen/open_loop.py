"""Serve scheduled arrivals on one stream (open loop)."""

from __future__ import annotations

import itertools
from array import array
from typing import TYPE_CHECKING

from sweep.loadgen.stream_server import CALL_AGAIN, FINISHED
from sweep.storage import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends import Stream


class Queue:
    """Hold the arrivals of one open-loop point, shared by its servers, and the times of each.

    Attributes:
        due: scheduled time of each request, ns on the session's clock.
        issued: when it was handed to a stream; ``NEVER`` if it was not.
        done: when its completion was seen; ``NEVER`` if it was not.
        slot_free: 1 where a server was waiting for it when it was due.
        served_by: index of the server.
        max_wait_ns: a request that waited longer than this ends the point.
        overloaded: a request did.
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
    """Take arrivals from the queue, one at a time.

    Args:
        stream: runs them.
        queue: the arrivals.
        number: index of this server.
        shapes: place of the engine of each request; None runs the batch of the load.

    Attributes:
        stream: the stream.
        queue: as given.
        number: as given.
        takes_shapes: its inferences have shapes of a mix.
    """

    def __init__(self, stream: Stream, queue: Queue, number: int, shapes: Sequence[int] | None = None) -> None:
        self.stream = stream
        self.takes_shapes = shapes is not None
        self._shapes = shapes
        self.queue = queue
        self.number = number
        self._running: int | None = None
        self._next: int | None = None
        self._in_time = False

    def step(self) -> bool:
        """Take the next arrival, wait for it, run it to completion."""
        queue, stream = self.queue, self.stream
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
        queue.served_by[index] = self.number
        if self._shapes is None:
            stream.enqueue()
        else:
            stream.enqueue_shape(self._shapes[index])  # type: ignore[attr-defined]  # streams of a mix have it
        stream.wait()
        queue.done[index] = clock.now_ns()
        return True

    def advance(self) -> int:
        """Note a completion, take the next arrival, issue it if it is due."""
        queue, stream = self.queue, self.stream
        if self._running is not None:
            if not stream.poll():  # type: ignore[attr-defined]  # ``run`` calls this for streams that have it
                return CALL_AGAIN
            queue.done[self._running] = stream.clock.now_ns()
            self._running = None
        if queue.overloaded:
            return FINISHED
        index, now = self._next, stream.clock.now_ns()
        if index is None:
            index = queue.next_index()
            if index >= len(queue.due):
                return FINISHED
            self._next, self._in_time = index, now <= queue.due[index]
        due = queue.due[index]
        if now < due:
            return due
        if not self._in_time and now - due > queue.max_wait_ns:
            queue.overloaded = True
            return FINISHED
        queue.issued[index], queue.served_by[index], queue.slot_free[index] = now, self.number, self._in_time
        if self._shapes is None:
            stream.enqueue()
        else:
            stream.enqueue_shape(self._shapes[index])  # type: ignore[attr-defined]  # streams of a mix have it
        self._running, self._next = index, None
        return CALL_AGAIN

"""Batch in the server: gather single samples up to a batch, or until the oldest has waited its time.

A free server takes the first arrival that nobody has, gathers those behind it until the batch is full or the oldest
has waited ``max_wait_ns``, and runs them. If that moment has passed when it becomes free, it takes what is there, up
to a batch, and runs at once. One server gathers at a time and the others queue behind it, so batches are consecutive
stretches of the arrivals: none is lost, none is in two, and their order is kept. It is what a dynamic batcher in
front of N instances does; the wait of each sample counts, since its latency starts at its own arrival.

When a batch leaves is a pure function of the schedule. It looks at no arrival that a server without foresight would
not have seen by then: the earlier of the last one that fits and the oldest one's time.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.loadgen.open_loop import Queue
from sweep.loadgen.stream_server import CALL_AGAIN, FINISHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Decide when a batch leaves.

    Attributes:
        batch: most samples in it.
        max_wait_ns: longest that its oldest sample is kept waiting for others, ns.
    """

    batch: int
    max_wait_ns: int

    def ready_ns(self, due: Sequence[int], first: int) -> int:
        """Return when the batch that begins with arrival ``first`` has to leave, ns: full, or its oldest has waited."""
        last = first + self.batch - 1
        deadline = due[first] + self.max_wait_ns
        return due[last] if last < len(due) and due[last] < deadline else deadline

    def departing(self, due: Sequence[int], first: int, now_ns: int) -> int:
        """Count the arrivals that leave together at ``now_ns``: those there from ``first`` on, up to a batch."""
        return max(bisect_right(due, now_ns, first, min(first + self.batch, len(due))) - first, 1)


class BatchQueue(Queue):
    """Hold the arrivals of one point, shared by the servers that gather them.

    Attributes:
        rule: rule that decides when a batch leaves.
        gate: held by the server that gathers.
        first: the first arrival that no server has taken; only behind the gate.
        ready: when each request's batch was to leave by the rule, ns.
        ran_with: requests in its batch, itself included; 0 if it was not served.
    """

    def __init__(self, due: Sequence[int], max_wait_ns: int, rule: Rule) -> None:
        super().__init__(due, max_wait_ns)
        count = len(self.due)
        self.rule = rule
        self.gate = threading.Lock()
        self.first = 0
        self.ready = array("q", [0]) * count
        self.ran_with = array("i", [0]) * count


@dataclass(frozen=True, slots=True)
class Batch:
    """Describe one batch that leaves the queue.

    Attributes:
        first: index of its first arrival.
        count: number of its arrivals.
        ready_ns: when it had to leave by the rule, ns.
        now_ns: when it left, ns.
        in_time: whether a server was free by ``ready_ns``.
    """

    first: int
    count: int
    ready_ns: int
    now_ns: int
    in_time: bool


class BatchServer:
    """Gather a batch, run it, and so on.

    Args:
        stream: runs the batches.
        queue: the arrivals.
        number: index of this server.
        partial: a batch that is not full runs at its true size; else it is padded to the full batch.

    Attributes:
        stream: the stream.
        queue: as given.
        number: as given.
        partial: as given.
        sizes: requests in each batch that it ran, in order.
    """

    takes_shapes = False

    def __init__(self, stream: Stream, queue: BatchQueue, number: int, *, partial: bool) -> None:
        self.stream = stream
        self.sizes: list[int] = []
        self.queue = queue
        self.number = number
        self.partial = partial
        self._running: Batch | None = None
        self._free_ns: int | None = None

    def step(self) -> bool:
        """Gather the next batch, run it to completion; False when no arrivals are left or the backlog is too long."""
        queue, stream = self.queue, self.stream
        free = stream.clock.now_ns()  # before the gate: a wait behind another that gathers is no busy stream
        with queue.gate:
            batch = self._gather(free)
        if batch is None:
            return False
        self._issue(batch)
        stream.wait()
        self._complete(batch.first, batch.count)
        return True

    def advance(self) -> int:
        """Note a completion, and let the next batch go when its time has come. No gate: one thread advances all."""
        queue, stream = self.queue, self.stream
        if self._running is not None:
            if not stream.poll():  # type: ignore[attr-defined]  # ``issue_loops.run`` calls this for streams that have it
                return CALL_AGAIN
            self._complete(self._running.first, self._running.count)
            self._running = self._free_ns = None
        if queue.overloaded or queue.first >= len(queue.due):
            return FINISHED
        now = stream.clock.now_ns()
        if self._free_ns is None:
            self._free_ns = now
        ready = queue.rule.ready_ns(queue.due, queue.first)
        if now < ready:
            return ready
        batch = self._take(ready, now, self._free_ns)
        if batch is None:
            return FINISHED
        self._issue(batch)
        self._running = batch
        return CALL_AGAIN

    def _issue(self, batch: Batch) -> None:
        queue, first, count = self.queue, batch.first, batch.count
        self.stream.enqueue(count if self.partial and count < queue.rule.batch else None)
        after = first + count
        queue.issued[first:after] = array("q", [batch.now_ns]) * count
        queue.ready[first:after] = array("q", [batch.ready_ns]) * count
        queue.ran_with[first:after] = array("i", [count]) * count
        queue.served_by[first:after] = array("h", [self.number]) * count
        if batch.in_time:
            queue.slot_free[first:after] = array("b", [1]) * count
        self.sizes.append(count)

    def _complete(self, first: int, count: int) -> None:
        self.queue.done[first : first + count] = array("q", [self.stream.clock.now_ns()]) * count

    def _gather(self, free_ns: int) -> Batch | None:
        queue, clock = self.queue, self.stream.clock
        first, due = queue.first, queue.due
        if queue.overloaded or first >= len(due):
            return None
        ready = queue.rule.ready_ns(due, first)
        now = clock.now_ns()
        if now <= ready:
            now = clock.sleep_until_ns(ready)
        return self._take(ready, now, free_ns)

    def _take(self, ready: int, now: int, free_ns: int) -> Batch | None:
        """Take the next batch off the queue; None where it has waited for a free server for too long."""
        queue, first = self.queue, self.queue.first
        if free_ns > ready and now - ready > queue.max_wait_ns:
            queue.overloaded = True
            return None
        count = queue.rule.departing(queue.due, first, now)
        queue.first = first + count
        return Batch(first, count, ready, now, in_time=free_ns <= ready)

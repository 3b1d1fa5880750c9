"""Drive one execution context on its own CUDA stream: enqueue, wait, and read the GPU's times.

The hot path creates no objects beyond CUDA's own return values: each slot of the ring has its calls bound beforehand.
GPU times are read one inference late, while the GPU works on the next, so that no read delays a completion.
"""

from __future__ import annotations

import itertools
import time
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.base import PreparedCalls
from sweep.backends.clock import RealClock
from sweep.backends.tensorrt.cuda import Copy, Replay
from sweep.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sweep.backends.tensorrt.cuda import Cuda, Handle, ResourceStack

    Step = Callable[[], tuple[Any, ...]]  # a prepared call that answers as CUDA's runtime does
    Copies = tuple[Sequence[Step], Sequence[Step]]
    Ring = tuple[Step, Step, Step]  # before the inference, itself, after it

WAITS = ("spin", "block", "yield")
DEPTH = 8  # inferences that a stream holds in flight
_RING = DEPTH + 1  # an inference is read after its successor was enqueued, so one place more than may be in flight
_NOT_TIMED = float("nan")
_now = time.perf_counter_ns


class TensorRTStream:
    """Run a ring of prepared inferences on one CUDA stream.

    Args:
        cuda: makes the calls.
        stream: the CUDA stream.
        launch: enqueues the inference itself and returns as CUDA's runtime does.
        copies: calls that copy the inputs to the device, and those that copy the outputs back; None leaves
            the copies out of the request.
        wait: ``spin`` (CUDA polls without the GIL: lowest latency), ``block`` (the thread sleeps until the driver wakes
            it) or ``yield`` (polls, offering the core and the GIL to other threads in between).
        resources: releases the events.
    """

    max_depth = DEPTH

    def __init__(
        self,
        cuda: Cuda,
        stream: Handle,
        launch: Step,
        copies: Copies | None,
        wait: str,
        resources: ResourceStack,
    ) -> None:
        self.clock = RealClock()
        self._cuda = cuda
        self._stream = stream
        self._ok = cuda.rt.cudaError_t.cudaSuccess
        self._elapsed = cuda.rt.cudaEventElapsedTime
        self.spins = wait == "spin"
        self._query, self._not_ready = cuda.rt.cudaEventQuery, cuda.not_ready
        self._await = cuda.rt.cudaEventSynchronize if wait != "yield" else partial(_poll, cuda)
        self._times = array("f")
        self._enqueued_ns = array("q")
        self._parts = 1 if copies is None else 3
        self._issued = self._waited = self._read = 0
        self._events = [
            [resources.push(cuda.event(blocking=wait == "block"), "cudaEventDestroy") for _ in range(self._parts + 1)]
            for _ in range(_RING)
        ]
        self._last = [events[-1] for events in self._events]
        self._sized: dict[int | None, list[Ring]] = {}
        self._bound: dict[int | None, tuple[Step, Copies | None]] = {}
        self._wait_word = wait
        self.add(None, launch, copies)

    def add(self, samples: int | None, launch: Step, copies: Copies | None) -> None:
        """Make ``enqueue(samples)`` run ``launch`` between ``copies``; None stands for a whole batch."""
        self._bound[samples] = launch, copies
        self._sized[samples] = [_ring(self._cuda, self._stream, events, launch, copies) for events in self._events]

    def enqueue(self, samples: int | None = None) -> None:
        """Start one inference.

        Args:
            samples: how many of the batch it computes, one of the sizes prepared; None for all.

        Raises:
            SessionError: CUDA or TensorRT refused it, or ``DEPTH`` are in flight.
        """
        number, ok = self._issued, self._ok
        if number - self._waited >= DEPTH:
            raise SessionError(f"{DEPTH} inferences are in flight on one stream already")
        begin, launch, end = self._sized[samples][number % _RING]
        error = begin()[0]
        if error != ok:
            self._cuda.fail("enqueue", error)
        start = _now()
        error = launch()[0]
        elapsed = _now() - start
        if error != ok:
            self._cuda.fail("enqueue", error)
        error = end()[0]
        if error != ok:
            self._cuda.fail("enqueue", error)
        self._enqueued_ns.append(elapsed)
        self._issued = number + 1
        if self._read < self._waited:
            self._read_one()

    def wait(self) -> None:
        """Block until the oldest inference in flight is complete.

        Raises:
            SessionError: it failed on the GPU, or none is in flight.
        """
        if self._waited == self._issued:
            raise SessionError("no inference is in flight on this stream")
        error = self._await(self._last[self._waited % _RING])[0]
        if error != self._ok:
            self._cuda.fail("wait", error)
        self._waited += 1

    def poll(self) -> bool:
        """Return whether the oldest inference in flight is complete; a complete one counts as waited for.

        Raises:
            SessionError: it failed on the GPU.
        """
        error = self._query(self._last[self._waited % _RING])[0]
        if error == self._not_ready:
            return False
        if error != self._ok:
            self._cuda.fail("wait", error)
        self._waited += 1
        return True

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the part times of each inference waited for since the last call, oldest first.

        Returns:
            Array of shape (inferences, 4), in ms: copy to the device, compute and copy to the host by the GPU's clock,
            then the host's time in the enqueue alone. NaN where copies are not part of the request.
        """
        while self._read < self._waited:
            self._read_one()
        timed = np.frombuffer(self._times, dtype=np.float32).reshape(-1, self._parts)
        count = len(timed)
        parts = np.full((count, 4), _NOT_TIMED, dtype=np.float32)
        parts[:, slice(3) if self._parts > 1 else slice(1, 2)] = timed
        parts[:, 3] = np.frombuffer(self._enqueued_ns, dtype=np.int64, count=count) / 1e6
        self._times, self._enqueued_ns = array("f"), self._enqueued_ns[count:]
        return parts

    def prepared_calls(self) -> PreparedCalls | None:
        """Return the driver's calls that an inference makes.

        None for an enqueue of the library, for ``wait=yield``, and where a profiler marks every enqueue.
        """
        if (
            "enqueue" in vars(self)
            or self._wait_word == "yield"
            or self._issued != self._waited
            or self._read != self._waited
        ):
            return None
        if not all(_is_native(launch, copies) for launch, copies in self._bound.values()):
            return None
        address = self._cuda.address
        return PreparedCalls(
            calls={samples: self._driver_calls(*bound) for samples, bound in self._bound.items()},
            launch=1 if self._parts == 1 else 2 + len((self._bound[None][1] or ((), ()))[0]),
            events=np.array([[int(event) for event in events] for events in self._events], dtype=np.int64),
            synchronise=address("cuEventSynchronize"),
            query=address("cuEventQuery"),
            not_ready=int(self._not_ready),
            elapsed=address("cuEventElapsedTime"),
            enter=(address("cuCtxSetCurrent"), self._cuda.current_context()),
            number=self._issued,
        )

    def _driver_calls(self, launch: Any, copies: Any) -> NDArray[np.int64]:
        """Return the driver's calls of one inference at each place of the ring, shape (places, steps, 5)."""
        record, replay, copy = (
            self._cuda.address(name) for name in ("cuEventRecord", "cuGraphLaunch", "cuMemcpyAsync")
        )
        on = int(self._stream)
        started = [replay, *(int(handle) for handle in launch.args), 0, 0]
        uploads, downloads = (
            [[copy, *(int(word) for word in step.args[:3]), on] for step in side] for side in copies or ((), ())
        )
        places = []
        for events in self._events:
            marks = [[record, int(event), on, 0, 0] for event in events]
            if copies is None:
                places.append([marks[0], started, marks[1]])
            else:
                places.append([marks[0], *uploads, marks[1], started, marks[2], *downloads, marks[3]])
        return np.array(places, dtype=np.int64)

    def adopt(
        self,
        counts: tuple[int, int, int],
        gpu_ms: Sequence[NDArray[np.float32]],
        host_ns: Sequence[NDArray[np.int64]],
    ) -> None:
        """Take over what compiled code did on the stream; see ``SupportsPreparedCalls``."""
        self._issued, self._waited, self._read = counts
        for values in gpu_ms:
            self._times.frombytes(values.reshape(-1).view(np.uint8).data)
        for times in host_ns:
            self._enqueued_ns.frombytes(times.view(np.uint8).data)

    def fail_call(self, call: str, error: int) -> None:
        """Raise the ``error`` that the driver returned to compiled code.

        Raises:
            SessionError: always.
        """
        self._cuda.fail_driver(call, error)

    def _read_one(self) -> None:
        events = self._events[self._read % _RING]
        if self._parts == 1:
            error, elapsed = self._elapsed(events[0], events[1])
            self._times.append(elapsed)
        else:
            for before, after in itertools.pairwise(events):
                error, elapsed = self._elapsed(before, after)
                self._times.append(elapsed)
        if error != self._ok:
            self._cuda.fail("cudaEventElapsedTime", error)
        self._read += 1

    def close(self) -> None:
        """Drop the bound calls and events."""
        self._sized = {}
        self._bound = {}
        self._events = self._last = []


def _is_native(launch: Step, copies: Copies | None) -> bool:
    """Return whether an inference is made of calls that the driver has too: the replay of a graph, between copies."""
    return isinstance(launch, Replay) and all(isinstance(step, Copy) for side in copies or () for step in side)


def _ring(
    cuda: Cuda,
    stream: Handle,
    events: Sequence[Handle],
    launch: Step,
    copies: Copies | None,
) -> Ring:
    """Bind the calls of one inference, in order, with an event before, between and after its parts."""
    marks = [partial(cuda.rt.cudaEventRecord, event, stream) for event in events]
    if copies is None:
        return marks[0], launch, marks[1]
    uploads, downloads = copies
    return _in_order(cuda, [marks[0], *uploads, marks[1]]), launch, _in_order(cuda, [marks[2], *downloads, marks[3]])


def _in_order(cuda: Cuda, steps: Sequence[Step]) -> Step:
    """Combine the calls into one that returns the first failure."""
    success = (cuda.rt.cudaError_t.cudaSuccess,)
    ok = success[0]

    def run() -> tuple[Any, ...]:
        for step in steps:
            answer = step()
            if answer[0] != ok:
                return answer
        return success

    return run


def _poll(cuda: Cuda, event: Handle) -> tuple[Any, ...]:
    query, not_ready = cuda.rt.cudaEventQuery, cuda.not_ready
    while True:
        answer: tuple[Any, ...] = query(event)
        if answer[0] != not_ready:
            return answer
        time.sleep(0)

"""Drive streams with the compiled loops: a thread a stream, outside the interpreter and its lock.

The loops of ``closed_loop``, ``open_loop`` and ``dynamic_batching`` are the reference and the fallback. A stream
can be driven by compiled code if it is ``SupportsPreparedCalls``, as the replay of a captured CUDA graph is. The code
is compiled by numba when it is first needed on a machine and read from the disk from then on, before any window.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sweep.backends import SupportsPreparedCalls
from sweep.loadgen import compiled_code
from sweep.loadgen import loop_layout as layout
from sweep.loadgen.closed_loop import ClosedServer, Until
from sweep.loadgen.dynamic_batching import BatchQueue, BatchServer
from sweep.loadgen.open_loop import OpenServer
from sweep.system import ClockWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sweep.backends import PreparedCalls, Stream
    from sweep.loadgen.stream_server import Server

    Words = NDArray[np.int64]

_CHUNK = 1 << 15  # inferences of a closed loop in one array of results
_SUPERVISED_S = 0.02  # between two looks of the main thread, which is then where signals are handled
_STOPPED_WITHIN_S = 0.06  # a thread that does not end by then waits for the device, which this one does not
ENABLED = "SWEEP_COMPILED_LOOPS"
"""Environment variable that lets compiled loops issue requests, if it is ``1``."""

_MARGIN_NS = 10_000_000  # before a request is due a thread stops sleeping: a sleeper wakes late, to a slow core


def is_available() -> bool:
    """Return whether the compiled loops can run here: whether numba is installed."""
    return compiled_code.is_available()


def is_enabled() -> bool:
    """Return whether the user lets compiled loops issue requests; Python's do by default (docs/decisions/0069)."""
    return os.environ.get(ENABLED) == "1"


def load() -> float | None:
    """Load the compiled loops, so that no window has to.

    Returns:
        How long they took to compile, s; None where they were read from the disk, or numba is not installed.
    """
    return compiled_code.code().compiled_s if is_available() else None


def prepared(servers: Sequence[Server]) -> list[PreparedCalls] | None:
    """Return the calls of each server's stream; None where Python has to drive one of them."""
    kinds = {type(server) for server in servers}
    if len(kinds) != 1 or not kinds <= {ClosedServer, OpenServer, BatchServer}:
        return None
    if any(server.takes_shapes for server in servers):  # type: ignore[attr-defined]  # the three kinds have it
        return None
    if any(isinstance(server, ClosedServer) and type(server.until) is not Until for server in servers):
        return None
    return stream_calls([server.stream for server in servers])


def stream_calls(streams: Sequence[Stream]) -> list[PreparedCalls] | None:
    """Return the calls of each stream; None where Python has to make those of one of them, or drive them.

    Several streams need a core each and one for the main thread; with fewer, one thread that polls is quicker.
    """
    if len(streams) > 1 and len(os.sched_getaffinity(0)) <= len(streams):
        return None
    calls: list[PreparedCalls] = []
    for stream in streams:
        own = stream.prepared_calls() if isinstance(stream, SupportsPreparedCalls) else None
        if own is None:
            return None
        calls.append(own)
    return calls if is_available() else None


class System:
    """Give the compiled loops the functions of the C library.

    Args:
        clock: address of ``clock_gettime``; None takes the C library's.
        sleep: address of ``clock_nanosleep``; None takes the C library's.
        margin_ns: time before a request is due at which a thread stops sleeping and polls the clock, ns.
        poll: wait for an inference by asking the device, instead of in its own call.
        steps: requests after which a loop returns; -1 for no limit.
    """

    def __init__(
        self,
        clock: int | None = None,
        sleep: int | None = None,
        *,
        margin_ns: int = _MARGIN_NS,
        poll: bool = False,
        steps: int = -1,
    ) -> None:
        self.words = np.zeros(layout.SYSTEM, dtype=np.int64)
        self.words[layout.CLOCK] = clock or _address("clock_gettime")
        self.words[layout.SLEEP] = sleep or _address("clock_nanosleep")
        self.words[layout.MARGIN_NS] = margin_ns
        self.words[layout.POLL] = poll
        self.words[layout.STEPS] = steps


def _address(name: str) -> int:
    """Return the address of a function of the C library, or of what was loaded before it."""
    return int(ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0)


class _Block:
    """Hold the addresses and the shapes of the arrays that a compiled loop works on, in the order of its arguments.

    Args:
        arrays: contiguous; they are written in place.

    Attributes:
        address: address of the block.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays
        self._words = np.zeros(layout.BLOCK, dtype=np.int64)
        place = 0
        for array in arrays:
            if not array.flags.c_contiguous:
                raise ValueError(f"an array of shape {array.shape} is not contiguous")
            self._words[place : place + 1 + array.ndim] = array.ctypes.data, *array.shape
            place += 1 + array.ndim
        self.address = int(self._words.ctypes.data)


class _Stream:
    """Hold what a compiled loop needs of one stream.

    Args:
        stream: the stream.
        calls: its calls.
    """

    def __init__(self, stream: Any, calls: PreparedCalls) -> None:
        self.stream, self.calls = stream, calls
        self.events = np.ascontiguousarray(calls.events)
        self.parts = self.events.shape[1] - 1
        self.api = np.zeros(layout.API, dtype=np.int64)
        self.api[layout.SYNCHRONISE], self.api[layout.QUERY] = calls.synchronise, calls.query
        self.api[layout.NOT_READY], self.api[layout.ELAPSED] = calls.not_ready, calls.elapsed
        self.api[layout.ENTER], self.api[layout.ENTER_ARGUMENT] = calls.enter
        self.api[layout.LAUNCH] = calls.launch
        self.state = np.zeros(layout.STATE, dtype=np.int64)
        self.state[[layout.ISSUED, layout.WAITED, layout.READ]] = calls.number
        self.times, self.elapsed = np.zeros(4, dtype=np.int64), np.zeros(2, dtype=np.float32)

    def finish(self, gpu_ms: Sequence[NDArray[np.float32]], host_ns: Sequence[Words]) -> None:
        """Tell the stream what was done, and raise what failed."""
        state = self.state
        counts = (int(state[layout.ISSUED]), int(state[layout.WAITED]), int(state[layout.READ]))
        self.stream.adopt(counts, gpu_ms, host_ns)
        if state[layout.FAILURE]:
            call = int(state[layout.FAILED_CALL])
            names = {
                layout.CALL_WAIT: "wait",
                layout.CALL_ELAPSED: "cuEventElapsedTime",
                layout.CALL_ENTER: "cuCtxSetCurrent",
            }
            self.stream.fail_call(names.get(call, "enqueue"), int(state[layout.FAILURE]))


class _ClosedLoop:
    """Run a ``ClosedServer``; its results grow by arrays that another thread has made ready.

    Args:
        server: what is run.
        calls: the calls of its stream.
        system: functions of the C library.
        chunk: inferences in one array of results.
    """

    def __init__(self, server: ClosedServer, calls: PreparedCalls, system: System, chunk: int = _CHUNK) -> None:
        self.server, self._system = server, system
        self._loop = compiled_code.code().loops["closed_loop"]
        self._stream = _Stream(server.stream, calls)
        self._calls = np.ascontiguousarray(calls.calls[None])[np.newaxis]
        state, until = self._stream.state, cast("Until", server.until)  # ``prepared`` lets no other pass
        state[layout.DEPTH] = server.depth
        state[layout.START_NS], state[layout.EARLIEST_NS] = until.start_ns, until.earliest_ns
        state[layout.LATEST_NS], state[layout.MIN_COUNT] = until.latest_ns, until.min_count
        self._first = np.zeros(max(server.depth, 1), dtype=np.int64)
        self._chunk = max(chunk, server.depth + 1)
        self._makers: dict[int, Callable[[], Any]] = {
            layout.DONE_AT: lambda: np.full(self._chunk, 0, dtype=np.int64),
            layout.GPU_AT: lambda: np.full((self._chunk, self._stream.parts), 0, dtype=np.float32),
            layout.HOST_AT: lambda: np.full(self._chunk, 0, dtype=np.int64),
        }
        self._results: dict[int, list[Any]] = {place: [make()] for place, make in self._makers.items()}
        self._spares: dict[int, Any] = {}
        self.provide()

    def provide(self) -> None:
        """Make the next array of each kind ready. Its pages are written, so that the loop need not fetch them."""
        for place, make in self._makers.items():
            if place not in self._spares:
                self._spares[place] = make()

    def run(self, stop: Words) -> int:
        """Run until the loop ends or is stopped; returns its answer."""
        stream = self._stream
        while True:
            current = [self._results[place][-1] for place in (layout.DONE_AT, layout.GPU_AT, layout.HOST_AT)]
            block = _Block(
                *(self._system.words, stream.api, self._calls, stream.events, stream.state, self._first),
                *(*current, stream.times, stream.elapsed, stop),
            )
            answer = self._loop(block.address)
            if answer != layout.FULL:
                return answer
            for place, arrays in self._results.items():
                if stream.state[place] == self._chunk:
                    arrays.append(self._spares.pop(place, None))
                    if arrays[-1] is None:
                        arrays[-1] = self._makers[place]()
                    stream.state[place] = 0

    def finish(self) -> None:
        """Give the times to the server: an inference is issued when the one whose place it takes was complete."""
        state = self._stream.state
        for place, arrays in self._results.items():
            arrays[-1] = arrays[-1][: state[place]]
        filled = int(state[layout.FILLED])
        self.server.done = done = np.concatenate(self._results.pop(layout.DONE_AT))
        self.server.issued = np.concatenate([self._first[:filled], done[: max(len(done) - filled, 0)]])[: len(done)]
        self._spares.clear()
        self._stream.finish(self._results.pop(layout.GPU_AT), self._results.pop(layout.HOST_AT))


class _OpenLoop:
    """Run an ``OpenServer``, or a ``BatchServer``.

    Args:
        server: what is run.
        calls: the calls of its stream.
        system: functions of the C library.
        schedule: what all servers of the queue share.
    """

    def __init__(
        self, server: OpenServer | BatchServer, calls: PreparedCalls, system: System, schedule: _Schedule
    ) -> None:
        self.server, self._system, self._schedule = server, system, schedule
        self._stream = _Stream(server.stream, calls)
        self._stream.state[layout.NUMBER] = server.number
        gathers = isinstance(server, BatchServer)
        self._loop = compiled_code.code().loops["gather_loop" if gathers else "open_loop"]
        if isinstance(server, BatchServer):
            batch = schedule.batch
            sizes = [None, *range(1, batch)] if server.partial else [None]
            self._calls = np.ascontiguousarray(np.stack([calls.calls[size] for size in sizes]))
            self._rows = np.zeros(batch + 1, dtype=np.int64)
            if server.partial:
                self._rows[1:batch] = np.arange(1, batch)
        else:
            self._calls = np.ascontiguousarray(calls.calls[None])[np.newaxis]

    def provide(self) -> None:
        """Do nothing: the results of a schedule have their places from the start."""

    def run(self, stop: Words) -> int:
        """Run until the loop ends, is stopped or has served its number of requests; returns its answer."""
        stream, own = self._stream, self._schedule
        gpu_ms, host_ns = own.timed(stream.parts)
        ends = (gpu_ms, host_ns, stream.times, stream.elapsed, stop)
        begins = (stream.events, stream.state, own.shared, *own.columns)
        if isinstance(self.server, BatchServer):
            block = _Block(self._system.words, stream.api, self._calls, self._rows, *begins, *own.gathered, *ends)
        else:
            block = _Block(self._system.words, stream.api, self._calls, *begins, *ends)
        return self._loop(block.address)

    def finish(self) -> None:
        """Give the times of its requests to the server and its stream."""
        gpu_ms, host_ns = self._schedule.timed(self._stream.parts)
        own = self._schedule.served(self.server.number)
        if isinstance(self.server, BatchServer):
            ran_with = self._schedule.gathered[1]
            firsts, at = [], 0
            starts = np.flatnonzero(ran_with)
            while at < len(starts):
                firsts.append(starts[at])
                at += int(ran_with[starts[at]])
            first = np.zeros(len(ran_with), dtype=np.bool_)
            first[firsts] = True
            own &= first
            self.server.sizes = ran_with[own].tolist()
        self._schedule.close()
        self._stream.finish([gpu_ms[own]], [host_ns[own]])


class _Schedule:
    """Hold the arrays of a queue as compiled code works on them: those of the queue itself.

    Args:
        queue: the arrivals and the times of each.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        count = len(queue.due)
        self.shared = np.zeros(layout.SHARED, dtype=np.int64)
        self.shared[layout.MAX_WAIT_NS] = queue.max_wait_ns
        self.batch = 1
        self.gathered: tuple[Any, ...] = ()
        if isinstance(queue, BatchQueue):
            self.batch = queue.rule.batch
            self.shared[layout.BATCH] = self.batch
            self.shared[layout.BATCH_WAIT_NS] = queue.rule.max_wait_ns
            self.gathered = (np.frombuffer(queue.ready, np.int64), np.frombuffer(queue.ran_with, np.int32))
        self.columns = (
            np.array(queue.due, dtype=np.int64),
            np.frombuffer(queue.issued, np.int64),
            np.frombuffer(queue.done, np.int64),
            np.frombuffer(queue.slot_free, np.int8),
            np.frombuffer(queue.served_by, np.int16),
        )
        self._count = count
        self._timed: tuple[NDArray[np.float32], Words] | None = None

    def timed(self, parts: int) -> tuple[NDArray[np.float32], Words]:
        """Return the arrays for the times of the device and of the host, by request."""
        if self._timed is None:
            self._timed = np.full((self._count, parts), np.nan, np.float32), np.full(self._count, 0, np.int64)
        return self._timed

    def served(self, number: int) -> NDArray[np.bool_]:
        """Return which requests stream ``number`` completed."""
        _, _, done, _, served_by = self.columns
        return np.asarray((served_by == number) & (done >= 0), dtype=np.bool_)

    def close(self) -> None:
        """Give the queue what is no array."""
        self._queue.overloaded = bool(self.shared[layout.OVERLOADED])


def loops_of(
    servers: Sequence[Server], calls: Sequence[PreparedCalls], system: System, chunk: int = _CHUNK
) -> list[Any]:
    """Return the loop of each server; what they share is made here, and every page of it is written."""
    schedules: dict[int, _Schedule] = {}
    loops: list[Any] = []
    for server, own in zip(servers, calls, strict=True):
        if isinstance(server, ClosedServer):
            loops.append(_ClosedLoop(server, own, system, chunk))
        else:
            assert isinstance(server, (OpenServer, BatchServer))  # noqa: S101 - ``prepared`` lets no other pass
            schedule = schedules.setdefault(id(server.queue), _Schedule(server.queue))
            schedule.timed(own.events.shape[1] - 1)
            loops.append(_OpenLoop(server, own, system, schedule))
    return loops


def run(
    servers: Sequence[Server], calls: Sequence[PreparedCalls], system: System | None = None, cores: Sequence[int] = ()
) -> None:
    """Serve until no server has anything left, a thread a stream.

    This thread supervises: a signal or a clock that was set ends all loops within 100 ms.

    Args:
        servers: one a stream.
        calls: what ``prepared`` returned of them.
        system: functions of the C library; None for those of this process.
        cores: core of each thread; none leaves the threads to the kernel.

    Raises:
        Exception: what a call failed with, or what ended this thread's wait.
    """
    loops = loops_of(servers, calls, system or System())
    stop = np.zeros(1, dtype=np.int64)
    errors: list[BaseException] = []

    def work(loop: Any, core: int | None) -> None:
        try:
            if core is not None:
                os.sched_setaffinity(0, {core})  # of this thread alone
            if loop.run(stop) != layout.FINISHED:
                stop[0] = 1
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)
            stop[0] = 1

    own: Sequence[int | None] = cores or [None] * len(loops)
    threads = [
        threading.Thread(target=work, args=(loop, core), daemon=True) for loop, core in zip(loops, own, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        _supervise(threads, loops)
    except BaseException:
        stop[0] = 1
        deadline = time.monotonic() + _STOPPED_WITHIN_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        raise
    if errors:
        raise errors[0]
    for loop in loops:
        loop.finish()


def _supervise(threads: Sequence[threading.Thread], loops: Sequence[Any]) -> None:
    """Wait for the threads, keep their arrays of results ready, and let signals and a clock that was set end this."""
    watch = ClockWatch()
    for thread in threads:
        while thread.is_alive():
            thread.join(_SUPERVISED_S)
            for loop in loops:
                loop.provide()
            watch.check()

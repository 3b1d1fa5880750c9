"""A CUDA driver on virtual clocks, for Python's loops and the compiled ones alike; it notes the order of all calls."""

import ctypes
import itertools
import types
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sweep.backends.clock import VirtualClock
from sweep.backends.tensorrt.cuda import Copy, Replay
from sweep.backends.tensorrt.stream import TensorRTStream
from sweep.loadgen import compiled_loop, issue_loops, loop_layout

OK, NOT_READY, REFUSED = 0, 600, 719
_CALL = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)
NAMES = {
    "cuGraphLaunch": "launch",
    "cuMemcpyAsync": "copy",
    "cuEventRecord": "record",
    "cuEventSynchronize": "synchronise",
    "cuEventQuery": "query",
    "cuEventElapsedTime": "elapsed",
    "cuCtxSetCurrent": "enter",
}


class VirtualDriver:
    """Streams whose inferences take given times, each on a clock of its own.

    Attributes:
        log: calls of each stream, by number, with the handles that they were given.
        failing: number of the launch that is refused; -1 for none.
    """

    def __init__(self) -> None:
        self.clocks: list[VirtualClock] = []
        self.log: list[list[tuple]] = []
        self.failing = -1
        self._services: list[Iterable[int]] = []
        self._free: list[int] = []
        self._events: dict[int, tuple[int, int]] = {}
        self._launches = itertools.count()
        self._callbacks: dict[str, Callable] = {}

    def address(self, function: Callable[..., int], arguments: int) -> int:
        """A C function with four arguments that hands the first ones to ``function``."""
        name = function.__name__
        if name not in self._callbacks:
            self._callbacks[name] = _CALL(lambda *words: function(*words[:arguments]))
        return ctypes.cast(self._callbacks[name], ctypes.c_void_p).value

    def add(self, services: Sequence[int]) -> int:
        """A further stream, whose inferences take these times in turn, ns; its number."""
        self.clocks.append(VirtualClock())
        self.log.append([])
        self._services.append(itertools.cycle(services))
        self._free.append(0)
        return len(self.clocks) - 1

    def launch(self, graph: int, stream: int) -> int:
        self.log[stream].append(("launch", graph))
        if next(self._launches) == self.failing:
            return REFUSED
        start = max(self.clocks[stream].now_ns(), self._free[stream])
        self._free[stream] = start + graph * next(self._services[stream])
        return OK

    def copy(self, target: int, source: int, size: int, stream: int) -> int:
        self.log[stream].append(("copy", target, source, size))
        self._free[stream] = max(self.clocks[stream].now_ns(), self._free[stream]) + size
        return OK

    def record(self, event: int, stream: int) -> int:
        self.log[stream].append(("record", event))
        self._events[event] = stream, max(self.clocks[stream].now_ns(), self._free[stream])
        return OK

    def synchronise(self, event: int) -> int:
        stream, reached = self._events[event]
        self.log[stream].append(("wait", event))
        self.clocks[stream].sleep_until_ns(reached)
        return OK

    def query(self, event: int) -> int:
        stream, reached = self._events[event]
        if self.clocks[stream].now_ns() < reached:
            self.clocks[stream].sleep_until_ns(reached)
            return NOT_READY
        self.log[stream].append(("wait", event))
        return OK

    def elapsed(self, target: int, begin: int, end: int) -> int:
        stream, reached = self._events[end]
        self.log[stream].append(("elapsed", begin, end))
        ctypes.c_float.from_address(target).value = (reached - self._events[begin][1]) / 1e6
        return OK

    def enter(self, _context: int) -> int:
        return OK

    def clock_gettime(self, _clock: int, target: int) -> int:
        words = (ctypes.c_int64 * 3).from_address(target)  # behind a timespec, the number of the stream
        words[0], words[1] = divmod(self.clocks[words[2]].now_ns(), 10**9)
        return OK

    def clock_nanosleep(self, _clock: int, _flags: int, target: int) -> int:
        words = (ctypes.c_int64 * 3).from_address(target)
        self.clocks[words[2]].sleep_until_ns(words[0] * 10**9 + words[1])
        return OK


class VirtualCuda:
    """What ``TensorRTStream`` needs of ``tensorrt.cuda.Cuda``, over a ``VirtualDriver``."""

    not_ready = NOT_READY

    def __init__(self, driver: VirtualDriver) -> None:
        self._driver = driver
        self._handles = itertools.count(1)
        self.rt = types.SimpleNamespace(
            cudaError_t=types.SimpleNamespace(cudaSuccess=OK),
            cudaEventRecord=lambda event, stream: (driver.record(event, stream),),
            cudaEventSynchronize=lambda event: (driver.synchronise(event),),
            cudaEventQuery=lambda event: (driver.query(event),),
            cudaGraphLaunch=lambda graph, stream: (driver.launch(graph, stream),),
            cudaMemcpyAsync=lambda target, source, size, _kind, stream: (driver.copy(target, source, size, stream),),
            cudaEventElapsedTime=self._elapsed,
        )

    def _elapsed(self, begin: int, end: int) -> tuple[int, float]:
        took = ctypes.c_float()
        return self._driver.elapsed(ctypes.addressof(took), begin, end), took.value

    def event(self, *, blocking: bool) -> int:
        del blocking
        return next(self._handles)

    def push(self, value: int, _release: str) -> int:
        """The stack of resources, which releases nothing here."""
        return value

    def address(self, name: str) -> int:
        function = getattr(self._driver, NAMES[name])
        return self._driver.address(function, function.__code__.co_argcount - 1)

    def current_context(self) -> int:
        return 1

    def fail(self, name: str, error: int) -> None:
        raise RuntimeError(f"{name}: {error}")

    fail_driver = fail


def streams_of(driver: VirtualDriver, services: Sequence[Sequence[int]], *, copies: bool = False, batch: int = 1):
    """TensorRT's own streams over the driver, ready for 1 to ``batch`` samples; n samples take n times as long.

    Args:
        driver: whose streams they are.
        services: times of the inferences of each stream, which take turns, ns.
        copies: two inputs and an output are copied.
        batch: of the load.
    """
    cuda = VirtualCuda(driver)
    streams = []
    for own in services:
        number = driver.add(own)
        copied = None
        if copies:
            copy = cuda.rt.cudaMemcpyAsync
            copied = (
                [Copy(copy, 100 + i, 200 + i, 5 + i, 1, number) for i in range(2)],
                [Copy(copy, 300, 400, 3, 2, number)],
            )
        launches = {size: Replay(cuda.rt.cudaGraphLaunch, size, number) for size in range(1, batch + 1)}
        stream = TensorRTStream(cuda, number, launches[batch], copied, "spin", cuda)
        stream.clock = driver.clocks[number]
        for size in range(1, batch):
            stream.add(size, launches[size], copied)
        streams.append(stream)
    return streams


def run_python(servers) -> None:
    """The reference, in the order of the virtual clocks."""
    issue_loops._run_in_turn(servers)


def run_compiled(driver: VirtualDriver, servers, *, poll: bool = False, chunk: int = 4) -> None:
    """The compiled loops, a request at a time, in the order of the virtual clocks."""
    address = driver.address
    system = compiled_loop.System(
        address(driver.clock_gettime, 2), address(driver.clock_nanosleep, 3), margin_ns=0, poll=poll, steps=1
    )
    going = compiled_loop.loops_of(servers, compiled_loop.prepared(servers), system, chunk)
    for number, loop in enumerate(going):
        loop._stream.times[2] = number
    loops, stop = list(going), np.zeros(1, np.int64)
    while going:
        loop = min(going, key=lambda item: item.server.stream.clock.now_ns())
        if loop.run(stop) != loop_layout.STEPPED:
            going.remove(loop)
    for loop in loops:
        loop.finish()

"""The C loop: compiled on the spot, driven with the handles of a session's own streams."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from bench_loops import Run

from sweep.errors import SweepError

SOURCE = Path(__file__).with_name("c_loop.c")
DRIVER = "libcuda.so.1"
_FASTEST_NS = 500  # an inference takes longer than this, so that many places are enough
_SPARE = 1000


class BenchError(SweepError):
    """The bench cannot measure here."""

    stage = "bench"


class Lane(ctypes.Structure):
    """``struct lane`` of c_loop.c."""

    _fields_ = (
        ("stream", ctypes.c_void_p),
        ("graph", ctypes.c_void_p),
        ("begin", ctypes.POINTER(ctypes.c_void_p)),
        ("end", ctypes.POINTER(ctypes.c_void_p)),
        ("places", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("issued_ns", ctypes.c_void_p),
        ("done_ns", ctypes.c_void_p),
        ("gpu_ms", ctypes.c_void_p),
        ("issued", ctypes.c_int64),
        ("done", ctypes.c_int64),
        ("read", ctypes.c_int64),
        ("failed", ctypes.c_char_p),
        ("error", ctypes.c_int64),
    )


class CLoop:
    """The compiled loop, bound to a CUDA driver library.

    Args:
        folder: where the shared library is put.
        driver: name or path of the driver's library.

    Raises:
        BenchError: no compiler, or no such driver library.
    """

    def __init__(self, folder: Path, driver: str = DRIVER) -> None:
        self._lib = ctypes.CDLL(str(_compiled(folder)))
        self._lib.c_loop_load.restype = self._lib.c_loop_error_name.restype = ctypes.c_char_p
        self._lib.c_loop_lane_bytes.restype = ctypes.c_int64
        self._lib.c_loop_load.argtypes = [ctypes.c_char_p]
        lanes, integer, long = ctypes.POINTER(Lane), ctypes.c_int, ctypes.c_int64
        self._lib.c_loop_error_name.argtypes = [integer]
        self._lib.c_loop_closed.argtypes = [lanes, integer, integer, long, integer, integer]
        self._lib.c_loop_open.argtypes = [lanes, ctypes.c_void_p, long, integer]
        self._lib.c_loop_closed.restype = self._lib.c_loop_open.restype = None
        if self._lib.c_loop_lane_bytes() != ctypes.sizeof(Lane):
            raise BenchError("struct lane of c_loop.c and Lane of c_loop.py differ in size")
        reason = self._lib.c_loop_load(driver.encode())
        if reason is not None:
            raise BenchError(f"the CUDA driver cannot be loaded: {reason.decode()}")

    def closed(self, streams, depth: int, seconds: float, *, threads: bool = False, poll: bool = False) -> Run:
        """Closed loop on ``streams``: a C thread each (``threads``), or one for all."""
        duration = round(seconds * 1e9)
        lanes = _Lanes(streams, duration // _FASTEST_NS + _SPARE)
        self._lib.c_loop_closed(lanes.array, len(streams), depth, duration, threads, poll)
        return lanes.run(self._name)

    def open(self, stream, due_ns: np.ndarray, *, poll: bool = False) -> Run:
        """Open loop on one stream: an inference at each of ``due_ns``, times of perf_counter_ns."""
        due = np.ascontiguousarray(due_ns, dtype=np.int64)
        lanes = _Lanes([stream], len(due))
        self._lib.c_loop_open(lanes.array, due.ctypes.data, len(due), poll)
        return lanes.run(self._name)

    def _name(self, error: int) -> str:
        return self._lib.c_loop_error_name(error).decode()


class _Lanes:
    """The lanes of one run, and the memory that they point to."""

    def __init__(self, streams, capacity: int) -> None:
        self.array = (Lane * len(streams))()
        self._kept: list[object] = []
        self._times = []
        for lane, stream in zip(self.array, streams, strict=True):
            # written to, so that no page is fetched inside the loop
            issued, done = np.full(capacity, -1, np.int64), np.full(capacity, -1, np.int64)
            gpu_ms = np.full(capacity, np.nan, np.float32)
            self._times.append((issued, done, gpu_ms))
            handle, graph, begin, end = handles(stream)
            events = [(ctypes.c_void_p * len(side))(*side) for side in (begin, end)]
            self._kept += events
            lane.stream, lane.graph, lane.places, lane.capacity = handle, graph, len(begin), capacity
            lane.begin, lane.end = (ctypes.cast(side, ctypes.POINTER(ctypes.c_void_p)) for side in events)
            lane.issued_ns, lane.done_ns, lane.gpu_ms = (values.ctypes.data for values in self._times[-1])

    def run(self, name) -> Run:
        for number, lane in enumerate(self.array):
            if lane.failed is not None:
                raise BenchError(f"C loop, stream {number}: {lane.failed.decode()} gave {name(lane.error)}")
        return Run([tuple(values[: lane.done] for values in times) for lane, times in self._paired()])

    def _paired(self):
        return zip(self.array, self._times, strict=True)


def handles(stream) -> tuple[int, int, list[int], list[int]]:
    """CUDA stream, executable graph, and the ring's events before and after an inference, as addresses.

    They are taken from the calls that the stream itself makes, so that both loops launch the same.
    """
    rings = stream._sized[None]
    if any(not hasattr(call, "args") for before, _, after in rings for call in (before, after)):
        raise BenchError("the C loop does event, graph, event: the session must have transfers=false")
    before, launch, _ = rings[0]
    if len(getattr(launch, "args", ())) != 2:
        raise BenchError("the C loop launches a CUDA graph: the session must have cuda_graph=true")
    graph, on = launch.args
    begin, end = ([int(events[side]) for events in stream._events] for side in (0, 1))
    if int(before.args[1]) != int(on):
        raise BenchError("the events and the graph of the session are on different streams")
    return int(on), int(graph), begin, end


def _compiled(folder: Path) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler is on PATH: apt-get install gcc, or set CC")
    target = folder / "c_loop.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = [compiler, *flags, str(SOURCE), "-o", str(target), "-lpthread", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{SOURCE.name} does not compile: {' '.join(done.stderr.split())[:500]}")
    return target

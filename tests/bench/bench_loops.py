"""The product's loops, and one that is not the product's: one Python thread for all streams. What a run shows."""

import contextlib
import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sweep.errors import SweepError
from sweep.loadgen import closed_loop, compiled_loop, issue_loops
from sweep.loadgen.open_loop import OpenServer, Queue

_WARM_S = 0.1
_HEAD_START_NS = 100_000_000  # garbage is collected before the first is due


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a loop.

    Attributes:
        streams: issued ns, done ns and GPU ms of each inference, in order, an entry a stream.
    """

    streams: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def figures(self, since_ns: np.ndarray | None = None) -> "Figures":
        """What is kept of it; latency counts from ``since_ns`` (of the only stream) or from the issue."""
        issued, done, gpu_ms = (np.concatenate(column) for column in zip(*self.streams, strict=True))
        latency = (done - (issued if since_ns is None else since_ns[: len(done)])) / 1e3
        counts = [len(times[1]) for times in self.streams]
        return Figures(
            inferences=len(done),
            us=float(done.max() - issued.min()) / 1e3 / len(done),
            p50_us=float(np.percentile(latency, 50)),
            p99_us=float(np.percentile(latency, 99)),
            gpu_us=float(np.median(gpu_ms)) * 1e3,
            least_share=min(counts) / (sum(counts) / len(counts)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run showed.

    Attributes:
        inferences: how many, on all streams.
        us: time per inference, all streams together: first issue to last completion over their number.
        p50_us: latency, median.
        p99_us: latency, 99th percentile.
        gpu_us: event time of one inference, median.
        least_share: inferences of the least served stream over the mean.
    """

    inferences: int
    us: float
    p50_us: float
    p99_us: float
    gpu_us: float
    least_share: float


def closed(streams, depth: int, seconds: float) -> Run:
    """The product's closed loop in Python: ``issue_loops.run_python`` of one ``ClosedServer`` a stream."""
    with _ready(streams):
        until = _until(seconds)
        ran = [closed_loop.ClosedServer(stream, depth, until) for stream in streams]
        issue_loops.run_python(ran)
    return _run([(server.stream, server.issued, server.done) for server in ran])


def closed_compiled(streams, depth: int, seconds: float, *, poll: bool = False, pin: bool = False) -> Run:
    """The product's compiled closed loop, a thread a stream.

    ``poll`` asks the device instead of waiting in CUDA; ``pin`` gives each thread a core.
    """
    compiled_loop.load()
    with _ready(streams), issue_loops.quiet_interpreter():
        until = _until(seconds)
        ran = [closed_loop.ClosedServer(stream, depth, until) for stream in streams]
        cores = sorted(os.sched_getaffinity(0))[1 : 1 + len(ran)] if pin else ()
        compiled_loop.run(ran, _prepared(ran), compiled_loop.System(poll=poll), cores)
    return _run([(server.stream, server.issued, server.done) for server in ran])


def _prepared(servers):
    """Return the calls of the servers' streams; refuses what the compiled loops cannot drive here."""
    calls = compiled_loop.prepared(servers)
    if calls is None:
        raise SweepError("the compiled loops cannot drive this: numba is missing, or a core for each stream")
    return calls


def closed_by_threads(streams, depth: int, seconds: float) -> Run:
    """The same servers, a thread each, as the product drives streams that cannot be polled."""
    with _ready(streams), issue_loops.quiet_interpreter():
        until = _until(seconds)
        ran = [closed_loop.ClosedServer(stream, depth, until) for stream in streams]
        issue_loops._run_threads(ran)
    return _run([(server.stream, server.issued, server.done) for server in ran])


def open_loop(stream, due_ns: np.ndarray, *, compiled: bool = False) -> Run:
    """The product's open loop on one stream, in Python or compiled."""
    queue = open_queue([stream], due_ns, compiled=compiled)
    return _run([(stream, queue.issued, queue.done)])


def open_queue(streams, due_ns: np.ndarray, *, compiled: bool) -> Queue:
    """The queue after the product's open loop served it, in Python or compiled."""
    compiled_loop.load()
    queue = Queue(due_ns.tolist(), max_wait_ns=10**10)
    servers = [OpenServer(stream, queue, number) for number, stream in enumerate(streams)]
    if not compiled:
        with _ready(streams):
            issue_loops.run_python(servers)
        return queue
    with _ready(streams), issue_loops.quiet_interpreter():
        compiled_loop.run(servers, _prepared(servers))
    return queue


def lags_us(queue: Queue) -> np.ndarray:
    """Issue lag of each request that a free stream was waiting for, us."""
    due, issued, free = np.array(queue.due), np.array(queue.issued), np.array(queue.slot_free, dtype=bool)
    return (issued - due)[free & (issued >= 0)] / 1e3


def constant_due(gap_us: float, seconds: float) -> np.ndarray:
    """Due times a constant gap apart, from a little after now, ns."""
    count = max(20, round(seconds * 1e6 / gap_us))
    start = time.perf_counter_ns() + _HEAD_START_NS
    return start + np.round(np.arange(count) * gap_us * 1e3).astype(np.int64)


@contextlib.contextmanager
def _ready(streams):
    """No GPU times from before, and no garbage left that the timed loop would collect."""
    for stream in streams:
        stream.take_parts_ms()
    gc.collect()
    yield


def _until(seconds: float) -> closed_loop.Until:
    span = round(seconds * 1e9)
    return closed_loop.Until(time.perf_counter_ns(), span, span, 0)


def _run(served) -> Run:
    return Run(
        [
            (np.array(issued, dtype=np.int64), np.array(done, dtype=np.int64), stream.take_parts_ms()[:, 1])
            for stream, issued, done in served
        ]
    )


def interleaved(
    ways: Mapping[str, Callable[[float], Figures]], rounds: int, seconds: float
) -> dict[str, list[Figures]]:
    """Each way ``rounds`` times in turn, every other round backwards; once before, briefly, and not counted."""
    found: dict[str, list[Figures]] = {name: [] for name in ways}
    for way in ways.values():
        way(min(seconds, _WARM_S))
    for number in range(rounds):
        names = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in names:
            found[name].append(ways[name](seconds))
    return found

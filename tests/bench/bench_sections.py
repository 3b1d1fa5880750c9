"""The three sections of the bench: one stream, four streams, timers. Each takes one engine and gives rows."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import bench_loops
import bench_report
import numpy as np
from bench_engines import Rig, Spec
from bench_loops import Figures
from bench_report import Row
from c_loop import BenchError, CLoop

from sweep.backends.tensorrt import cuda as cuda_module

_DEPTH = 2
_STREAMS = 4
STREAM_COUNTS = (1, 2, 4, 8)
OPEN_RPS, OPEN_S = 100_000, 1.0  # of the lag with four streams
_OPEN_LOAD = 0.3  # of what one stream can do at depth 1
_BACK_TO_BACK = 20
_WARM = 5
_COMPILED, _COMPILED_POLLS = "compiled, a thread a stream", "compiled, a thread a stream that polls"
_COMPILED_PINNED = "compiled, a thread a stream, pinned"
_C_THREADS, _THREADS, _ONE = "C, a thread a stream", "Python, a thread a stream", "Python, one thread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long the bench measures.

    Attributes:
        run_s: seconds of a run that gives a throughput.
        latency_s: seconds of a run that gives a latency.
        pairs: how often each comparison is made.
    """

    run_s: float = 0.5
    latency_s: float = 0.2
    pairs: int = 5


Ways = dict[str, Callable[[float], Figures]]  # each runs for that many seconds
Measure = Callable[[Rig, CLoop, Spec, Settings], list[Row]]


@dataclass(frozen=True, slots=True)
class Section:
    """One table.

    Attributes:
        title: above it.
        engines: that it is made for.
        ours: heads the column of the subject's time.
        theirs: heads the column of what it is held against.
        measure: the rows of one engine.
    """

    title: str
    engines: tuple[str, ...]
    ours: str
    theirs: str
    measure: Measure


def one_stream(rig: Rig, loop: CLoop, spec: Spec, settings: Settings) -> list[Row]:
    """Throughput at depth 2, latency at depth 1, and from the due time in an open loop."""
    with contextlib.closing(rig.session(spec, streams=1)) as session:
        streams = session.streams
        busy = bench_loops.interleaved(_closed_ways(streams, loop, _DEPTH), settings.pairs, settings.run_s)
        single = bench_loops.interleaved(
            {
                **_closed_ways(streams, loop, 1),
                "polling": lambda seconds: loop.closed(streams, 1, seconds, poll=True).figures(),
            },
            settings.pairs,
            settings.latency_s,
        )
        gap_us = single["c"][0].p50_us / _OPEN_LOAD
        opened = bench_loops.interleaved(_open_ways(streams[0], loop, gap_us), settings.pairs, settings.latency_s)
    target = bench_report.least_ratio(bench_report.median_of(busy["c"], "gpu_us"))
    most = bench_report.MOST_ADDED_US
    return [
        bench_report.ratio(spec.name, "depth 2: us an inference", busy["python"], busy["c"], target),
        bench_report.added(spec.name, "depth 1: latency", single["python"], single["c"], most),
        bench_report.added(spec.name, "depth 1: latency, C polls", single["python"], single["polling"]),
        bench_report.added(spec.name, "open loop: latency from due", opened["python"], opened["c"], most),
        bench_report.added(
            spec.name,
            "open loop, compiled: latency from due",
            opened["compiled"],
            opened["c"],
            bench_report.MOST_ADDED_COMPILED_US,
        ),
    ]


def _closed_ways(streams, loop: CLoop, depth: int) -> Ways:
    return {
        "python": lambda seconds: bench_loops.closed(streams, depth, seconds).figures(),
        "c": lambda seconds: loop.closed(streams, depth, seconds).figures(),
    }


def _open_ways(stream, loop: CLoop, gap_us: float) -> Ways:
    def ours(seconds: float, *, compiled: bool) -> Figures:
        due = bench_loops.constant_due(gap_us, seconds)
        return bench_loops.open_loop(stream, due, compiled=compiled).figures(due)

    def c(seconds: float) -> Figures:
        due = bench_loops.constant_due(gap_us, seconds)
        return loop.open(stream, due).figures(due)

    return {"python": partial(ours, compiled=False), "compiled": partial(ours, compiled=True), "c": c}


def four_streams(rig: Rig, loop: CLoop, spec: Spec, settings: Settings) -> list[Row]:
    """Four streams at depth 2, every way to drive them, each held against C with a thread a stream."""
    with contextlib.ExitStack() as stack:

        def streams_of(*, graph: bool, wait: str):
            made = rig.session(spec, streams=_STREAMS, graph=graph, wait=wait)
            return stack.enter_context(contextlib.closing(made)).streams

        graph, eager = (streams_of(graph=graph, wait="spin") for graph in (True, False))
        waits = {f"{_THREADS}, wait={wait}": streams_of(graph=True, wait=wait) for wait in ("yield", "block")}
        ways: Ways = {
            _C_THREADS: lambda seconds: loop.closed(graph, _DEPTH, seconds, threads=True).figures(),
            _THREADS: _by_threads(graph),
            _ONE: _by_one(graph),
            "C, one thread": lambda seconds: loop.closed(graph, _DEPTH, seconds).figures(),
            **{name: _by_threads(streams) for name, streams in waits.items()},
            f"{_THREADS}, eager": _by_threads(eager),
            f"{_ONE}, eager": _by_one(eager),
        }
        found = bench_loops.interleaved(ways, settings.pairs, settings.run_s)
    return _of_four(spec.name, found)


def _of_four(engine: str, found: dict[str, list[Figures]]) -> list[Row]:
    """Every way over C's threads; then one thread over a thread a stream, like for like."""
    least = {_ONE: bench_report.LEAST_RATIO_STREAMS}
    rows = [bench_report.ratio(engine, name, runs, found[_C_THREADS], least.get(name)) for name, runs in found.items()]
    for tail in ("", ", eager"):
        what = f"one Python thread over a thread a stream{tail}"
        rows.append(bench_report.ratio(engine, what, found[f"{_ONE}{tail}"], found[f"{_THREADS}{tail}"]))
    return rows


def _by_threads(streams) -> Callable[[float], Figures]:
    return lambda seconds: bench_loops.closed_by_threads(streams, _DEPTH, seconds).figures()


def _by_one(streams) -> Callable[[float], Figures]:
    return lambda seconds: bench_loops.closed(streams, _DEPTH, seconds).figures()


def compiled(rig: Rig, loop: CLoop, spec: Spec, settings: Settings) -> list[Row]:
    """The compiled loop and Python's at depth 2, with 1 to 8 streams, each held against C with a thread a stream.

    Raises:
        BenchError: the outputs after the compiled loop are not those after Python's, bit for bit.
    """
    rows = []
    for count in STREAM_COUNTS:
        with contextlib.closing(rig.session(spec, streams=count)) as session:
            streams = session.streams
            ways: Ways = {
                _C_THREADS: lambda seconds, on=streams: loop.closed(on, _DEPTH, seconds, threads=True).figures(),
                _COMPILED: lambda seconds, on=streams: bench_loops.closed_compiled(on, _DEPTH, seconds).figures(),
                _COMPILED_POLLS: lambda seconds, on=streams: bench_loops.closed_compiled(
                    on, _DEPTH, seconds, poll=True
                ).figures(),
                _COMPILED_PINNED: lambda seconds, on=streams: bench_loops.closed_compiled(
                    on, _DEPTH, seconds, pin=True
                ).figures(),
                _ONE: _by_one(streams),
            }
            found = bench_loops.interleaved(ways, settings.pairs, settings.run_s)
            _check_outputs(session)
            least = {_COMPILED: bench_report.LEAST_RATIO_COMPILED}
            rows += [
                bench_report.ratio(spec.name, f"{count} x {name}", runs, found[_C_THREADS], least.get(name))
                for name, runs in found.items()
            ]
    return rows


def _check_outputs(session) -> None:
    """Compare the outputs of every stream after Python's loop and after the compiled one, bit for bit."""
    streams, outputs = session.streams, []
    for drive in (bench_loops.closed, bench_loops.closed_compiled):
        session.poison()
        drive(streams, _DEPTH, 0.01)
        outputs.append([session.outputs_of(number) for number in range(len(streams))])
    for number, (python, compiled_outputs) in enumerate(zip(*outputs, strict=True)):
        for name, values in python.items():
            if values.tobytes() != compiled_outputs[name].tobytes():
                raise BenchError(f"stream {number}: output {name} differs between Python's loop and the compiled one")


def open_lag(rig: Rig, loop: CLoop, spec: Spec, settings: Settings) -> list[Row]:
    """Issue lag at 100,000 requests/s over four streams, p99: compiled against Python."""
    del loop
    rng = np.random.default_rng(0)
    lags: dict[str, list[float]] = {_COMPILED: [], _ONE: []}
    with contextlib.closing(rig.session(spec, streams=_STREAMS)) as session:
        for _ in range(settings.pairs):
            for name, found in lags.items():
                gaps = rng.exponential(1e9 / OPEN_RPS, round(OPEN_RPS * OPEN_S))
                due = time.perf_counter_ns() + 300_000_000 + np.cumsum(gaps).astype(np.int64)
                queue = bench_loops.open_queue(session.streams, due, compiled=name == _COMPILED)
                found.append(float(np.percentile(bench_loops.lags_us(queue), 99)))
    return [bench_report.lag(spec.name, f"{OPEN_RPS:,} requests/s, lag p99", lags[_COMPILED], lags[_ONE])]


def timers(rig: Rig, loop: CLoop, spec: Spec, settings: Settings) -> list[Row]:
    """Event time against host time: one inference, 20 back to back, and the clocks alone over ``run_s``."""
    del loop
    with contextlib.closing(rig.session(spec, streams=1)) as session:
        (stream,) = session.streams
        count = max(10, round(settings.run_s * 1e6 / spec.about_us))
        one = _one_by_one(stream, count)
        gpu_us = sorted(one[1])[len(one[1]) // 2]
        runs = max(settings.pairs, 3)
        many = [_between_events(stream, _BACK_TO_BACK, settled=False) for _ in range(runs)]
        clock = [_between_events(stream, count, settled=True) for _ in range(runs)]
    return [
        bench_report.timer(spec.name, "enqueue to wait, one inference", *one, gpu_us),
        bench_report.timer(spec.name, f"{_BACK_TO_BACK} back to back", *_columns(many), gpu_us),
        bench_report.timer(spec.name, f"{count} back to back, clocks alone", *_columns(clock), gpu_us),
    ]


def _one_by_one(stream, count: int) -> tuple[list[float], list[float]]:
    host_us = []
    stream.take_parts_ms()
    for _ in range(count + _WARM):
        start = time.perf_counter_ns()
        stream.enqueue()
        stream.wait()
        host_us.append((time.perf_counter_ns() - start) / 1e3)
    return host_us[_WARM:], (stream.take_parts_ms()[_WARM:, 1] * 1e3).tolist()


def _between_events(stream, count: int, *, settled: bool) -> tuple[float, float]:
    """(host us, event us) of ``count`` inferences between two events.

    ``settled`` sees the first event before the host's time starts, so that both ends of both times carry the same
    delay and the clocks alone are compared. Else the host's time starts before the first call, as a request's does.
    """
    cuda = cuda_module.get()
    before, launch, _ = stream._sized[None][0]
    on = before.args[1]
    first, last = (cuda.event(blocking=False) for _ in range(2))
    try:
        start = time.perf_counter_ns()
        cuda.call("cudaEventRecord", first, on)
        if settled:
            cuda.call("cudaEventSynchronize", first)
            start = time.perf_counter_ns()
        for _ in range(count):
            error = launch()[0]
            if error != cuda.rt.cudaError_t.cudaSuccess:
                cuda.fail("launch", error)
        cuda.call("cudaEventRecord", last, on)
        cuda.call("cudaEventSynchronize", last)
        host_us = (time.perf_counter_ns() - start) / 1e3
        return host_us, cuda.call("cudaEventElapsedTime", first, last) * 1e3
    finally:
        for event in (first, last):
            cuda.call("cudaEventDestroy", event)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [host for host, _ in pairs], [event for _, event in pairs]


SECTIONS = {
    "one": Section(
        "One stream: Python's loop against C's over the same graph",
        ("mlp1", "mlp4", "resnet50_b1", "resnet50_b32"),
        "Python us",
        "C us",
        one_stream,
    ),
    "four": Section(
        "Four streams: us an inference, held against C with a thread a stream unless the row says otherwise",
        ("mlp1", "mlp4", "resnet50_b1"),
        "us",
        "against us",
        four_streams,
    ),
    "compiled": Section(
        "The compiled loop with 1 to 8 streams: us an inference, held against C with a thread a stream",
        ("mlp1", "mlp4", "mlp350", "mlp1500"),
        "us",
        "C us",
        compiled,
    ),
    "lag": Section("Open loop over four streams: issue lag at p99", ("mlp1",), "compiled us", "Python us", open_lag),
    "timers": Section(
        "Timers: host time against event time", ("resnet50_b32", "resnet50_b128"), "host us", "event us", timers
    ),
}

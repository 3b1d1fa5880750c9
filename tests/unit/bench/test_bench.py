"""The bench of the loops, on a pretended driver that takes real time: its paths and its arithmetic, no figures."""

import io
import json
import os

import bench_engines
import bench_gpu
import bench_loops
import bench_report
import bench_sections
import c_loop
import numpy as np
import pytest
import require
from bench_loops import Figures
from fake_driver import Driver, DriverEngine, DriverRuntime
from fake_gpu import FakeDriver, library_of
from rich.console import Console

from sweep.backends import registry
from sweep.backends.tensorrt import cuda
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.loadgen import compiled_loop, issue_loops, load_point
from sweep.loadgen.load_point import Place
from sweep.spec import LoadAxes, SessionAxes

SERVICE_NS = 200_000
FEEDS = {"x": np.zeros((1, 3), np.float32)}
SHORT = bench_sections.Settings(run_s=0.01, latency_s=0.01, pairs=2)


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Driver:
    return Driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def loop(driver, tmp_path_factory) -> c_loop.CLoop:
    return c_loop.CLoop(tmp_path_factory.mktemp("loop"), str(driver.path))


@pytest.fixture
def runtime(driver, monkeypatch) -> DriverRuntime:
    made = DriverRuntime(driver, SERVICE_NS)
    wrapped = object.__new__(cuda.Cuda)
    wrapped.rt, wrapped._ok, wrapped.not_ready = made, 0, 600
    wrapped.drv, wrapped.driver_library = FakeDriver(made), str(driver.path)
    monkeypatch.setattr(cuda, "get", lambda: wrapped)
    return made


class FakeRig:
    """Sessions of the product over the pretended driver."""

    def __init__(self, runtime) -> None:
        self.runtime = runtime
        self.opened = []

    def facts(self):
        return {"gpu": "pretended"}

    def session(self, spec, *, streams: int, graph: bool = True, wait: str | None = None):
        axes = SessionAxes(streams=streams, cuda_graph=graph, transfers=False, wait=wait)
        library = library_of(DriverEngine(self.runtime))
        self.opened.append(TensorRTSession(library, b"plan", axes, FEEDS, None))
        return self.opened[-1]


@pytest.fixture
def rig(runtime) -> FakeRig:
    return FakeRig(runtime)


def streams_of(rig, count: int, **axes):
    return rig.session(bench_engines.SPECS["mlp1"], streams=count, **axes).streams


def check_order(run, depth: int) -> None:
    assert all(len(done) for _, done, _ in run.streams)  # one in any case: a crowded machine may start threads late
    for issued, done, gpu_ms in run.streams:
        assert len(issued) == len(done) == len(gpu_ms)
        if not len(done):
            continue
        assert np.all(np.diff(issued) >= 0)
        assert np.all(np.diff(done) >= 0)
        assert np.all(done - issued[0] >= np.arange(1, len(done) + 1) * SERVICE_NS)  # the stream's work never overlaps
        assert np.all(done - issued >= SERVICE_NS)
        assert np.all(issued[depth:] >= done[:-depth])  # never more in flight than asked
        assert np.all(gpu_ms >= SERVICE_NS / 1e6 * 0.99)


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("how", ["one", "threads", "one, polling", "threads, polling"])
@pytest.mark.parametrize("count", [1, 4])
def test_the_c_loop_does_per_inference_what_the_python_loop_does(loop, driver, rig, count, how, depth) -> None:
    threads, poll = "threads" in how, "polling" in how
    streams = streams_of(rig, count)
    driver.reset()
    run = loop.closed(streams, depth, 0.1, threads=threads, poll=poll)
    check_order(run, depth)
    inferences, counts = sum(len(done) for _, done, _ in run.streams), driver.counts()
    assert (counts["launch"], counts["record"], counts["elapsed"]) == (inferences, 2 * inferences, inferences)
    assert counts["query" if poll else "synchronise"] >= inferences
    assert counts["synchronise" if poll else "query"] == 0
    assert counts["set_context"] == (count if threads else 0)


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("drive", [bench_loops.closed, bench_loops.closed_by_threads, bench_loops.closed_compiled])
@pytest.mark.parametrize("count", [1, 4])
def test_the_products_loops_do_the_same(driver, rig, drive, count, depth, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))
    streams = streams_of(rig, count)
    driver.reset()
    run = drive(streams, depth, 0.12)
    check_order(run, depth)
    inferences, counts = sum(len(done) for _, done, _ in run.streams), driver.counts()
    assert (counts["launch"], counts["record"], counts["elapsed"]) == (inferences, 2 * inferences, inferences)
    polled = drive is bench_loops.closed and count > 1
    assert counts["synchronise"] == (0 if polled else inferences)
    assert counts["query"] >= (inferences if polled else 0)


def test_open_loops_start_when_due_and_no_earlier(loop, rig) -> None:
    (stream,) = streams_of(rig, 1)
    for drive in (bench_loops.open_loop, loop.open):
        due = bench_loops.constant_due(2 * SERVICE_NS / 1e3, 0.02)
        run = drive(stream, due)
        ((issued, done, gpu_ms),) = run.streams
        assert len(issued) == len(due) == len(gpu_ms) == 50
        assert np.all(issued >= due)
        assert np.all(done - issued >= SERVICE_NS)
        assert run.figures(due).p50_us >= run.figures().p50_us > SERVICE_NS / 1e3


def test_the_c_loop_launches_the_handles_of_the_session(rig) -> None:
    (stream,) = streams_of(rig, 1)
    handle, graph, begin, end = c_loop.handles(stream)
    assert {handle, graph, *begin, *end} <= set(rig.runtime.held)
    assert len({*begin, *end}) == len(begin) + len(end)


def test_a_session_that_the_c_loop_cannot_drive_is_refused(loop, rig, runtime) -> None:
    with pytest.raises(c_loop.BenchError, match="cuda_graph=true"):
        loop.closed(streams_of(rig, 1, graph=False), 2, 0.01)
    axes = SessionAxes(cuda_graph=True)
    copying = TensorRTSession(library_of(DriverEngine(runtime)), b"plan", axes, FEEDS, None)
    with pytest.raises(c_loop.BenchError, match="transfers=false"):
        loop.closed(copying.streams, 2, 0.01)


@pytest.mark.parametrize("threads", [False, True])
def test_a_call_that_fails_ends_the_c_loop_with_its_name(loop, driver, rig, threads) -> None:
    streams = streams_of(rig, 2)
    driver.reset(failing_launch=5)
    with pytest.raises(c_loop.BenchError, match=r"cuGraphLaunch gave CUDA_ERROR_LAUNCH_FAILED"):
        loop.closed(streams, 2, 0.05, threads=threads)
    driver.reset()


def test_no_driver_and_no_compiler_are_one_line_each(tmp_path, monkeypatch) -> None:
    with pytest.raises(c_loop.BenchError, match=r"driver cannot be loaded: .*no-such-library"):
        c_loop.CLoop(tmp_path, "no-such-library.so")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(c_loop.BenchError, match="no C compiler"):
        c_loop.CLoop(tmp_path)


def test_the_whole_bench_runs_and_what_fails_leaves_the_rest(loop, rig, tmp_path, monkeypatch) -> None:
    engines = ["mlp1", "resnet50_b32"]
    wanted = rig.session

    def session(spec, **axes):
        if spec.name == "mlp1" and axes["streams"] == 1:
            raise c_loop.BenchError("a cause of ours")
        return wanted(spec, **axes)

    rig.session = session
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _thread, _cores: None)
    monkeypatch.setattr(bench_sections, "STREAM_COUNTS", (2,))
    monkeypatch.setattr(bench_sections, "OPEN_RPS", 500)
    monkeypatch.setattr(bench_sections, "OPEN_S", 0.05)
    console = Console(width=200, record=True, quiet=True)
    bench = bench_gpu.Bench(rig, loop, SHORT, console, tmp_path / "bench.json")
    bench.run(list(bench_sections.SECTIONS), engines)
    assert bench.failures == ["one, mlp1: BenchError: a cause of ours"]
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {name: {row["engine"] for row in rows} for name, rows in found["rows"].items()} == {
        "one": {"resnet50_b32"},
        "four": {"mlp1"},
        "compiled": {"mlp1"},
        "lag": {"mlp1"},
        "timers": {"resnet50_b32"},
    }
    for row in (row for rows in found["rows"].values() for row in rows):
        assert row["kind"] == "lag_us" or row["gpu_us"] >= SERVICE_NS / 1e3 * 0.99
        assert row["low"] <= row["result"] <= row["high"]
        assert row["ours_us"] > 0
        assert row["theirs_us"] > 0
    promised = [row["what"] for row in found["rows"]["four"] if row["met"] is not None]
    assert promised == ["Python, one thread"]
    assert len(found["rows"]["four"]) == 10
    assert len(found["rows"]["compiled"]) == 5
    assert all(made.streams == [] for made in rig.opened)  # closed
    for session in rig.opened:
        session.close()


def test_a_machine_without_a_gpu_gets_one_line_and_exit_1(monkeypatch, capsys) -> None:
    monkeypatch.setenv("SWEEP_GPU_BACKEND", "tensorrt")
    monkeypatch.setattr("sweep.backends.tensorrt.backend.TensorRT.missing", lambda self: "none is seen here")
    assert bench_gpu.main([]) == 1
    assert capsys.readouterr().out.splitlines() == ["bench: cannot measure here: tensorrt: none is seen here"]


def figures(us: float, p50_us: float = 10.0, gpu_us: float = 5.0) -> Figures:
    return Figures(inferences=100, us=us, p50_us=p50_us, p99_us=p50_us * 2, gpu_us=gpu_us, least_share=1.0)


def test_ratios_are_of_pairs_and_verdicts_follow_the_targets() -> None:
    python, c = [figures(us) for us in (10.0, 20.0, 10.0)], [figures(us) for us in (9.7, 19.0, 10.0)]
    row = bench_report.ratio("e", "w", python, c, 0.97)
    assert (row.result, row.low, row.high) == (pytest.approx(0.97), pytest.approx(0.95), pytest.approx(1.0))
    assert (row.ours_us, row.theirs_us, row.met) == (10.0, 10.0, True)
    assert bench_report.ratio("e", "w", python, c, 0.98).met is False
    assert bench_report.ratio("e", "w", python, c).met is None


def test_added_latency_and_timers_are_differences() -> None:
    slow, quick = [figures(1, p50) for p50 in (12.0, 14.0, 13.0)], [figures(1, p50) for p50 in (10.0, 10.0, 11.5)]
    row = bench_report.added("e", "w", slow, quick, 2.0)
    assert (row.result, row.low, row.high, row.met) == (2.0, 1.5, 4.0, True)
    assert bench_report.added("e", "w", quick, slow, 2.0).met is True  # quicker than C is no fault
    row = bench_report.timer("e", "w", [1012.0, 1009.0, 1000.0], [1000.0, 1000.0, 1000.0], 1000.0)
    assert (row.result, row.met) == (pytest.approx(0.9), True)
    assert bench_report.timer("e", "w", [980.0], [1000.0], 1000.0).met is False  # host time below event time is one


def test_the_bound_is_that_of_the_engines_own_gpu_time() -> None:
    assert [bench_report.least_ratio(us) for us in (4.4, 9.9, 10.0, 18.4, 1500.0)] == [0.97, 0.97, 0.99, 0.99, 0.99]


def test_a_run_is_summed_over_its_streams() -> None:
    def stream(first_ns, done_ns, count):
        issued = np.linspace(first_ns, done_ns - 100, count).astype(np.int64)
        return issued, issued + 100, np.full(count, 0.05, np.float32)

    found = bench_loops.Run([stream(1000, 100_000, 30), stream(2000, 101_000, 10)]).figures()
    assert (found.inferences, found.us) == (40, pytest.approx(2.5))
    assert (found.p50_us, found.gpu_us, found.least_share) == (0.1, pytest.approx(50.0), 0.5)


def test_the_table_shows_results_and_verdicts() -> None:
    rows = [
        bench_report.ratio("mlp1", "throughput", [figures(6.65)], [figures(6.51)], 0.97),
        bench_report.added("mlp1", "latency", [figures(1, 13.5)], [figures(1, 10.0)], 2.0),
        bench_report.ratio("mlp1", "nothing promised", [figures(1)], [figures(1)]),
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(bench_report.table("title", rows, "Python us", "C us"))
    first, second, third = [line for line in console.export_text().splitlines() if "mlp1" in line]
    assert "0.9789" in first
    assert ">= 0.97" in first
    assert first.rstrip(" │").endswith("met")
    assert "+3.50 us" in second
    assert second.rstrip(" │").endswith("not met")
    assert "met" not in third


@pytest.mark.parametrize("name", ["mlp1", "mlp4"])
def test_the_perceptrons_build_in_fp16_as_their_products_alone(tmp_path, name: str) -> None:
    require.library_for("tensorrt_rtx")
    spec = bench_engines.SPECS[name]
    rig = bench_engines.Rig(registry.get("tensorrt_rtx"), tmp_path, width=64)
    loaded = {}
    rig._backend.load = lambda path, info, variant, feeds: loaded.update(info=info, feeds=feeds)
    rig.session(spec, streams=1)
    assert loaded["feeds"]["x"].dtype == np.float16
    assert loaded["feeds"]["x"].shape == (spec.batch, 64)
    assert set(loaded["info"]["precision"]) == {"fp16"}


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("streams", [1, 2])
def test_the_whole_load_runs_compiled_on_captured_graphs(runtime, driver, monkeypatch, streams, copies) -> None:
    """Warm-up, closed loop, open loop: what the streams timed is in the samples, and every call is counted."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))
    monkeypatch.setenv(compiled_loop.ENABLED, "1")
    axes = SessionAxes(streams=streams, cuda_graph=True, transfers=None if copies else False)
    session = TensorRTSession(library_of(DriverEngine(runtime)), b"plan", axes, FEEDS, None)
    driver.reset()
    load = LoadAxes(kind="poisson", warmup_s=0.01, min_s=0.02, min_requests=40, max_s=5.0)
    assert issue_loops.loop_name(session.streams, mixed=False) == "compiled"
    closed = load_point.closed_point(session, load, Place(index=-1, repeat=0, batch=1))
    opened = load_point.open_point(session, load, 500.0, Place(index=0, repeat=0, batch=1))
    served = 0
    for point in (closed, opened):
        assert point.complete
        assert point.measured.sum() >= 40
        assert set(point.stream) <= set(range(streams))
        assert (point.done_ns - point.issued_ns >= SERVICE_NS).all()
        assert (point.gpu_compute_ms >= SERVICE_NS / 1e6 * 0.99).all()
        assert (point.enqueue_ms > 0).all()
        served += len(point.done_ns)
    assert driver.counts()["launch"] == driver.counts()["synchronise"] == served
    assert driver.counts()["query"] == 0
    session.close()

"""A session's every path on a pretended GPU; tests/gpu runs the same on a real one."""

import dataclasses
import gc

import numpy as np
import pytest
from fake_gpu import (
    COMPUTE_MS,
    CONTEXT_BYTES,
    COPY_MS,
    INVALIDATED,
    NO_MEMORY,
    WEIGHTS_BYTES,
    FakeEngine,
    FakeRuntime,
    installed,
    library_of,
)

from sweep.analysis.point_summary import closed_summary
from sweep.backends.base import SupportsPartTimes
from sweep.backends.tensorrt import builder_config, cuda, gpu_allocator
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.backends.tensorrt.stream import DEPTH
from sweep.errors import SessionError, UnsupportedError
from sweep.loadgen import load_curve
from sweep.spec import EngineAxes, LoadAxes, SessionAxes
from sweep.storage import samples, samples_file

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def runtime(monkeypatch):
    return installed(monkeypatch, FakeRuntime())


def session(runtime, engine=None, *, rtx=True, **axes) -> TensorRTSession:
    made = engine or FakeEngine(runtime)
    return TensorRTSession(library_of(made, rtx=rtx), b"plan", SessionAxes(**axes), FEEDS, None)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("transfers", [None, True, False])
@pytest.mark.parametrize("wait", [None, "block", "spin", "yield"])
def test_a_request_is_timed_part_by_part(runtime, graph, transfers, wait) -> None:
    made = session(runtime, cuda_graph=graph, transfers=transfers, wait=wait)
    (stream,) = made.streams
    made.poison()
    stream.enqueue()
    stream.enqueue()
    stream.wait()
    stream.wait()
    nan = float("nan")
    row = [nan, COMPUTE_MS, nan] if transfers is False else [COPY_MS, COMPUTE_MS, COPY_MS]
    found = stream.take_parts_ms()
    assert np.array_equal(found[:, :3], np.array([row, row], np.float32), equal_nan=True)
    assert np.all((found[:, 3] > 0) & (found[:, 3] < 1000))
    assert stream.take_parts_ms().shape == (0, 4)
    assert np.array_equal(made.outputs()["y"], FEEDS["x"] * 2)
    assert ("cudaGraphLaunch" in runtime.calls) == graph
    assert made.realised["cuda_graph"] == graph
    assert made.realised["cuda_graph_strategy"] == "DISABLED"
    assert made.realised["wait"] == (wait or "spin")
    made.close()


@pytest.mark.parametrize("graph", [False, True])
def test_requests_take_the_batches_in_turn_on_every_stream_until_they_stay_with_one(runtime, graph) -> None:
    made = session(runtime, streams=2, cuda_graph=graph)
    batches = [{"x": FEEDS["x"] + number} for number in range(3)]
    assert made.take_turns(batches) == 3
    for number in (0, 1, 2, 0):
        for place, stream in enumerate(made.streams):
            stream.enqueue()
            stream.wait()
            assert np.array_equal(made.outputs_of(place)["y"], batches[number]["x"] * 2)
    assert made.take_turns(batches[1:2]) == 1
    for stream in made.streams:
        stream.enqueue()
        stream.wait()
    assert np.array_equal(made.outputs_of(1)["y"], batches[1]["x"] * 2)
    made.close()
    resident = session(runtime, transfers=False)
    assert resident.take_turns(batches) == 1, "inputs stay on the device"
    resident.close()


@pytest.mark.parametrize("rtx", [True, False])
def test_a_context_gets_scratch_memory_for_its_shapes_and_a_share_of_the_cache(runtime, rtx) -> None:
    engine = FakeEngine(runtime)
    made = session(runtime, engine, rtx=rtx, streams=2, context_memory="user_managed", persistent_cache_ratio=0.5)
    assert engine.strategies == ["USER_MANAGED", "USER_MANAGED"]
    contexts = [context.context for context in made._contexts]
    assert [context.given[1] for context in contexts] == [32, 32], "16 bytes a sample"
    assert len({context.given[0] for context in contexts}) == 2
    assert [context.persistent_cache_limit for context in contexts] == [500, 500]
    del contexts
    made.close()
    owners = made.engine_facts["memory"]["peak_by_owner"]
    assert owners["activations"] == 2 * CONTEXT_BYTES + 64, "what the library took, and what it was given"
    assert owners["buffers"] == 2 * 2 * FEEDS["x"].nbytes
    assert runtime.held == {}


def test_ways_of_allocation_that_a_library_lacks_are_named(runtime) -> None:
    with pytest.raises(UnsupportedError, match=r"does not have context_memory: .*ON_PROFILE_CHANGE"):
        session(runtime, context_memory="on_profile_change")


def test_streams_have_their_own_everything(runtime) -> None:
    engine = FakeEngine(runtime)
    made = session(runtime, engine, streams=3, cuda_graph=True)
    assert engine.contexts == 3
    assert made.realised["contexts"] == 3
    assert made.realised["sm_count"] == 132
    made.poison()
    made.streams[1].enqueue()
    made.streams[1].wait()
    assert np.array_equal(made.outputs_of(1)["y"], FEEDS["x"] * 2)
    assert np.isnan(made.outputs_of(0)["y"]).all()
    assert np.isnan(made.outputs_of(2)["y"]).all()
    made.close()


def test_closing_gives_everything_back_and_twice_is_once(runtime) -> None:
    made = session(runtime, streams=2, cuda_graph=True)
    assert made.engine_facts["device_memory_bytes"] > 0
    assert made.engine_facts["context_memory_bytes"] == 4096
    assert made.engine_facts["first_inference_s"] > 0
    made.close()
    made.close()
    assert runtime.held == {}


def test_the_depth_is_held_to_and_the_ring_goes_round(runtime) -> None:
    made = session(runtime)
    (stream,) = made.streams
    assert isinstance(stream, SupportsPartTimes)
    assert stream.max_depth == DEPTH >= 2
    for _ in range(3):
        for _ in range(DEPTH):
            stream.enqueue()
        with pytest.raises(SessionError, match="in flight"):
            stream.enqueue()
        for _ in range(DEPTH):
            stream.wait()
    with pytest.raises(SessionError, match="no inference"):
        stream.wait()
    found = stream.take_parts_ms()[:, :3]
    assert np.array_equal(found, np.full((3 * DEPTH, 3), [COPY_MS, COMPUTE_MS, COPY_MS], np.float32))
    made.close()


def test_the_load_generator_carries_gpu_times_into_the_samples(runtime) -> None:
    made = session(runtime, streams=2)
    load = LoadAxes(fractions=(0.2, 0.5), warmup_s=0.02, min_s=0.05, min_requests=70, max_s=1.0)
    points = load_curve.measure(made, load, batch=2)
    for point in points:
        for values, took in ((point.gpu_h2d_ms, COPY_MS), (point.gpu_compute_ms, COMPUTE_MS)):
            assert values is not None
            assert len(values) == len(point.done_ns)
            assert np.all(values[point.measured] == np.float32(took))
    closed = closed_summary(points[:1])
    assert 0 < closed["enqueue_ms"]["p50"] < closed["latency_ms"]["mean"]
    gpu = closed["gpu_ms"]
    assert gpu["h2d"]["mean"] == gpu["d2h"]["p50"] == COPY_MS
    assert gpu["compute"]["p50"] == COMPUTE_MS
    made.close()


def test_a_part_that_was_not_timed_is_null(runtime) -> None:
    made = session(runtime, transfers=False)
    load = LoadAxes(kind="closed", warmup_s=0.02, min_s=0.1, min_requests=64, max_s=1.0)
    gpu = closed_summary(load_curve.measure(made, load, batch=2))["gpu_ms"]
    assert gpu["h2d"] is None
    assert gpu["d2h"] is None
    assert gpu["compute"]["mean"] == COMPUTE_MS
    made.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda engine, runtime: setattr(engine, "captures_nothing", True), "the captured graph is empty"),
        (lambda engine, runtime: runtime.fails.update(cudaStreamEndCapture=INVALIDATED), "CaptureInvalidated"),
        (lambda engine, runtime: runtime.fails.update(cudaGraphInstantiate=NO_MEMORY), "out of memory"),
    ],
)
def test_a_failed_capture_is_unsupported_and_leaks_nothing(runtime, spoil, words: str) -> None:
    engine = FakeEngine(runtime)
    spoil(engine, runtime)
    with pytest.raises(UnsupportedError, match="cuda_graph=true") as caught:
        session(runtime, engine, cuda_graph=True)
    assert words in str(caught.value)
    runtime.fails.clear()
    del caught  # its traceback holds the context
    gc.collect()
    assert runtime.held == {}


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda engine, runtime: setattr(engine, "takes_shape", False), SessionError, "does not take x of shape"),
        (lambda engine, runtime: setattr(engine, "output_shape", (-1, 3)), UnsupportedError, "depends on the data"),
        (lambda engine, runtime: setattr(engine, "enqueues", False), SessionError, "did not enqueue"),
        (
            lambda engine, runtime: runtime.fails.update(cudaMalloc=NO_MEMORY),
            SessionError,
            "cudaMalloc: cudaErrorMemoryAllocation (out of memory)",
        ),
    ],
)
def test_a_session_that_cannot_be_made_says_why_and_leaks_nothing(runtime, spoil, kind, words: str) -> None:
    engine = FakeEngine(runtime)
    spoil(engine, runtime)
    with pytest.raises(kind) as caught:
        session(runtime, engine)
    assert words in str(caught.value)
    del caught  # its traceback holds the context
    gc.collect()
    assert runtime.held == {}


def test_an_engine_that_the_library_refuses_is_an_error_with_its_words(runtime) -> None:
    library = library_of(None)

    class Runtime:
        def __init__(self, _logger) -> None:
            pass

        def deserialize_cuda_engine(self, _plan) -> None:
            library.log.add("ERROR", "built for\nanother GPU")

    library.trt.Runtime = Runtime
    with pytest.raises(SessionError, match=r"cannot load the engine: built for another GPU"):
        TensorRTSession(library, b"plan", SessionAxes(), FEEDS, None)


def test_inputs_must_be_the_engines_own(runtime) -> None:
    for feeds, words in (({"z": FEEDS["x"]}, "inputs are x"), ({"x": FEEDS["x"].astype(np.int64)}, "float32")):
        with pytest.raises(SessionError, match=words):
            TensorRTSession(library_of(FakeEngine(runtime)), b"plan", SessionAxes(), feeds, None)


def test_a_gpu_error_while_waiting_is_raised_with_cudas_words(runtime) -> None:
    made = session(runtime, wait="block")
    made.streams[0].enqueue()
    runtime.fails["cudaEventSynchronize"] = NO_MEMORY
    with pytest.raises(SessionError, match=r"wait: cudaErrorMemoryAllocation \(out of memory\)"):
        made.streams[0].wait()
    runtime.fails.clear()
    made.close()


def test_plain_tensorrt_has_no_runtime_strategies_to_set(runtime) -> None:
    made = session(runtime, rtx=False)
    assert "cuda_graph_strategy" not in made.realised
    made.close()


def test_gpu_times_survive_the_disk_and_files_without_them_are_read(runtime, tmp_path) -> None:
    made = session(runtime)
    load = LoadAxes(kind="closed", warmup_s=0.02, min_s=0.1, min_requests=64, max_s=1.0)
    (timed,) = load_curve.measure(made, load, batch=2)
    made.close()
    untimed = dict.fromkeys(samples.PARTS)
    plain = dataclasses.replace(timed, **untimed)
    samples_file.save(tmp_path / "s.npz", [timed, plain])
    first, second = samples_file.load(tmp_path / "s.npz")
    assert np.array_equal(first.gpu_compute_ms, timed.gpu_compute_ms)
    assert second.gpu_compute_ms is None
    assert closed_summary([second])["gpu_ms"] is None
    assert closed_summary([second])["enqueue_ms"] is None


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("transfers", [True, False])
def test_a_range_profile_takes_fewer_samples_once_prepared(runtime, graph, transfers) -> None:
    engine = FakeEngine(runtime)
    engine.batches = (1, 2)
    made = session(runtime, engine, cuda_graph=graph, transfers=transfers)
    assert made.partial_batches
    (stream,) = made.streams
    with pytest.raises(KeyError):
        stream.enqueue(1)
    runtime.calls.clear()
    made.prepare([1])
    made.prepare([1])
    made.poison()
    stream.enqueue(1)
    stream.wait()
    found = made.outputs()["y"]
    assert np.array_equal(found[:1], FEEDS["x"][:1] * 2)
    assert np.isnan(found[1:]).all()
    stream.enqueue()
    stream.wait()
    assert np.array_equal(made.outputs()["y"], FEEDS["x"] * 2)
    assert runtime.calls.count("cudaGraphInstantiate") == (1 if graph else 0)
    with pytest.raises(SessionError, match="holds 2 samples; 3 were asked for"):
        made.prepare([3])
    made.close()
    assert runtime.held == {}


def test_a_static_profile_takes_whole_batches_only(runtime) -> None:
    made = session(runtime)
    assert not made.partial_batches
    with pytest.raises(SessionError, match="whole batches only; 1 were"):
        made.prepare([1])
    made.close()


def test_device_memory_is_told_by_what_asked_for_it(runtime) -> None:
    made = session(runtime, streams=3)
    made.close()
    told = made.engine_facts["memory"]
    steps = told.pop("timeline")
    assert [(size, phase) for _, size, phase in steps[:4]] == [
        (WEIGHTS_BYTES, "engine"),
        *((WEIGHTS_BYTES + count * CONTEXT_BYTES, "contexts") for count in (1, 2, 3)),
    ]
    assert [at for at, _, _ in steps] == sorted(at for at, _, _ in steps)
    assert told.pop("peak_by_owner") == {
        "weights": WEIGHTS_BYTES,
        "activations": 3 * CONTEXT_BYTES,
        "contexts": 0,
        "buffers": 3 * 2 * FEEDS["x"].nbytes,
        "run": 0,
    }
    assert told == {
        "engine_bytes": WEIGHTS_BYTES,
        "contexts_bytes": 3 * CONTEXT_BYTES,
        "run_bytes": 0,
        "peak_bytes": WEIGHTS_BYTES + 3 * CONTEXT_BYTES,
        "run_allocations": 0,
        "buffers_bytes": 3 * 2 * FEEDS["x"].nbytes,
    }
    assert runtime.held == {}


def test_a_long_timeline_of_a_build_is_thinned_and_keeps_its_peak(runtime) -> None:
    ledger = gpu_allocator.Ledger(cuda.get(), (gpu_allocator.BUILD,))
    kept = ledger.allocate(100)
    for number in range(1000):
        assert ledger.free(ledger.allocate(5000 if number == 700 else 10))
    ledger.free(kept)
    facts = ledger.build_facts()
    assert (facts["peak_bytes"], facts["allocations"]) == (5100, 1001)
    sizes = [size for _, size, _ in facts["timeline"]]
    assert (sizes[0], max(sizes), sizes[-1]) == (100, 5100, 0)
    assert 100 < len(sizes) <= 256
    assert runtime.held == {}


def test_no_device_memory_for_a_context_is_told(runtime) -> None:
    ledger = gpu_allocator.Ledger(cuda.get())
    runtime.fails["cudaMalloc"] = NO_MEMORY
    assert ledger.allocate(10) == 0
    runtime.fails.clear()
    assert ledger.free(0)
    assert ledger.facts()["peak_bytes"] == 0


def test_compiled_kernels_are_kept_for_the_next_load_and_a_damaged_file_is_not_used(runtime, tmp_path) -> None:
    entry = tmp_path / "engines" / "abc"
    kept = tmp_path / "runtime" / "abc-sm132.bin"
    engine = FakeEngine(runtime)

    def load() -> str:
        made = TensorRTSession(library_of(engine), b"plan", SessionAxes(), FEEDS, entry)
        made.close()
        return made.realised["runtime_cache"]

    assert load() == "cold"
    assert load() == "warm"
    assert engine.compiled == [b"compiled"]
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + b"D")
    assert load() == "cold"
    assert kept.read_bytes() == content
    assert engine.compiled == [b"compiled"]


def test_a_folder_that_takes_no_kernels_costs_nothing_else(runtime, tmp_path) -> None:
    (tmp_path / "runtime").write_text("a file where the folder should be")
    made = TensorRTSession(library_of(FakeEngine(runtime)), b"plan", SessionAxes(), FEEDS, tmp_path / "engines" / "abc")
    assert made.realised["runtime_cache"] == "cold"
    made.close()


def test_a_weight_budget_is_set_before_any_context_and_told(runtime) -> None:
    engine = FakeEngine(runtime)
    made = session(runtime, engine, weight_streaming_budget_mib=1)
    assert made.realised["weight_streaming_budget_bytes"] == engine.weight_streaming_budget_v2 == 1 << 20
    made.close()
    made = session(runtime, engine, weight_streaming_budget_mib=100)
    assert made.realised["weight_streaming_budget_bytes"] == 3 << 20
    made.close()
    del engine.weight_streaming_budget_v2
    with pytest.raises(UnsupportedError, match="weight_streaming_budget_mib"):
        session(runtime, engine, weight_streaming_budget_mib=1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"refit": True}, "asked for refit=True, but the engine says False"),
        ({"hardware_compatibility": "ampere_plus"}, "but the engine says none"),
        ({"weight_streaming": True}, "no weights that it can stream"),
        ({"refit": False, "hardware_compatibility": "none"}, None),
        ({}, None),
    ],
)
def test_a_knob_that_did_not_take_is_a_mismatch(asked, words: str | None) -> None:
    found = {"refit": False, "hardware_compatibility": "none", "streamable_weights_bytes": 0}
    said = builder_config.mismatch(EngineAxes(**asked), found)
    assert said == words if words is None else words in said

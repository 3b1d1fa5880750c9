"""TensorRT or TensorRT-RTX on a real GPU: numbers, graphs, streams, memory, times. ``make test-gpu`` runs it.

SWEEP_GPU_BACKEND picks the library; without it every library that is installed is tried.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import factories
import numpy as np
import passes
import pytest
import require

from sweep import models
from sweep.analysis import accuracy, accuracy_gates
from sweep.analysis.point_summary import closed_summary
from sweep.backends import registry
from sweep.backends.tensorrt import cuda, engine_inspector, library, plan_file
from sweep.backends.tensorrt.backend import PLAN
from sweep.errors import BuildError, SessionError, UnsupportedError
from sweep.loadgen import load_curve, load_point
from sweep.runner.worker import artifacts, model_files, reference
from sweep.runner.worker_process import Worker
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Profile, SessionAxes, Variant
from sweep.storage import samples, samples_file
from sweep.storage.cache import Cache

pytestmark = pytest.mark.gpu

BACKENDS = [os.environ["SWEEP_GPU_BACKEND"]] if "SWEEP_GPU_BACKEND" in os.environ else list(library.NAMES)
LEAST_SQNR_DB = {"fp32": 50, "tf32": 45, "fp16": 40, "bf16": 30, "int8": 15, "int8_fp16": 15, "int8_bf16": 15}
LEAST_SQNR_DB |= {"fp8": 5, "fp8_fp16": 5, "fp8_bf16": 5}
UNET_LOSES_DB = 12  # random weights amplify rounding: its tf32 and fp16 stand that much below the other networks'
CLOSED = LoadAxes(kind="closed", warmup_s=0.2, min_s=0.5, min_requests=100, max_s=10.0)


@pytest.fixture(params=BACKENDS)
def backend(request):
    require.gpu_for(request.param)
    return registry.get(request.param)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def variant(backend, model="tiny_cnn", dtype="fp16", batch=2, **session) -> Variant:
    kind, _, rest = dtype.partition("_")
    quantised = factories.QUANTIZED if kind in {"int8", "fp8"} else {}
    recipe = factories.recipe(dtype, **quantised, **({"wide": True} if rest else {}))
    return factories.variant(model, recipe, backend.name, batch=batch, **session)


def feeds_of(asked: Variant) -> dict[str, np.ndarray]:
    return models.draw(models.signature(asked.onnx.model), asked.engine.batch, asked.load.seed)


def entry_of(backend, asked: Variant, cache: Cache):
    typed = passes.typed_file(asked, cache)
    return artifacts.build_engine(asked, backend, typed, cache)


def loaded(backend, asked: Variant, cache: Cache):
    entry = entry_of(backend, asked, cache)
    return backend.load(entry.path, entry.info, asked, feeds_of(asked))


def once(session, number: int = 0) -> dict[str, np.ndarray]:
    session.streams[number].enqueue()
    session.streams[number].wait()
    return session.outputs_of(number)


@pytest.mark.parametrize("model", ["tiny_cnn", "mlp", "unet"])
@pytest.mark.parametrize("dtype", sorted(LEAST_SQNR_DB))
@pytest.mark.parametrize("graph", [False, True])
def test_outputs_agree_with_onnxruntime_fp32(backend, cache, model: str, dtype: str, graph) -> None:
    asked = variant(backend, model, dtype, cuda_graph=graph)
    with require.int8_convolutions(backend.name, dtype):
        session = loaded(backend, asked, cache)
    session.poison()
    once(session)
    found = passes.against_fp32(model_files.model_file(asked, cache), feeds_of(asked), session.outputs())
    print(f"{backend.name} {model} {dtype} graph={graph}: {found}")  # noqa: T201 - the figures are worth a look
    assert backend.mismatch(asked, session.realised) is None
    assert found["nonfinite"] == 0
    assert found["sqnr_db"] is None or found["sqnr_db"] > LEAST_SQNR_DB[dtype] - UNET_LOSES_DB * (model == "unet")
    session.close()


@pytest.mark.parametrize("model", ["tiny_cnn", "mlp", "unet"])
def test_fp32_in_a_worker_is_true_fp32(backend, model: str, tmp_path) -> None:
    """A worker starts with what its backend needs; this process may have loaded the libraries without it."""
    asked = dataclasses.replace(variant(backend, model, "fp32"), load=CLOSED)
    worker = Worker(tmp_path / "worker.log", backend.environment(asked))
    job = passes.request(asked, tmp_path)
    try:
        outcome = worker.run(job, lambda _event: None, 120.0)
    finally:
        worker.close()
    assert outcome.status == "ok", outcome.error
    assert outcome.result.mismatch is None
    assert outcome.result.realised["tf32_override"] == "0"
    print(f"{backend.name} {model} fp32 in a worker: {outcome.result.accuracy}")  # noqa: T201 - the figures are worth a look
    assert outcome.result.accuracy["sqnr_db"] > 75


def test_the_inspector_answers_here_and_is_kept(backend, cache) -> None:
    entry = entry_of(backend, variant(backend, dtype="fp16"), cache)
    kept = json.loads((entry.path / engine_inspector.FILE).read_text())
    print(kept["source"], entry.info["precision"], [layer.get("LayerType") for layer in kept["Layers"]])  # noqa: T201
    assert entry.info["precision"].get("fp16")


def test_graph_and_eager_agree_bit_for_bit(backend, cache) -> None:
    found = {}
    for graph in (False, True):
        session = loaded(backend, variant(backend, "unet", cuda_graph=graph), cache)
        assert session.realised["cuda_graph"] == graph
        session.poison()
        found[graph] = once(session)
        assert all(np.array_equal(once(session)[name], value) for name, value in found[graph].items())
        session.close()
    for name, value in found[True].items():
        assert np.isfinite(value).all()
        assert np.array_equal(value, found[False][name])


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("transfers", [True, False])
def test_streams_overwrite_their_own_outputs_and_no_others(backend, cache, graph, transfers) -> None:
    session = loaded(backend, variant(backend, streams=4, cuda_graph=graph, transfers=transfers), cache)
    expected = once(session)
    session.poison()
    for number in (1, 3):
        session.streams[number].enqueue()
    for number in (3, 1):
        session.streams[number].wait()
    for number in range(4):
        for name, value in session.outputs_of(number).items():
            if number in {1, 3}:
                assert np.array_equal(value, expected[name])
            else:
                assert np.isnan(value).all()
    session.close()


@pytest.mark.parametrize("transfers", [True, False])
def test_a_range_profile_runs_every_batch_in_it_captured_anew(backend, cache, transfers) -> None:
    """Each size by its own graph, in any order, bit for bit what an eager run gives, and right."""
    found = {}
    sizes = (3, 1, 4, 2, 4, 3)
    for graph in (False, True):
        asked = variant(backend, batch=4, cuda_graph=graph, transfers=transfers, streams=2)
        asked = dataclasses.replace(asked, engine=EngineAxes(batch=4, profile=Profile(least=1, best=2, most=4)))
        session = loaded(backend, asked, cache)
        assert session.partial_batches
        session.prepare([1, 2, 3, 4])
        session.poison()
        for turn, samples_in in enumerate(sizes):
            stream = session.streams[turn % 2]
            stream.enqueue(samples_in)
            stream.wait()
            outputs = {name: value[:samples_in] for name, value in session.outputs_of(turn % 2).items()}
            found[graph, turn] = outputs
            fed = {name: value[:samples_in] for name, value in feeds_of(asked).items()}
            judged = passes.against_fp32(model_files.model_file(asked, cache), fed, outputs)
            assert judged["nonfinite"] == 0
            assert judged["sqnr_db"] > LEAST_SQNR_DB["fp16"]
        session.close()
        assert session.engine_facts["memory"]["run_allocations"] == 0
    for turn in range(len(sizes)):
        for name, value in found[True, turn].items():
            assert np.array_equal(value, found[False, turn][name])


def test_a_size_below_the_range_runs_padded_and_one_above_the_batch_is_refused(backend, cache) -> None:
    asked = dataclasses.replace(variant(backend), engine=EngineAxes(batch=4, profile=Profile(least=2, best=4, most=8)))
    session = loaded(backend, asked, cache)
    session.prepare([1])
    session.poison()
    (stream,) = session.streams
    stream.enqueue(1)
    stream.wait()
    for value in session.outputs().values():
        assert np.isfinite(value[:2]).all()
        assert np.isnan(value[2:]).all()
    with pytest.raises(SessionError, match="holds 4 samples; 5 were asked for"):
        session.prepare([5])
    session.close()


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("wait", ["spin", "yield"])
def test_arrivals_are_gathered_and_run_at_their_true_size(backend, cache, graph, wait) -> None:
    asked = variant(backend, "unet", batch=8, streams=2, cuda_graph=graph, wait=wait)
    asked = dataclasses.replace(asked, engine=EngineAxes(batch=8, profile=Profile(least=1, best=8, most=8)))
    session = loaded(backend, asked, cache)
    load = LoadAxes(
        kind="poisson", rates_ips=(4000.0,), warmup_s=0.1, min_s=0.5, min_requests=662, max_s=5.0, batch_wait_ms=1.0
    )
    (point,) = load_curve.measure(session, load, batch=8)
    assert point.measured.all() or not point.overloaded
    sizes = set(point.ran_with.tolist())
    print(graph, wait, sorted(sizes), np.median(point.latency_ms))  # noqa: T201
    assert len(sizes & set(range(1, 8))) > 1
    assert max(sizes) <= 8
    assert np.median(point.latency_ms) < 5.0
    session.close()


def test_device_memory_is_recorded_by_phase_and_none_is_asked_for_while_running(backend, cache) -> None:
    for graph in (False, True):
        session = loaded(backend, variant(backend, "resnet50", streams=2, cuda_graph=graph), cache)
        load_curve.measure(session, CLOSED, batch=2)
        session.close()
        told = session.engine_facts["memory"]
        print(graph, told, session.engine_facts)  # noqa: T201
        assert told["peak_bytes"] >= told["engine_bytes"] + told["contexts_bytes"] > 20 << 20
        assert told["run_allocations"] == 0
        assert told["buffers_bytes"] == 2 * 2 * (3 * 224 * 224 + 1000) * 4


def test_what_was_compiled_is_kept_for_the_next_load(backend, cache) -> None:
    if backend.name != "tensorrt_rtx":
        pytest.skip("TensorRT compiles when it builds: there is nothing to keep")
    asked = variant(backend, "vit_b16")
    took = {}
    for _ in range(2):
        start = time.perf_counter()
        session = loaded(backend, asked, cache)
        took[session.realised["runtime_cache"]] = time.perf_counter() - start
        once(session)
        session.close()
    print("load with and without kept kernels:", took)  # noqa: T201
    assert took["warm"] < took["cold"]


def test_a_full_device_ends_as_out_of_memory(backend, tmp_path) -> None:
    """Real exhaustion: this process holds nearly all of the device while a worker loads."""
    made = cuda.get()
    made.call("cudaFree", 0)
    asked = dataclasses.replace(variant(backend, "resnet50", batch=64), load=CLOSED)
    worker = Worker(tmp_path / "worker.log", backend.environment(asked))
    job = passes.request(asked, tmp_path)
    hog = made.malloc(made.free_memory() - (640 << 20))
    try:
        full = worker.run(job, lambda _event: None, 120.0)
    finally:
        made.call("cudaFree", hog)
    print(full.status, full.error)  # noqa: T201
    assert full.status == "oom", full.error
    worker.kill()
    worker = Worker(tmp_path / "worker.log", backend.environment(asked))
    try:
        assert worker.run(job, lambda _event: None, 120.0).status == "ok"
    finally:
        worker.close()


@pytest.mark.parametrize("knob", ["refit", "weight_streaming"])
def test_a_flag_is_seen_in_the_loaded_engine_or_refused_by_name(backend, cache, knob: str) -> None:
    asked = variant(backend, "mlp")
    budget = {"weight_streaming_budget_mib": 0} if knob == "weight_streaming" else {}
    asked = dataclasses.replace(
        asked, engine=EngineAxes(batch=2, **{knob: True}), session=SessionAxes(cuda_graph=False, **budget)
    )
    try:
        session = loaded(backend, asked, cache)
    except (BuildError, UnsupportedError) as error:
        print(knob, error)  # noqa: T201
        assert backend.name in str(error)  # noqa: PT017 - either outcome is right, silence is not
        return
    print(knob, session.realised["knobs"], session.realised.get("weight_streaming_budget_bytes"))  # noqa: T201
    if backend.mismatch(asked, session.realised) is None:
        once(session)
        judged = passes.against_fp32(model_files.model_file(asked, cache), feeds_of(asked), session.outputs())
        assert judged["sqnr_db"] > LEAST_SQNR_DB["fp16"]
    session.close()


def test_memory_is_given_back(backend, cache) -> None:
    asked = variant(backend, "unet", streams=2, cuda_graph=True)
    loaded(backend, asked, cache).close()  # what CUDA and the library keep for good is taken here
    before = cuda.get().free_memory()
    for _ in range(3):
        session = loaded(backend, asked, cache)
        assert session.engine_facts["device_memory_bytes"] > 0
        session.close()
        session.close()
    assert before - cuda.get().free_memory() < 8 << 20


@pytest.mark.parametrize("wait", ["spin", "block", "yield"])
@pytest.mark.parametrize("graph", [False, True])
def test_several_streams_under_load_closed_and_open(backend, cache, wait: str, graph) -> None:
    session = loaded(backend, variant(backend, "unet", streams=4, cuda_graph=graph, wait=wait), cache)
    load = LoadAxes(fractions=(0.3, 0.7), warmup_s=0.1, min_s=0.3, min_requests=200, max_s=5.0)
    measured = load_curve.measure(session, load, batch=2)
    points = [point for point in measured if point.kind in {"closed", "poisson"}]
    assert [point.kind for point in points[:2]] == ["closed", "poisson"]
    for point in points:
        assert set(point.stream) == set(range(4))
        for name in samples.PARTS:
            values = getattr(point, name)
            assert len(values) == len(point.done_ns)
            assert np.all(values[point.measured] > 0)
            assert not np.isnan(values[point.measured]).any()
        in_request_ms = (point.gpu_h2d_ms + point.gpu_compute_ms + point.gpu_d2h_ms)[point.measured]
        took_ms = (point.done_ns - point.issued_ns)[point.measured] / 1e6
        assert np.all(in_request_ms < took_ms + 0.05)  # events lie inside what the host saw
    summary = closed_summary(points[:1])
    print(wait, graph, summary["ips"], summary["gpu_ms"])  # noqa: T201
    assert summary["gpu_ms"]["compute"]["p50"] > 0
    session.close()


def test_depth_two_keeps_the_gpu_busy(backend, cache) -> None:
    session = loaded(backend, variant(backend, "mlp", cuda_graph=True, transfers=False), cache)
    rates = {}
    for depth in (1, 2):
        points = load_curve.measure(session, dataclasses.replace(CLOSED, depth=depth), batch=2)
        rates[depth] = closed_summary(points)["ips"]
    print(rates)  # noqa: T201
    assert rates[2] > rates[1] * 1.05
    session.close()


def test_event_time_agrees_with_host_time_on_long_work(backend, cache) -> None:
    session = loaded(backend, variant(backend, "resnet50", batch=32, transfers=False), cache)
    (stream,) = session.streams
    host_ms = []
    stream.take_parts_ms()
    for _ in range(60):
        start = time.perf_counter_ns()
        stream.enqueue()
        stream.wait()
        host_ms.append((time.perf_counter_ns() - start) / 1e6)
    gpu_ms = stream.take_parts_ms()[10:, 1]
    gpu, host = statistics.median(gpu_ms.tolist()), statistics.median(host_ms[10:])
    print(f"event {gpu:.4f} ms, host {host:.4f} ms")  # noqa: T201
    assert gpu < host < gpu * 1.05 + 0.1
    session.close()


def test_transfers_are_seen_and_left_out(backend, cache) -> None:
    for transfers in (True, False):
        session = loaded(backend, variant(backend, "unet", batch=32, transfers=transfers), cache)
        once(session)
        (row,) = session.streams[0].take_parts_ms()
        assert (row[0] > 0 and row[2] > 0) if transfers else np.isnan(row[[0, 2]]).all()
        assert row[1] > 0
        session.close()


def test_what_is_realised_and_found_is_recorded(backend, cache) -> None:
    session = loaded(backend, variant(backend, streams=2, cuda_graph=True), cache)
    print(json.dumps({**session.realised, **session.engine_facts}, indent=1))  # noqa: T201
    assert session.realised["sm_count"] > 0
    assert session.realised["contexts"] == 2
    assert session.realised["device"]["gpu"] == backend.facts()["gpu"]
    assert session.realised["device"]["compute_capability"] == backend.facts()["compute_capability"]
    assert session.engine_facts["first_inference_s"] > 0
    if backend.name == "tensorrt_rtx":
        assert session.realised["cuda_graph_strategy"] == "DISABLED"
    session.close()


def test_a_whole_pass_gives_a_record_with_gpu_times(backend, tmp_path) -> None:
    asked = dataclasses.replace(variant(backend, streams=2, cuda_graph=True), load=CLOSED)
    found = passes.measured(asked, tmp_path)
    assert found["mismatch"] is None
    assert found["engine"]["device_memory_bytes"] > 0
    assert json.loads(json.dumps(found)) == found
    (point,) = samples_file.load(tmp_path / "s.npz")
    assert point.gpu_compute_ms is not None
    assert registry.resolve("auto")[0] in library.NAMES


def test_too_little_device_memory_is_a_clean_error_and_leaks_nothing(backend, cache) -> None:
    made = cuda.get()
    made.call("cudaFree", 0)
    before = made.free_memory()
    with pytest.raises(Exception, match="cudaMalloc: cudaErrorMemoryAllocation") as caught:
        made.malloc(1 << 60)
    assert "out of memory" in str(caught.value)
    assert before - made.free_memory() < 8 << 20


def test_a_plan_that_is_damaged_says_so(backend, cache, tmp_path) -> None:
    asked = variant(backend)
    entry = entry_of(backend, asked, cache)
    (tmp_path / PLAN).write_bytes((entry.path / PLAN).read_bytes()[:1000])
    with pytest.raises(Exception, match="cannot load the engine"):
        backend.load(tmp_path, entry.info, asked, feeds_of(asked))


def test_a_knob_that_this_version_lacks_is_unsupported_not_ignored(backend, cache) -> None:
    for knob in ({"builder_optimization_level": 2}, {"max_aux_streams": 1}, {"tiling": "fast"}, {"workspace_mib": 512}):
        asked = dataclasses.replace(variant(backend), engine=EngineAxes(batch=2, **knob))
        try:
            session = loaded(backend, asked, cache)
        except UnsupportedError as error:
            assert next(iter(knob)) in str(error)  # noqa: PT017 - either outcome is right, silence is not
        else:
            once(session)
            session.close()


def test_outputs_stand_after_a_burst_on_all_streams(backend, cache) -> None:
    """Four contexts at once, as the second look has them; then one stream's buffer is spoilt, and it is named."""
    asked = variant(backend, "unet", "fp16", batch=4, streams=4)
    session = loaded(backend, asked, cache)
    first = once(session)
    expected = reference.run(model_files.model_file(asked, cache), feeds_of(asked))
    done, later = load_point.burst(session, 2, 0.3), {number: session.outputs_of(number) for number in range(4)}
    found = accuracy.again(expected, first, [later])
    print(f"{backend.name}: {done} inferences, {found}")  # noqa: T201 - the figures are worth a look
    assert done > 4
    assert found["lost_db"] < 1
    later[2] = {name: np.zeros_like(value) for name, value in later[2].items()}
    judged = {**accuracy.against(expected, first), "again": accuracy.again(expected, first, [later])}
    assert "under load, on stream 2" in accuracy_gates.fault("fp16", judged).message
    session.close()


def of_plan(built: Variant, path, *, alone: bool = False) -> Variant:
    """The plan at a path, built as `built` was, with the network beside it unless it is alone."""
    model = ModelRef(name=path.stem) if alone else built.onnx.model
    onnx_axes = OnnxAxes(model=model, precision=Precision(name="as-built", dtype="native"))
    engine = EngineAxes(batch=built.engine.batch, plan=plan_file.read(path))
    return dataclasses.replace(built, onnx=onnx_axes, engine=engine, load=CLOSED)


@pytest.mark.parametrize("profile", [None, Profile(least=1, best=4, most=8)])
def test_a_plan_that_was_built_elsewhere_is_timed_with_and_without_its_network(
    backend, cache, tmp_path, profile
) -> None:
    built = dataclasses.replace(variant(backend, "mlp", "fp16"), engine=EngineAxes(batch=2, profile=profile))
    path = tmp_path / "their.plan"
    path.write_bytes((entry_of(backend, built, cache).path / PLAN).read_bytes())
    beside = passes.measured(of_plan(built, path), tmp_path)
    assert beside["mismatch"] is None
    assert beside["accuracy"]["sqnr_db"] > LEAST_SQNR_DB["fp16"]
    assert beside["model"]["parameters"] > 0
    alone = passes.measured(of_plan(built, path, alone=True), tmp_path)
    print(f"{backend.name} plan: {beside['engine']['inputs']} {alone['realised']}")  # noqa: T201 - worth a look
    assert alone["mismatch"] is None
    assert alone["accuracy"]["unknown"] == accuracy.NOT_COMPARED
    assert alone["accuracy"]["sqnr_db"] is None
    assert alone["engine"]["plan_digest"] == beside["engine"]["plan_digest"] == of_plan(built, path).engine.plan.digest
    assert alone["engine"]["cached"]  # by the first: one copy for both
    (told,) = alone["engine"]["inputs"]
    assert (told["least"][0], told["most"][0]) == ((2, 2) if profile is None else (1, 8))
    other = dataclasses.replace(of_plan(built, path, alone=True), engine=EngineAxes(batch=9, plan=plan_file.read(path)))
    with pytest.raises(UnsupportedError, match=r"batch=9: their\.plan .*takes batch=(2|1\.\.8)"):
        passes.measured(other, tmp_path)


def test_a_plan_that_the_library_refuses_is_told_in_one_line(backend, cache, tmp_path) -> None:
    """More bytes than the header tells of: the library looks at that before it runs anything of the plan."""
    built = variant(backend, "mlp", "fp16")
    path = tmp_path / "their.plan"
    path.write_bytes((entry_of(backend, built, cache).path / PLAN).read_bytes() + b"more")
    with pytest.raises(SessionError) as caught:
        passes.measured(of_plan(built, path, alone=True), tmp_path)
    print(caught.value)  # noqa: T201 - the library's words are worth a look
    assert str(caught.value).startswith("their.plan, built by ")
    assert "cannot load the engine: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_that_was_built_without_a_gpu_is_the_one_that_is_built_here(backend, cache, tmp_path) -> None:
    """What build_only writes on a machine without a GPU loads here; whether the bytes are equal is printed."""
    if backend.name != "tensorrt_rtx":
        pytest.skip("TensorRT's builder times kernels on the GPU")
    built = variant(backend, "mlp", "fp16")
    typed = passes.typed_file(built, cache)
    script = (
        "import sys; from pathlib import Path; from sweep.backends.tensorrt import build, library; "
        "from sweep.spec import EngineAxes; shape = (2, 784); "
        "plan, _ = build.build_serialized(library.load('tensorrt_rtx'), Path(sys.argv[1]), EngineAxes(batch=2), "
        "{sys.argv[3]: (shape, shape, shape)}, tf32=False); Path(sys.argv[2]).write_bytes(plan)"
    )
    path = tmp_path / "their.plan"
    (name,) = feeds_of(built)
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", script, str(typed), str(path), name], check=True, env=hidden)
    here = (entry_of(backend, built, cache).path / PLAN).read_bytes()
    print(f"built without a GPU: {'the same bytes' if path.read_bytes() == here else 'other bytes'}")  # noqa: T201
    found = passes.measured(of_plan(built, path), tmp_path)
    assert found["mismatch"] is None
    assert found["accuracy"]["sqnr_db"] > LEAST_SQNR_DB["fp16"]

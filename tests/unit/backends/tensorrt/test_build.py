"""Real builds with TensorRT-RTX, which needs no GPU for them: what is built, what it computes in, how it refuses."""

import dataclasses
import json
import subprocess

import factories
import numpy as np
import onnx
import passes
import pytest
import require
from onnx import TensorProto, helper

from sweep.backends import registry
from sweep.backends.base import find_unhonoured_axis, unsupported_reason
from sweep.backends.tensorrt import build, builder_config, engine_inspector, library, plan_file
from sweep.backends.tensorrt.backend import PLAN, TensorRTRTX
from sweep.config import variants
from sweep.errors import BuildError, SessionError, UnsupportedError
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, Plugin, Profile, Variant
from sweep.storage.cache import Cache
from sweep.system import environment

COMPUTE_LAYERS = {"tiny_cnn": 5, "mlp": 3, "unet": 15}
SHAPES = {"x": (2, 3, 32, 32)}


def static(shapes):
    """The profile of an engine that takes these shapes and no other."""
    return {name: (shape, shape, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def rtx():
    require.library_for("tensorrt_rtx")
    return library.load("tensorrt_rtx")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def variant(model: str = "tiny_cnn", dtype: str = "fp32", **engine) -> Variant:
    recipe = factories.recipe(dtype, **(factories.QUANTIZED if dtype == "int8" else {}))
    return factories.variant(model, recipe, "tensorrt_rtx", batch=2, **engine)


def typed(asked: Variant, cache: Cache):
    return passes.typed_file(asked, cache)


def refuse(rtx, cache, path=None, shapes=None, **engine) -> str:
    asked = variant(**engine)
    with pytest.raises((BuildError, UnsupportedError)) as caught:
        build.build_serialized(rtx, path or typed(asked, cache), asked.engine, static(shapes or SHAPES), tf32=False)
    assert "\n" not in str(caught.value)
    assert caught.type is UnsupportedError or rtx.label in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model", sorted(COMPUTE_LAYERS))
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "fp16", "int8"])
def test_every_layer_that_computes_does_so_in_the_asked_type(rtx, cache, model: str, dtype: str) -> None:
    asked = variant(model, dtype)
    if dtype == "int8" and rtx.trt.__version__ < "1.7":
        pytest.skip("TensorRT-RTX before 1.7 builds no int8 convolution")
    entry = artifacts.build_engine(asked, TensorRTRTX(), typed(asked, cache), cache)
    shown = "fp32" if dtype == "tf32" else dtype
    assert entry.info["precision"] == {shown: COMPUTE_LAYERS[model]}
    assert entry.info["tf32"] == (dtype == "tf32")
    assert (entry.path / PLAN).stat().st_size > 10_000
    kept = json.loads((entry.path / engine_inspector.FILE).read_text())
    assert engine_inspector.count_layer_types(kept) == entry.info["precision"]
    assert kept["source"] == entry.info["evidence"]


def test_the_knobs_that_it_has_are_set(rtx, cache) -> None:
    asked = variant(
        builder_optimization_level=1, max_aux_streams=2, tiling="fast", sparsity="enable", workspace_mib=256
    )
    plan, facts = build.build_serialized(rtx, typed(asked, cache), asked.engine, static(SHAPES), tf32=False)
    assert len(plan) > 10_000
    assert facts["tf32"] is False


def test_one_engine_takes_a_range_of_batches(rtx, cache) -> None:
    asked = variant(profile=Profile(least=1, best=2, most=8))
    backend, path = TensorRTRTX(), typed(asked, cache)
    entry = artifacts.build_engine(asked, backend, path, cache)
    larger = dataclasses.replace(asked, engine=dataclasses.replace(asked.engine, batch=8))
    assert artifacts.build_engine(larger, backend, path, cache).cached
    fixed = artifacts.build_engine(variant(), backend, path, cache)
    assert fixed.path != entry.path
    assert entry.info["precision"] == fixed.info["precision"] == {"fp32": COMPUTE_LAYERS["tiny_cnn"]}


@pytest.mark.parametrize("verbosity", ["none", "layer_names_only"])
def test_an_engine_that_tells_nothing_is_judged_by_its_network(rtx, cache, verbosity: str) -> None:
    asked = variant("tiny_cnn", "fp16", profiling_verbosity=verbosity)
    entry = artifacts.build_engine(asked, TensorRTRTX(), typed(asked, cache), cache)
    assert entry.info["precision"] == {"fp16": COMPUTE_LAYERS["tiny_cnn"]}
    assert entry.info["evidence"] == "network"


def test_the_flags_that_it_has_are_set(rtx, cache) -> None:
    asked = variant(weight_streaming=True, refit=False, hardware_compatibility="none", timing_cache=False)
    plan, _ = build.build_serialized(rtx, typed(asked, cache), asked.engine, static(SHAPES), tf32=False)
    assert len(plan) > 10_000


def test_a_plan_is_built_for_the_gpus_that_are_asked_for(rtx, cache, tmp_path) -> None:
    """A target beside the default changes the plan; the header still tells who built it."""
    plans = {}
    for target in (None, "8.9", "12.0"):
        asked = variant(compute_capability=target)
        plans[target], _ = build.build_serialized(rtx, typed(asked, cache), asked.engine, static(SHAPES), tf32=False)
        (tmp_path / "x.plan").write_bytes(plans[target])
        read = plan_file.read(tmp_path / "x.plan")
        assert (read.library, read.version) == ("tensorrt_rtx", rtx.trt.__version__)
    assert len(set(plans.values())) == 3
    said = refuse(rtx, cache, compute_capability="9.0")
    assert "does not have compute_capability=9.0: it builds for 7.5, 8.0, 8.6, 8.9, 12.0" in said
    assert "compute_capability" in (
        find_unhonoured_axis(registry.get("tensorrt"), variant(compute_capability="8.9")) or ""
    )


def test_the_library_s_own_words_say_why_a_plan_does_not_load(rtx, cache, tmp_path) -> None:
    """It looks at the size before it looks for a GPU."""
    asked = variant()
    plan, _ = build.build_serialized(rtx, typed(asked, cache), asked.engine, static(SHAPES), tf32=False)
    path = tmp_path / "x.plan"
    path.write_bytes(plan + b"more")
    imported = dataclasses.replace(asked, engine=EngineAxes(batch=2, plan=plan_file.read(path)))
    with pytest.raises(SessionError) as caught:
        TensorRTRTX().import_plan(path.read_bytes(), imported, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"x.plan, built by {rtx.label}, does not load on ")
    assert f"{rtx.label} cannot load the engine: IRuntime::deserializeCudaEngine: " in said
    assert "header.size == blobSize" in said
    assert "\n" not in said


def test_a_build_needs_no_gpu_where_a_measurement_does(monkeypatch) -> None:
    """Only RTX builds for another machine; a build under an MPS share needs the GPU here."""
    monkeypatch.setattr(library, "installed", lambda _name: True)
    monkeypatch.setattr(environment, "machine", lambda: dict.fromkeys(("gpu", "compute_capability")))
    asked = variant()
    needs_gpu = "runs on an NVIDIA GPU and none is seen here"
    for backend, only_build, reason in (
        ("tensorrt_rtx", True, None),
        ("tensorrt_rtx", False, needs_gpu),
        ("tensorrt", True, needs_gpu),
    ):
        said = unsupported_reason(registry.get(backend), asked, only_build=only_build)
        assert said == (reason and f"{backend} {reason}")
    under_share = variant(mps_build=50)
    assert needs_gpu in str(unsupported_reason(registry.get("tensorrt_rtx"), under_share, only_build=True))


def test_a_compatibility_that_it_drops_in_silence_is_unsupported_by_name(rtx, cache) -> None:
    said = refuse(rtx, cache, hardware_compatibility="ampere_plus")
    assert "does not take hardware_compatibility=AMPERE_PLUS: it made it NONE" in said


def test_a_version_compatible_engine_needs_a_runtime_that_rtx_does_not_ship(rtx, cache) -> None:
    assert "libnvinfer_lean" in refuse(rtx, cache, version_compatible=True)
    assert "version_compatible" in (find_unhonoured_axis(TensorRTRTX(), variant(version_compatible=True)) or "")
    assert "timing_cache" in (find_unhonoured_axis(TensorRTRTX(), variant(timing_cache=False)) or "")


def test_a_library_without_plugins_is_a_build_error_with_its_words(rtx, cache, tmp_path) -> None:
    made = tmp_path / "libempty.so"
    source = tmp_path / "empty.c"
    source.write_text("int nothing(void) { return 0; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    (tmp_path / "text.so").write_text("no library")
    for path, words in ((made, "getCreators"), (tmp_path / "text.so", "text.so")):
        said = refuse(rtx, cache, plugins=(Plugin(path=str(path), digest="0"),))
        assert f"cannot load the plugins of {path}" in said
        assert words in said.partition(f"{path}: ")[2]


def test_a_knob_that_it_clamps_is_unsupported_by_name(rtx, cache) -> None:
    said = refuse(rtx, cache, builder_optimization_level=9)
    assert "builder_optimization_level=9" in said


@pytest.mark.parametrize(
    ("axis", "value", "enum"),
    [
        ("tiling", "fast", "TilingOptimizationLevel"),
        ("sparsity", "enable", "BuilderFlag"),
        ("workspace_mib", 64, "MemoryPoolType"),
        ("max_aux_streams", 2, None),
        ("builder_optimization_level", 2, None),
        ("refit", True, "BuilderFlag"),
        ("weight_streaming", True, "BuilderFlag"),
        ("version_compatible", False, "BuilderFlag"),
        ("timing_cache", False, "BuilderFlag"),
        ("hardware_compatibility", "ampere_plus", "HardwareCompatibilityLevel"),
        ("compute_capability", "8.9", None),
    ],
)
def test_a_knob_that_it_lacks_is_unsupported_by_name(rtx, axis: str, value: object, enum: str | None) -> None:
    class Config:
        def clear_flag(self, flag) -> None:
            pass

    class Older:
        __version__ = "1.0"
        ProfilingVerbosity = rtx.trt.ProfilingVerbosity

    older = library.Library("tensorrt_rtx", Older, rtx.log, rtx.logger)
    with pytest.raises(UnsupportedError, match=rf"tensorrt_rtx 1\.0 does not have {axis}") as caught:
        builder_config.apply(older, Config(), EngineAxes(**{axis: value}), tf32=False)
    assert enum is None or enum in str(caught.value)


def test_tf32_without_its_flag_is_unsupported(rtx) -> None:
    class Older:
        __version__ = "1.0"

    with pytest.raises(UnsupportedError, match="TF32"):
        builder_config._set_tf32(library.Library("tensorrt_rtx", Older, rtx.log, rtx.logger), object(), on=True)


def test_no_workspace_for_any_tactic_is_a_build_error_with_its_words(rtx, cache) -> None:
    assert "workspace" in refuse(rtx, cache, workspace_mib=1)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"x": (2, 4, 32, 32)}, "Dimension mismatch for tensor x"),
        ({"x": (2, 3, 32)}, "has 4 dimensions but profile 0 has 3"),
        ({"other": (2, 3, 32, 32)}, "inputs are x"),
    ],
)
def test_a_bad_profile_is_a_build_error_with_its_words(rtx, cache, shapes, words: str) -> None:
    asked = variant()
    with pytest.raises(BuildError, match=words):
        build.build_serialized(rtx, typed(asked, cache), asked.engine, static(shapes), tf32=False)


def test_an_operator_that_it_lacks_is_named_with_what_to_do(rtx, cache, tmp_path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOp", ["x"], ["y"], "odd", domain="acme")], "g", *[[e] for e in ends]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "m.onnx")
    said = refuse(rtx, cache, tmp_path / "m.onnx", {"x": (2, 4)})
    assert "has no operator NoSuchOp: run this network on backend=onnxruntime" in said
    assert "backend.plugins=[FILE]" in said


def test_a_file_that_is_no_graph_or_is_not_there(rtx, cache, tmp_path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert "Failed to parse the ONNX model" in refuse(rtx, cache, tmp_path / "bad.onnx")
    assert "cannot be found" in refuse(rtx, cache, tmp_path / "absent.onnx")


def test_external_weights_are_found_beside_the_graph(rtx, tmp_path) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((4, 300), np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in (("x", 4), ("y", 300))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g", *[[e] for e in ends], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    plan, _ = build.build_serialized(rtx, tmp_path / "m.onnx", EngineAxes(), static({"x": (1, 4)}), tf32=False)
    assert len(plan) > 4 * 300 * 4


@pytest.mark.parametrize("way", ["range", "per_shape"])
def test_one_engine_over_several_shapes_has_the_profiles_that_were_asked_for(rtx, cache, way: str) -> None:
    shapes = [
        {"shape": "h:16+w:16", "share": 2},
        {"shape": "h:24+w:16", "share": 1},
        {"shape": "h:32+w:48", "share": 1},
    ]
    asked = variants.from_config(
        factories.config(
            model__name="tiny_cnn", backend__name="tensorrt_rtx", batch=2, load__shapes=shapes, profiles=way
        )
    )
    entry = artifacts.build_engine(asked, TensorRTRTX(), typed(asked, cache), cache)
    sides = [(16, 16), (24, 16), (32, 48)]
    each = [[[2, 3, *side]] * 3 for side in sides]
    covering = [[[2, 3, 16, 16], [2, 3, 16, 16], [2, 3, 32, 48]]]
    assert entry.info["profiles"] == [{"x": limits} for limits in (covering if way == "range" else each)]
    if way == "per_shape":  # the builder lists the layers of every profile
        assert entry.info["precision"] == {"fp32": 3 * COMPUTE_LAYERS["tiny_cnn"]}
    backend = TensorRTRTX()
    switched = dataclasses.replace(asked.session, profile_switch=True, cuda_graph=True)
    assert "captures no CUDA graph of a context that switches" in str(
        backend.unsupported(dataclasses.replace(asked, session=switched))
    )
    own = dataclasses.replace(asked.session, context_memory="user_managed")
    reason = backend.unsupported(dataclasses.replace(asked, session=own)) or ""
    assert ("gives a context the memory of one shape" in reason) == (way == "range")


def test_a_timing_cache_is_written_for_the_next_build(rtx, tmp_path) -> None:
    kept = []

    class Learnt:
        def serialize(self) -> bytes:
            return b"learnt"

    class Config:
        def create_timing_cache(self, known: bytes) -> bytes:
            kept.append(known)
            return known

        def set_timing_cache(self, _cache, ignore_mismatch) -> bool:
            return True

        def get_timing_cache(self) -> Learnt:
            return Learnt()

    for _ in range(2):
        with build._timing_cache(Config(), tmp_path / "timing.bin"):
            pass
    assert kept == [b"", b"learnt"]


def test_what_the_library_said_is_short_and_on_one_line() -> None:
    log = library.Log()
    assert log.tail() == "it gave no reason"
    for severity, text in (("VERBOSE", "chatter"), ("WARNING", "mind\nthis"), ("INFO", "more")):
        log.add(severity, text)
    assert log.tail() == "mind this"
    for number in range(20):
        log.add("ERROR", f"wrong {number}")
    log.add("INTERNAL_ERROR", "broken")
    assert log.tail() == "; ".join([*(f"wrong {number}" for number in range(20)), "broken"])
    log.clear()
    assert log.tail() == "it gave no reason"

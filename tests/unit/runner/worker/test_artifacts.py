"""Real TensorRT-RTX builds through the cache, counted: what rebuilds an engine and what never does."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import factories
import numpy as np
import onnx
import passes
import pytest
import require
from authored_graphs import NETWORKS, Author
from onnx import TensorProto, helper, numpy_helper

from sweep import models, precision, spec
from sweep.analysis import accuracy
from sweep.backends import registry
from sweep.backends.tensorrt import backend as tensorrt
from sweep.backends.tensorrt import library
from sweep.backends.tensorrt.backend import PLAN, TensorRTRTX
from sweep.errors import ConversionError, ModelError
from sweep.models.datasets import calibration
from sweep.runner.worker import artifact_keys, artifacts, reference
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant, side_by_side
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.backends import Backend
    from sweep.storage.cache import Entry

FP16 = Precision(name="fp16", dtype="fp16")
SESSIONS = {
    "streams": SessionAxes(streams=4),
    "cuda_graph": SessionAxes(cuda_graph=True),
    "profile_switch": SessionAxes(profile_switch=True),
    "mps": SessionAxes(mps=50),
    "sm_count": SessionAxes(sm_count=16),
    "clients": SessionAxes(clients=2),
    "sharing": SessionAxes(sharing="streams"),
    "beside": side_by_side.beside(factories.variant(), [factories.variant()], "processes").session,
    "transfers": SessionAxes(transfers=False),
    "wait": SessionAxes(wait="block"),
    "weight_streaming_budget_mib": SessionAxes(weight_streaming_budget_mib=1),
    "context_memory": SessionAxes(context_memory="user_managed"),
    "persistent_cache_ratio": SessionAxes(persistent_cache_ratio=0.5),
}
LOADS = {
    "load": LoadAxes(kind="poisson", rates_ips=(10.0,)),
    "seed": LoadAxes(seed=9),
    "repeats": LoadAxes(repeats=3),
}


class Counting(TensorRTRTX):
    """The real backend, with its builds counted."""

    def __init__(self) -> None:
        self.builds = 0

    def build(self, onnx, variant, shapes, target):
        self.builds += 1
        return super().build(onnx, variant, shapes, target)


class Bench:
    """One cache, one counted backend."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.backend = Counting()

    def entry(self, asked: Variant) -> Entry:
        with Cache(self.root) as cache:
            typed = passes.typed_file(asked, cache)
            return artifacts.build_engine(asked, self.backend, typed, cache)

    def typed(self, asked: Variant) -> Path:
        with Cache(self.root) as cache:
            return passes.typed_file(asked, cache)

    def builds(self, asked: Variant) -> int:
        before = self.backend.builds
        self.entry(asked)
        return self.backend.builds - before


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """A cache that holds the engine of ``variant()``."""
    require.library_for("tensorrt_rtx")
    made = Bench(tmp_path_factory.mktemp("cache"))
    assert made.builds(variant()) == 1
    return made


def variant(**changes) -> Variant:
    return factories.variant(precision="fp16", backend="tensorrt_rtx", **{"engine": EngineAxes(batch=2)} | changes)


def test_every_axis_of_session_and_load_is_tried() -> None:
    cpu_only = {"intra_op_threads", "script"}  # tried where they are honoured, in tests/e2e/test_builds.py
    assert set(SESSIONS) == {item.name for item in dataclasses.fields(SessionAxes)} - cpu_only


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_a_session_axis_never_rebuilds(bench: Bench, session: SessionAxes) -> None:
    assert session != SessionAxes()
    assert bench.builds(variant(session=session)) == 0


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_load_never_rebuilds(bench: Bench, load: LoadAxes) -> None:
    assert load != LoadAxes()
    assert bench.builds(variant(load=load)) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"engine": EngineAxes(batch=3)},
        {"engine": EngineAxes(batch=2, builder_optimization_level=1)},
        {"engine": EngineAxes(batch=2, max_aux_streams=1)},
        {"onnx": dataclasses.replace(variant().onnx, precision=Precision(name="fp32", dtype="fp32"))},
        {"onnx": dataclasses.replace(variant().onnx, precision=Precision(name="tf32", dtype="tf32"))},
    ],
    ids=["batch", "builder_optimization_level", "max_aux_streams", "fp32", "tf32"],
)
def test_batch_knobs_and_precision_build_once_each(bench: Bench, change) -> None:
    asked = variant(**change)
    assert bench.builds(asked) == 1
    assert bench.builds(dataclasses.replace(asked, session=SessionAxes(streams=2, cuda_graph=True))) == 0


def test_another_version_of_the_library_builds_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "version", lambda name: "99.0")
    assert bench.builds(variant()) == 1
    assert bench.builds(variant()) == 0
    monkeypatch.undo()
    assert bench.builds(variant()) == 0


def test_an_engine_is_known_by_the_content_of_its_graph(bench: Bench, tmp_path: Path) -> None:
    typed = bench.typed(variant())
    here = artifact_keys.engine_cache_key(variant(), bench.backend, typed)
    (tmp_path / "model.onnx").write_bytes(typed.read_bytes())
    moved = artifact_keys.engine_cache_key(variant(), bench.backend, tmp_path / "model.onnx")
    graph = onnx.load(typed)
    graph.doc_string = "another"
    onnx.save(graph, tmp_path / "model.onnx")
    assert artifact_keys.engine_cache_key(variant(), bench.backend, tmp_path / "model.onnx") not in {here, moved}


def test_another_converter_converts_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    half = dataclasses.replace(variant(), onnx=dataclasses.replace(variant().onnx, precision=FP16))
    first = bench.typed(half)
    assert bench.typed(half) == first
    monkeypatch.setattr(precision, "REVISION", precision.REVISION + 1)
    assert bench.typed(half) != first


def test_another_gpu_builds_again_and_another_driver_does_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tensorrt.facts.machine()
    monkeypatch.setattr(tensorrt.facts, "machine", lambda: {**machine, "driver": "999.1", "cuda": "19.0"})
    assert bench.builds(variant()) == 0
    typed = bench.typed(variant())
    here = artifact_keys.engine_cache_key(variant(), bench.backend, typed)
    monkeypatch.setattr(tensorrt.facts, "machine", lambda: {**machine, "gpu": "another"})
    assert artifact_keys.engine_cache_key(variant(), bench.backend, typed) != here
    monkeypatch.setattr(tensorrt.facts, "machine", lambda: {**machine, "compute_capability": "99.0"})
    assert bench.builds(variant()) == 1


def test_one_flipped_bit_in_a_real_engine_is_found_and_said(bench: Bench) -> None:
    plan = bench.entry(variant()).path / PLAN
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(bytes(content))
    before = bench.backend.builds
    again = bench.entry(variant())
    assert bench.backend.builds == before + 1
    assert not again.cached
    assert again.note == f"cache entry {again.path} is damaged ({PLAN} changed): built again"
    assert plan.read_bytes() != bytes(content)
    assert bench.entry(variant()).cached


def test_what_is_kept_tells_a_person_what_the_engine_is(bench: Bench) -> None:
    from sweep.storage.cache import inventory

    bench.entry(variant(engine=EngineAxes(batch=3, tiling="fast")))
    shown = {item.description for item in inventory.items(bench.root) if item.kind == inventory.ENGINES}
    label = f"tensorrt_rtx {library.version('tensorrt_rtx')}"
    assert {f"tiny_cnn fp16 b2 {label}", f"tiny_cnn fp16 b3 tiling=fast {label}"} <= shown
    assert spec.engine_key(variant()) not in shown


def plan_digest(variant: Variant, backend: Backend, root: Path) -> str:
    made = artifacts.make_artifacts(variant, backend, Cache(root))
    digest = made.engine_facts(variant)["plan_digest"]
    again = artifacts.make_artifacts(variant, backend, Cache(root))
    assert again.engine.cached
    assert again.engine_facts(variant)["plan_digest"] == digest
    return str(digest)


def test_the_digest_is_that_of_the_plan_whoever_built_it(tmp_path: Path) -> None:
    require.library_for("tensorrt_rtx")
    slow, fast = (factories.variant(backend="tensorrt_rtx", builder_optimization_level=level) for level in (0, 5))
    digest = plan_digest(slow, TensorRTRTX(), tmp_path)
    (plan,) = tmp_path.glob(f"engines/*/{PLAN}")
    assert digest == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert plan_digest(fast, TensorRTRTX(), tmp_path) == digest
    half = factories.variant(precision="fp16", backend="tensorrt_rtx")
    assert plan_digest(half, TensorRTRTX(), tmp_path) != digest


def test_the_digest_of_an_optimised_graph_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    backend = registry.get("onnxruntime")
    digests = {
        plan_digest(factories.variant(precision=name), backend, tmp_path / place)
        for name, place in (("fp32", "a"), ("fp32", "b"), ("bf16", "a"))
    }
    assert len(digests) == 2
    assert (
        artifacts.make_artifacts(
            factories.variant(backend="simulated"), registry.get("simulated"), Cache(tmp_path)
        ).engine_facts(factories.variant(backend="simulated"))["plan_digest"]
        is None
    )


QUICK = LoadAxes(kind="closed", warmup_s=0.01, min_s=0.02, min_requests=3, max_s=0.5)


def of_file(path: Path, recipe: Precision, batch: int = 2, **onnx_axes) -> Variant:
    """A variant of a file of one's own, on onnxruntime."""
    model = ModelRef(name=path.stem, path=str(path), digest=models.file_digest(path))
    return Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=model, precision=recipe, **onnx_axes),
        engine=EngineAxes(batch=batch),
        load=QUICK,
    )


def baked(folder: Path, batch: int) -> Path:
    """A file whose input declares any batch, and whose Reshape takes one only."""
    g = Author()
    flat = g.op("Reshape", g.op("MatMul", "x", g.weight(16, 4)), g.const(np.int64([batch * 4])))
    last = g.op("MatMul", g.op("Reshape", flat, g.const(np.int64([batch, 4]))), g.weight(4, 4))
    onnx.save(g.model(last, {"x": (TensorProto.FLOAT, ["batch", 16])}, ["batch", 4]), folder / "baked.onnx")
    return folder / "baked.onnx"


INT8 = Precision(name="int8", dtype="int8", quantize_ops=("MatMul",), calibration_batches=2)
GUARDED = Precision(name="fp16", dtype="fp16", guard=True, calibration_batches=1)


@pytest.mark.parametrize(("recipe", "samples"), [(INT8, 18), (GUARDED, 9)])
def test_a_file_with_a_baked_batch_is_calibrated_at_the_batch_of_the_variant(
    recipe: Precision, samples: int, tmp_path: Path
) -> None:
    asked = of_file(baked(tmp_path, 3), recipe, batch=3)
    with Cache(tmp_path / "cache") as cache:
        facts = artifacts.make_onnx(asked, cache).facts
    assert facts["calibration"]["samples"] == samples, "as many as 8 a batch give, in whole batches of 3"


def test_users_samples_are_cut_into_batches_that_the_file_takes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((7, 16)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x)
    source = baked(tmp_path, 3)
    asked = of_file(source, INT8, batch=3, calibration=calibration.parse(str(tmp_path / "train.npz")))
    with Cache(tmp_path / "cache") as cache:
        assert artifacts.make_onnx(asked, cache).facts["calibration"]["samples"] == 6
    cut = artifacts.calibration_batches(asked, 3)
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in cut]), x[:6])
    (repeated,) = artifacts.calibration_batches(asked, 9)
    np.testing.assert_array_equal(repeated["x"], np.concatenate([x, x[:2]]), "a batch that the samples do not fill")


def test_a_file_that_takes_any_batch_keeps_its_key_and_its_8_samples(tmp_path: Path) -> None:
    onnx.save(NETWORKS["matrices"](), tmp_path / "any.onnx")
    with Cache(tmp_path / "cache") as cache:
        folders = []
        for batch in (1, 3):
            made = artifacts.make_onnx(of_file(tmp_path / "any.onnx", INT8, batch=batch), cache)
            assert made.facts["calibration"]["samples"] == 16
            folders.append(made.typed.parent.name)
    assert set(folders) == {artifact_keys.onnx_cache_key(of_file(tmp_path / "any.onnx", INT8))}


def test_an_old_file_with_a_baked_batch_is_upgraded_and_compared_at_that_batch(tmp_path: Path) -> None:
    model = onnx.load(baked(tmp_path, 3))
    model.opset_import[0].version, model.ir_version = 11, 6
    onnx.save(model, tmp_path / "old.onnx")
    with Cache(tmp_path / "cache") as cache:
        fp32 = Precision(name="fp32", dtype="fp32")
        made = artifacts.make_onnx(of_file(tmp_path / "old.onnx", fp32, batch=3), cache)
    assert models.opset(made.typed) >= models.LEAST_OPSET


def test_an_upgrade_that_does_not_run_is_no_fault_of_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body of a Scan of opset 8 has another rank than that of a later one."""
    model = onnx.load(baked(tmp_path, 3))
    model.opset_import[0].version, model.ir_version = 11, 6
    onnx.save(model, tmp_path / "old.onnx")
    monkeypatch.setattr(models, "upgrade", lambda _, target: onnx.save(onnx.load(baked(tmp_path, 4)), target))
    fp32 = Precision(name="fp32", dtype="fp32")
    with Cache(tmp_path / "cache") as cache, pytest.raises(ModelError, match=r"runs at its own opset, but.*export it"):
        artifacts.make_onnx(of_file(tmp_path / "old.onnx", fp32, batch=3), cache)


def typed_files(folder: Path) -> dict[str, Path]:
    """A file of every way in which people bring typed ones, by what it is."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16]) for name in "xy")
    bytes_in = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 16])
    labels = helper.make_tensor_value_info("y", TensorProto.INT64, ["batch"])
    rng = np.random.default_rng(0)
    stored = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w": rng.integers(0, 255, (16, 16)).astype(np.uint8),
        "f": rng.standard_normal((16, 16)).astype(np.float32),
        "h": rng.standard_normal((16, 16)).astype(np.float16),
    }
    node, half, single = helper.make_node, TensorProto.FLOAT16, TensorProto.FLOAT
    q = node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q")
    made = {
        "pairs": [
            q,
            node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
            node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="wd"),
            node("MatMul", ["d", "wd"], ["y"], name="product"),
        ],
        "operators": [
            q,
            node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"], name="product"),
            node("DequantizeLinear", ["p", "s", "z"], ["y"], name="d"),
        ],
        "dynamic": [
            node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"], name="q"),
            node("MatMulInteger", ["q", "w", "qz", "z"], ["i"], name="product"),
            node("Cast", ["i"], ["c"], name="c", to=single),
            node("Mul", ["c", "qs"], ["y"], name="m"),
        ],
        "half": [
            node("Cast", ["x"], ["c"], name="c", to=half),
            node("MatMul", ["c", "h"], ["p"], name="product"),
            node("Cast", ["p"], ["y"], name="o", to=single),
        ],
        "integers": [
            node("Cast", ["x"], ["c"], name="c", to=single),
            node("MatMul", ["c", "f"], ["p"], name="product"),
            node("ArgMax", ["p"], ["y"], name="a", axis=1, keepdims=0),
        ],
    }
    paths = {}
    for name, nodes in made.items():
        ends = (bytes_in, labels) if name == "integers" else (x, y)
        read = {operand for item in nodes for operand in item.input}
        weights = [numpy_helper.from_array(np.asarray(stored[item]), item) for item in stored if item in read]
        graph = helper.make_graph(nodes, "g", *[[end] for end in ends], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        paths[name] = folder / f"{name}.onnx"
        onnx.save(model, paths[name])
    return paths


NATIVE = Precision(name="native", dtype="native", tool="none")


@pytest.mark.parametrize(
    ("kind", "label", "dtypes"),
    [
        ("pairs", "int8", {"int8": 1}),
        ("operators", "int8", {"int8": 1}),
        ("dynamic", "int8", {"int8": 1}),
        ("half", "fp16", {"fp16": 1}),
        ("integers", "fp32", {"fp32": 1}),
    ],
)
def test_a_file_as_it_came_runs_and_its_reference_is_named_for_what_it_is(
    kind: str, label: str, dtypes: dict[str, int], tmp_path: Path
) -> None:
    path = typed_files(tmp_path)[kind]
    expected = accuracy.REFERENCE if kind == "integers" else accuracy.TYPED_REFERENCE
    ops = ("MatMul",) if label == "int8" else ()
    recipes = [NATIVE, Precision(name=label, dtype=label, quantize_ops=ops)]
    if kind != "integers":
        recipes.append(dataclasses.replace(recipes[1], tool="none"))
    for recipe in recipes:
        found = passes.measured(of_file(path, recipe), tmp_path)
        assert (found["accuracy"]["reference"], found["mismatch"]) == (expected, None), recipe
        assert found["accuracy"]["nonfinite"] in {0, None}
        if recipe is NATIVE:
            assert {name: count for name, count in found["engine"]["dtypes"].items() if count} == dtypes
            assert "convert_s" not in found["engine"], "nothing was converted"


def qat_file(folder: Path) -> tuple[Path, Path]:
    """A network, and its int8 conversion with the scales that a training moved."""
    source = folder / "net.onnx"
    onnx.save(NETWORKS["cnn"](), source)
    int8 = Precision(name="int8", dtype="int8", quantize_ops=("Conv", "Gemm"))
    batches = models.calibration(ModelRef(name="net", path=str(source)), 8, 1)
    typed = onnx.load(precision.convert(source, int8, batches, folder / "qat.onnx").path)
    for tensor in typed.graph.initializer:
        if tensor.name.endswith("scale"):
            value = numpy_helper.to_array(tensor) * np.float32(1.03)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    onnx.save(typed, folder / "qat.onnx")
    return source, folder / "qat.onnx"


def qat_recipe(path: Path) -> Precision:
    return dataclasses.replace(NATIVE, name="qat", path=str(path), digest=models.file_digest(path))


def test_a_quantized_file_beside_its_network_is_judged_against_fp32(tmp_path: Path) -> None:
    source, path = qat_file(tmp_path)
    asked = of_file(source, qat_recipe(path), batch=4)
    found = passes.measured(asked, tmp_path)
    feeds = models.feeds(asked.onnx.model, 4, 0)
    own = passes.against_fp32(source, feeds, reference.run(path, feeds))
    assert 20 < own["sqnr_db"] < 40
    assert found["accuracy"]["sqnr_db"] == pytest.approx(own["sqnr_db"], abs=0.5)
    assert found["accuracy"]["expected"]["expected_db"] == pytest.approx(own["sqnr_db"], abs=0.5)
    assert (found["accuracy"]["reference"], found["mismatch"]) == (accuracy.REFERENCE, None)
    assert found["engine"]["dtypes"]["int8"] == 4
    assert "qat is qat.onnx as it came, judged against fp32" in found["realised"]["notes"]
    assert found["model"]["parameters"] == models.parameters(source)
    path.write_bytes(path.read_bytes() + onnx.ModelProto(doc_string="another").SerializeToString())
    with pytest.raises(ModelError, match=r"qat\.onnx has changed since it was planned"):
        passes.measured(asked, tmp_path)


def test_tensorrt_builds_a_quantized_file_beside_its_network_in_its_own_types(tmp_path: Path) -> None:
    require.library_for("tensorrt_rtx")
    source, path = qat_file(tmp_path)
    asked = dataclasses.replace(of_file(source, qat_recipe(path)), backend="tensorrt_rtx")
    cache = Cache(tmp_path / "cache")
    onnx_files = artifacts.make_onnx(asked, cache)
    assert (onnx_files.model, onnx_files.typed, onnx_files.model_is_typed) == (source, path, False)
    entry = artifacts.build_engine(asked, TensorRTRTX(), onnx_files.typed, cache)
    assert entry.info["precision"] == {"int8": 4}


def test_a_typed_file_under_another_label_is_told_of_native(tmp_path: Path) -> None:
    model = onnx.load(typed_files(tmp_path)["pairs"])
    model.ir_version = 14  # so that what is read is a copy in the cache, with a name of its own
    onnx.save(model, tmp_path / "mine.onnx")
    for label in ("fp32", "fp16"):
        with Cache(tmp_path / "cache") as cache, pytest.raises(ConversionError, match=r"mine\.onnx.*precision=native"):
            artifacts.make_onnx(of_file(tmp_path / "mine.onnx", Precision(name=label, dtype=label)), cache)

"""Real TensorRT-RTX builds through the cache, counted: what rebuilds an engine and what never does."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import factories
import onnx
import passes
import pytest
import require

from sweep import precision, spec
from sweep.backends import registry
from sweep.backends.tensorrt import backend as tensorrt
from sweep.backends.tensorrt import library
from sweep.backends.tensorrt.backend import PLAN, TensorRTRTX
from sweep.runner.worker import artifact_keys, artifacts
from sweep.spec import EngineAxes, LoadAxes, Precision, SessionAxes, Variant
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.backends import Backend
    from sweep.storage.cache import Entry

FP16 = Precision(name="fp16", dtype="fp16")
SESSIONS = {
    "streams": SessionAxes(streams=4),
    "cuda_graph": SessionAxes(cuda_graph=True),
    "mps": SessionAxes(mps=50),
    "sm_count": SessionAxes(sm_count=16),
    "clients": SessionAxes(clients=2),
    "transfers": SessionAxes(transfers=False),
    "wait": SessionAxes(wait="block"),
    "weight_streaming_budget_mib": SessionAxes(weight_streaming_budget_mib=1),
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

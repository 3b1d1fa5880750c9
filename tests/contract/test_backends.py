"""What every backend in the registry must do. A new backend is held to this by being registered."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import factories
import numpy as np
import passes
import pytest
import require

from sweep import models, spec
from sweep.backends import registry
from sweep.backends.base import find_unhonoured_axis, unsupported_reason
from sweep.errors import BuildError, ConfigError
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, LoadAxes, Precision, SessionAxes, Variant
from sweep.storage import samples, samples_file
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.backends.base import Backend, Session

QUICK = LoadAxes(fractions=(0.5,), warmup_s=0.02, min_s=0.05, min_requests=20, max_s=2.0)
QUANTISED = {"quantize_ops": ("Conv", "MatMul", "Gemm"), "calibration_batches": 1}
PRECISIONS = {
    "fp32": Precision(name="fp32", dtype="fp32"),
    "fp16": Precision(name="fp16", dtype="fp16", guard=True, calibration_batches=1),
    "bf16": Precision(name="bf16", dtype="bf16"),
    "int8": Precision(name="int8", dtype="int8", **QUANTISED),
    "int8_fp16": Precision(name="int8_fp16", dtype="int8", rest="fp16", **QUANTISED),
    "fp8": Precision(name="fp8", dtype="fp8", **QUANTISED),
    "fp8_bf16": Precision(name="fp8_bf16", dtype="fp8", rest="bf16", **QUANTISED),
}


@pytest.fixture(params=registry.names())
def backend(request: pytest.FixtureRequest) -> Backend:
    return registry.get(request.param)


def variant(backend: Backend, precision: str = "fp32", **changes: object) -> Variant:
    made = factories.variant(precision=PRECISIONS[precision], backend=backend.name, batch=2, load=QUICK)
    return dataclasses.replace(made, **changes)


def loaded(backend: Backend, asked: Variant, folder: Path) -> Session:
    require.gpu_for(backend.name)
    cache = Cache(folder)
    typed = passes.typed_file(asked, cache)
    engine = artifacts.build_engine(asked, backend, typed, cache)
    feeds = models.draw(models.signature(asked.onnx.model), asked.engine.batch, asked.load.seed)
    return backend.load(engine.path, engine.info, asked, feeds)


def test_it_declares_axes_that_exist(backend: Backend) -> None:
    names = {item.name for kind in (EngineAxes, SessionAxes) for item in dataclasses.fields(kind)}
    assert backend.honours <= names
    assert backend.name in registry.names()


def test_every_axis_it_does_not_declare_is_unsupported_with_its_name(backend: Backend) -> None:
    session = {
        "clients": 2,
        "mps": 50,
        "sm_count": 16,
        "cuda_graph": True,
        "streams": 2,
        "intra_op_threads": 2,
        "transfers": False,
    }
    engine = {"builder_optimization_level": 1, "tiling": "fast", "sparsity": "enable", "workspace_mib": 64}
    others = {**session, "wait": "block", **engine, "max_aux_streams": 1, "mps_build": 50}
    for name, value in others.items():
        kind, field = (EngineAxes, "engine") if hasattr(EngineAxes(), name) else (SessionAxes, "session")
        asked = variant(backend, **{field: dataclasses.replace(kind(), **{name: value})})
        reason = find_unhonoured_axis(backend, asked)
        assert (reason is None) == (name in backend.honours)
        assert reason is None or name in reason


def test_its_facts_are_plain_and_known(backend: Backend) -> None:
    facts = backend.facts()
    assert facts
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_it_builds_and_says_what_it_built(backend: Backend, precision: str, tmp_path: Path) -> None:
    require.library_for(backend.name)
    cache, asked = Cache(tmp_path), variant(backend, precision)
    typed = passes.typed_file(asked, cache)
    with require.int8_convolutions(backend.name, precision):
        engine = artifacts.build_engine(asked, backend, typed, cache)
    assert engine.bytes > 0
    assert json.loads(json.dumps(engine.info)) == engine.info
    assert artifacts.build_engine(asked, backend, typed, cache).cached


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
@pytest.mark.parametrize("streams", [1, 2])
def test_one_pass_gives_samples_and_what_was_realised(
    backend: Backend, precision: str, streams: int, tmp_path: Path
) -> None:
    require.gpu_for(backend.name)
    asked = variant(backend, precision, session=SessionAxes(streams=streams))
    assert unsupported_reason(backend, asked) is None
    stages = passes.Stages()
    with require.int8_convolutions(backend.name, precision):
        found = passes.measured(asked, tmp_path, stages)
    needed = backend.environment(asked)
    if needed.items() <= os.environ.items():
        assert found["mismatch"] is None
    else:  # this process was not started as a worker is: what ran may not be what was asked, and then it is said
        assert found["mismatch"] is None or "precision=tf32 is the label for that" in found["mismatch"]
    assert found["realised"]["contexts"] == streams
    assert found["engine"]["bytes"] > 0
    assert json.loads(json.dumps(found)) == found
    assert list(dict.fromkeys(stages.names)) == ["model", "onnx", "build", "load", "measure", "accuracy"]
    closed, rung = (point for point in samples_file.load(tmp_path / "s.npz") if point.kind not in {"calm", "busy"})
    assert (closed.kind, rung.kind) == ("closed", "poisson")
    assert set(closed.stream[~closed.warmup]) == set(range(streams))
    for point in (closed, rung):
        assert point.measured.sum() >= QUICK.min_requests
        assert np.all(point.done_ns >= point.issued_ns)
        assert np.all(point.issued_ns >= point.scheduled_ns)
    if backend.runs_models:
        assert found["accuracy"]["nonfinite"] == 0
        assert found["accuracy"]["sqnr_db"] is None or found["accuracy"]["sqnr_db"] > (5 if "fp8" in precision else 15)


def test_streams_and_load_never_rebuild(backend: Backend, tmp_path: Path) -> None:
    for streams in (1, 2):
        for load in (QUICK, dataclasses.replace(QUICK, seed=5)):
            loaded(backend, variant(backend, session=SessionAxes(streams=streams), load=load), tmp_path).close()
    engines = [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]
    assert len(engines) == 1
    loaded(backend, variant(backend, engine=EngineAxes(batch=3)), tmp_path).close()
    assert len([path for path in (tmp_path / "engines").iterdir() if path.is_dir()]) == 2


def test_streams_are_independent_and_give_the_same_outputs(backend: Backend, tmp_path: Path) -> None:
    session = loaded(backend, variant(backend, session=SessionAxes(streams=2)), tmp_path)
    for stream in session.streams:
        stream.enqueue()
    for stream in reversed(session.streams):
        stream.wait()
    first = session.outputs()
    assert bool(first) == backend.runs_models
    session.streams[0].enqueue()
    session.streams[0].wait()
    for name, value in session.outputs().items():
        assert np.array_equal(value, first[name])
        assert len(value) == 2
    session.close()
    session.close()


def test_gathered_batches_run_and_what_became_of_partial_ones_is_realised(backend: Backend, tmp_path: Path) -> None:
    require.gpu_for(backend.name)
    load = dataclasses.replace(QUICK, batch_wait_ms=1.0)
    asked = variant(backend, engine=EngineAxes(batch=4), session=SessionAxes(streams=2), load=load)
    found = passes.measured(asked, tmp_path)
    assert found["realised"]["partial_batches"] in {"true size", "padded"}
    closed, rung = samples_file.load(tmp_path / "s.npz")
    assert (closed.batch, rung.batch, rung.gathers) == (4, 1, 4)
    assert rung.ran_with is not None
    assert set(rung.ran_with[rung.done_ns != samples.NEVER]) <= {1, 2, 3, 4}
    assert np.all(rung.issued_ns >= rung.scheduled_ns)
    assert np.all(np.diff(rung.issued_ns[rung.done_ns != samples.NEVER]) >= 0)
    plain = passes.measured(variant(backend), tmp_path)
    assert "partial_batches" not in plain["realised"]
    assert plain["realised"].get("loop") == ("python" if backend.runs_models else None)  # nothing was captured


def test_a_smaller_batch_is_run_where_the_session_says_so(backend: Backend, tmp_path: Path) -> None:
    load = dataclasses.replace(QUICK, batch_wait_ms=1.0)
    session = loaded(backend, variant(backend, engine=EngineAxes(batch=3), load=load), tmp_path)
    stream = session.streams[0]
    for size in (1, 2) if session.partial_batches else ():
        stream.enqueue(size)
        stream.wait()
    stream.enqueue()
    stream.wait()
    assert {len(value) for value in session.outputs().values()} == ({3} if backend.runs_models else set())
    session.close()


@pytest.mark.parametrize(
    "backend", [name for name in registry.names() if registry.get(name).runs_models], indirect=True
)
def test_a_graph_it_cannot_read_is_a_build_error(backend: Backend, tmp_path: Path) -> None:
    require.library_for(backend.name)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "target").mkdir()
    with pytest.raises(BuildError) as caught:
        backend.build(
            tmp_path / "model.onnx",
            variant(backend),
            lambda batch, _shape=None: {"x": (batch, 3, 32, 32)},
            tmp_path / "target",
        )
    assert "\n" not in str(caught.value)


def test_the_engine_key_knows_backend_precision_and_batch(backend: Backend) -> None:
    keys = {
        spec.engine_key(variant(backend, precision, engine=EngineAxes(batch=batch)))
        for precision in PRECISIONS
        for batch in (1, 2)
    }
    assert len(keys) == 2 * len(PRECISIONS)
    assert spec.engine_key(variant(backend)) not in {
        spec.engine_key(variant(registry.get(name))) for name in registry.names() if name != backend.name
    }


def test_an_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="onnxruntime, simulated"):
        registry.get("tensorflow")

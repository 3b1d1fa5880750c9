"""A plan that was built elsewhere: the whole way of a pass on a pretended GPU, which computes y = 2 x."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import factories
import numpy as np
import onnx
import passes
import pytest
from fake_gpu import FakeEngine, FakeRuntime, installed, library_of
from onnx import TensorProto, helper
from rich.console import Console

from sweep.analysis import accuracy_gates, record_views
from sweep.analysis.accuracy import NO_REFERENCE, NOT_COMPARED
from sweep.analysis.reevaluate import regated
from sweep.backends import registry
from sweep.backends.tensorrt import PLAN, library, plan_file
from sweep.cli import commands
from sweep.cli.bisect import trace
from sweep.errors import ConfigError, ModelError, SessionError, UnsupportedError
from sweep.models import datasets, file_digest
from sweep.report import answer, html, table
from sweep.report.mlflow import record_mapping
from sweep.runner import messages, plan, record_builder
from sweep.runner.worker import accuracy_check, measure, plan_import
from sweep.runner.worker.events import Events
from sweep.runner.worker_process import Outcome
from sweep.spec import (
    BuiltPlan,
    EngineAxes,
    Gates,
    InputFix,
    Limits,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    Settings,
    Status,
    engine_key,
    from_record,
    variant_key,
)
from sweep.storage import Record, Store, samples_file
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import JsonDict, Variant

CLOSED = LoadAxes(kind="closed", warmup_s=0.0, min_s=0.01, min_requests=20, max_s=0.5)
CONTENT = b"vtrt" + bytes(12) + (60).to_bytes(8, "little") + bytes((1, 6, 1, 120)) + bytes(32)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine(installed(monkeypatch, FakeRuntime()))
    fake = library_of(made)
    monkeypatch.setattr(library, "load", lambda _name: fake)
    monkeypatch.setattr(accuracy_check, "_LOOKS_S", 0.0)  # one burst tells the same here
    return made


def write(path: Path, content: bytes = CONTENT) -> BuiltPlan:
    path.write_bytes(content)
    return plan_file.read(path)


def alone(built: BuiltPlan, batch: int = 2, inputs: tuple[InputFix, ...] = ()) -> Variant:
    """A plan without a network."""
    recipe = Precision(name="as-built", dtype="native")
    onnx_axes = OnnxAxes(model=ModelRef(name="x", inputs=inputs), precision=recipe)
    return factories.variant(
        backend="tensorrt_rtx", onnx=onnx_axes, engine=EngineAxes(batch=batch, plan=built), load=CLOSED
    )


def beside(built: BuiltPlan, path: Path, *, factor: float = 2.0, name: str = "x", batch: int = 2) -> Variant:
    """A plan with a network that computes y = factor * x."""
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", 3]) for each in (name, "y")]
    weight = onnx.numpy_helper.from_array(np.array(factor, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Mul", [name, "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    reference = ModelRef(name=path.stem, path=str(path), digest=file_digest(path))
    made = alone(built, batch)
    return dataclasses.replace(made, onnx=dataclasses.replace(made.onnx, model=reference))


def recorded(asked: Variant, found: JsonDict) -> Record:
    return Record(key="0" * 16, sweep="s", status="ok", started_at="", variant={}, accuracy=found["accuracy"])


def test_a_plan_alone_is_timed_and_never_called_exact(engine: FakeEngine, tmp_path: Path) -> None:
    asked = alone(write(tmp_path / "x.plan"))
    stages = passes.Stages()
    found = passes.measured(asked, tmp_path, stages, gates=Gates())
    assert list(dict.fromkeys(stages.names)) == ["model", "load", "measure", "accuracy"]
    assert (found["mismatch"], found["model"]) == (None, None)
    accuracy = found["accuracy"]
    assert accuracy["reference"] == NO_REFERENCE
    assert accuracy["unknown"] == accuracy["note"] == NOT_COMPARED
    assert (accuracy["sqnr_db"], accuracy["max_abs"]) == (None, None)
    assert accuracy["again"]["identical"]
    assert record_views.sqnr_text(recorded(asked, found)) == "-"
    assert found["realised"]["notes"] == [
        "x.plan came as a plan of tensorrt_rtx 1.6.1.120: it was loaded, not built",
        NOT_COMPARED,
    ]
    assert found["realised"]["precision"] == {"fp16": 1}
    facts = found["engine"]
    assert facts["plan_digest"] == hashlib.sha256(CONTENT).hexdigest()
    assert facts["build_s"] is None
    assert "onnx_key" not in facts
    ends = {"least": [2, 3], "most": [2, 3]}
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 3], "dynamic": False, **ends}]
    assert (tmp_path / "cache" / "engines" / facts["key"] / PLAN).read_bytes() == CONTENT
    json.dumps(found)
    gated = accuracy_gates.fault("native", accuracy, Gates(min_sqnr_db=10.0))
    assert gated is not None
    assert gated.message.endswith(
        f"min_sqnr_db=10 was asked for and cannot be judged: {NOT_COMPARED} (accuracy.min_sqnr_db)"
    )


@pytest.mark.parametrize(("factor", "sqnr_db"), [(2.0, None), (2.2, 20.8), (-2.0, -6.0)])
def test_a_network_beside_it_is_its_reference(
    engine: FakeEngine, tmp_path: Path, factor: float, sqnr_db: float | None
) -> None:
    """What a plan rounds is not known: only the floor and the gates of the user judge it."""
    engine.batches = (1, 8)
    found = passes.measured(beside(write(tmp_path / "x.plan"), tmp_path / "net.onnx", factor=factor), tmp_path)
    accuracy = found["accuracy"]
    assert accuracy["reference"] == "onnxruntime fp32, same inputs"
    assert "expected" not in accuracy
    assert accuracy["sqnr_db"] == (sqnr_db and pytest.approx(sqnr_db, abs=0.1))
    assert (found["mismatch"] is None) == (factor > 0)
    assert found["model"]["opset"] == 20
    (told,) = found["engine"]["inputs"]
    assert (told["shape"], told["dynamic"], told["least"], told["most"]) == (["batch", 3], True, [1, 3], [8, 3])


def test_samples_are_fed_in_turn_where_a_network_beside_it_names_the_inputs(engine: FakeEngine, tmp_path: Path) -> None:
    engine.batches = (1, 8)
    np.save(tmp_path / "own.npy", np.arange(15.0).reshape(5, 3))
    data = dataclasses.replace(datasets.parse_samples(str(tmp_path / "own.npy")), count=5)
    asked = beside(write(tmp_path / "x.plan"), tmp_path / "net.onnx")
    asked = dataclasses.replace(asked, load=dataclasses.replace(asked.load, samples=data))
    found = passes.measured(asked, tmp_path)
    assert (found["accuracy"]["samples"], found["accuracy"]["max_abs"]) == (5, 0)
    assert (found["realised"]["inputs"], found["realised"]["input_batches"]) == ("samples of own.npy (5)", 3)


def test_values_are_those_that_the_plan_s_types_hold(engine: FakeEngine, tmp_path: Path) -> None:
    built = write(tmp_path / "x.plan")
    asked = beside(built, tmp_path / "net.onnx")
    shape = [2, 3]
    ends = {"shape": shape, "least": shape, "best": shape, "most": shape}
    info: JsonDict = {"inputs": [{"name": "x", "dtype": "float16", **ends}], "profiles": 1}
    fed = plan_import.feeds(asked, info)
    compared = plan_import.reference_feeds(asked, fed)
    assert (fed["x"].dtype, compared["x"].dtype) == (np.float16, np.float32)
    assert np.array_equal(fed["x"].astype(np.float32), compared["x"])
    info["inputs"][0]["dtype"] = "int32"
    with pytest.raises(UnsupportedError, match=r"input x is int32 in x\.plan and float32 in its reference"):
        plan_import.feeds(asked, info)
    huge = alone(built, inputs=(InputFix(name="x", low=1e5, high=1e6),))
    info["inputs"][0]["dtype"] = "float16"
    with pytest.raises(ModelError, match="float16, which holds"):
        plan_import.feeds(huge, info)


@pytest.mark.parametrize(
    ("batches", "batch", "words"),
    [
        ((2, 2), 4, "batch=4: x.plan was built for one shape (x [2,3]) and takes batch=2"),
        ((2, 2), 1, "takes batch=2; if it has no batch, say so: +model.inputs.x.shape=[2,3]"),
        ((2, 8), 1, "batch=1: x.plan takes batch=2..8 (x [2..8,3])"),
        ((2, 8), 9, "batch=9: x.plan takes batch=2..8 (x [2..8,3])"),
    ],
)
def test_a_batch_that_it_does_not_take_is_refused_with_those_that_it_takes(
    engine: FakeEngine, tmp_path: Path, batches: tuple[int, int], batch: int, words: str
) -> None:
    engine.batches = batches
    with pytest.raises(UnsupportedError) as caught:
        passes.measured(alone(write(tmp_path / "x.plan"), batch), tmp_path)
    assert words in str(caught.value)


def test_the_shape_that_the_user_gives_is_taken_at_its_word(engine: FakeEngine, tmp_path: Path) -> None:
    built = write(tmp_path / "x.plan")
    whole = alone(built, 1, inputs=(InputFix(name="x", shape=(2, 3)),))
    assert passes.measured(whole, tmp_path)["engine"]["inputs"][0]["shape"] == [2, 3]
    for name, shape, words in (("z", (2, 3), "names 'z', but model 'x' has x"), ("x", (4, 3), "wants 4 at axis 0")):
        with pytest.raises(ModelError, match=words):
            passes.measured(alone(built, 1, inputs=(InputFix(name=name, shape=shape),)), tmp_path)


def test_open_sizes_are_the_optimum_of_the_first_profile_unless_the_user_says_others(tmp_path: Path) -> None:
    built = write(tmp_path / "x.plan")
    ids = {"name": "ids", "dtype": "int64", "shape": [-1, -1], "least": [1, 8], "best": [4, 64], "most": [8, 128]}
    info: JsonDict = {"inputs": [ids], "profiles": 2}
    (spec,) = plan_import.settled_inputs(alone(built), info)
    assert spec.shape == ("batch", 64)
    assert plan_import.feeds(alone(built), info)["ids"].shape == (2, 64)
    assert "open sizes of ids are those that the plan was optimized for" in str(
        plan_import.optimum_note(alone(built), info)
    )
    fixed = alone(built, inputs=(InputFix(name="ids", shape=("batch", 100), high=9.0),))
    assert plan_import.feeds(fixed, info)["ids"].shape == (2, 100)
    assert plan_import.optimum_note(fixed, info) is None
    one: JsonDict = {"inputs": [{**ids, "least": [4, 64], "most": [4, 64]}], "profiles": 1}
    assert plan_import.settled_inputs(alone(built, 4), one)[0].shape == ("batch", 64)  # open, and yet of one size
    assert plan_import.optimum_note(alone(built, 4), one) is None
    with pytest.raises(UnsupportedError, match=r"batch=2: x\.plan takes batch=4 \(ids \[4,64\]\)"):
        plan_import.settled_inputs(alone(built), one)
    beyond = alone(built, inputs=(InputFix(name="ids", shape=("batch", 129)),))
    with pytest.raises(UnsupportedError) as caught:
        plan_import.settled_inputs(beyond, info)
    assert str(caught.value) == (
        "input ids would be [2,129], and x.plan takes in the first of its 2 profiles, the one that runs: "
        "ids [1..8,8..128]"
    )


def test_a_reference_with_other_inputs_is_refused(engine: FakeEngine, tmp_path: Path) -> None:
    asked = beside(write(tmp_path / "x.plan"), tmp_path / "net.onnx", name="pixels")
    with pytest.raises(UnsupportedError, match=r"x\.plan has the inputs x, and its reference net has pixels"):
        passes.measured(asked, tmp_path)


def test_what_the_library_refuses_is_told_in_its_words_with_who_built_it(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = library_of(None)
    monkeypatch.setattr(refusing.log, "tail", lambda: "the version tag does not match")
    monkeypatch.setattr(library, "load", lambda _name: refusing)
    with pytest.raises(SessionError) as caught:
        passes.measured(alone(write(tmp_path / "x.plan")), tmp_path)
    assert str(caught.value).startswith("x.plan, built by tensorrt_rtx 1.6.1.120, does not load on None")
    assert str(caught.value).endswith("tensorrt_rtx 0.0 cannot load the engine: the version tag does not match")
    assert [path.suffix for path in (tmp_path / "cache" / "engines").iterdir()] == [".lock"]


def test_tensors_that_a_session_cannot_feed_are_refused(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = alone(write(tmp_path / "x.plan"))
    for method, name, words in (
        ("get_tensor_location", "HOST", "tensor x of the plan is a shape that is read on the host"),
        ("get_tensor_format", "CHW32", "tensor x of the plan has the format CHW32"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(engine, method, lambda _name, value=name: SimpleNamespace(name=value))
            with pytest.raises(UnsupportedError, match=words):
                passes.measured(asked, tmp_path)


def test_a_plan_that_tells_no_layers_says_so_and_is_no_mismatch(engine: FakeEngine, tmp_path: Path) -> None:
    engine.tells_layers = False
    found = passes.measured(alone(write(tmp_path / "x.plan")), tmp_path)
    assert found["mismatch"] is None
    assert "x.plan does not tell which types it computes in" in found["realised"]["notes"]


def test_the_copy_is_what_was_planned_and_one_for_all_batches(engine: FakeEngine, tmp_path: Path) -> None:
    engine.batches = (1, 8)
    built = write(tmp_path / "x.plan")
    first = passes.measured(alone(built), tmp_path)
    assert not first["engine"]["cached"]
    assert engine_key(alone(built)) == engine_key(alone(built, 4))
    (tmp_path / "x.plan").unlink()
    again = passes.measured(alone(built, 4), tmp_path)  # the copy in the cache is enough
    assert again["engine"]["cached"]
    assert again["engine"]["key"] == first["engine"]["key"]
    (tmp_path / "x.plan").write_bytes(CONTENT + b"!")
    with Cache(tmp_path / "other") as cache, pytest.raises(SessionError, match="has changed since it was planned"):
        plan_import.import_plan(alone(built), built, registry.get("tensorrt_rtx"), cache)


def test_its_record_is_read_by_everything_that_reads_records(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = alone(write(tmp_path / "x.plan"))
    result = messages.decode_event(messages.encode(measure.measure(passes.request(asked, tmp_path), Events())))
    assert isinstance(result, messages.Result)
    (work,) = plan.make([asked]).works
    settings = Settings(name="s", results=tmp_path / "results")
    points = samples_file.load(tmp_path / "s.npz")
    outcome = Outcome(status=Status.OK, result=result)
    timing = record_builder.Timing(started_at=record_builder.utc_now())
    record = record_builder.measured(work, outcome, points, timing, settings)
    assert record.status == Status.OK
    engine_facts = record.engine
    assert engine_facts["host_memory_bytes"] >= engine_facts["host_memory_before_bytes"] > 0
    strict = dataclasses.replace(settings, limits=Limits(memory_mib=1e-4))
    limited = record_builder.measured(work, outcome, points, timing, strict)
    assert (limited.status, limited.error["gate"]) == (Status.INVALID, "memory_mib")
    assert limited.error["message"].startswith("memory: 0.0 MiB on the device, above limits.memory_mib=0.0001")
    store = Store(settings.root)
    samples_file.save(store.samples_path(work.key), points)
    store.write(record)
    read = store.read(work.key)
    assert read.variant["plan"]["digest"] == hashlib.sha256(CONTENT).hexdigest()
    assert variant_key(from_record(read.variant)) == work.key
    params, tags = record_mapping.params(read), record_mapping.tags(read)
    assert (params["plan.path"], params["precision"]) == (str(tmp_path / "x.plan"), "as-built")
    assert tags["sweep.plan_digest"] == hashlib.sha256(CONTENT).hexdigest()
    assert record_mapping.metrics(read)
    assert regated(store, read, Gates()) is read
    page = html.write(tmp_path / "report.html", "s", [read], answer([read], None)).read_text()
    assert "x as-built b2 s1 from-x.plan" in page
    console = Console(record=True, width=200)
    table.print_outcome(console, [read], answer([read], None), None)
    assert "* x.plan came as a plan of tensorrt_rtx 1.6.1.120: it was loaded, not built" in console.export_text()
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert commands.main(["recompute", str(settings.root)]) == 0
    with pytest.raises(ConfigError, match="native is the file as it is"):
        trace.of_record(read)

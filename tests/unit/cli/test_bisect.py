"""Which nodes carry the error: a planted bad layer is named, sums agree with the whole, bad commands are one line."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import passes
import pytest
from authored_graphs import NETWORKS, Author, batch, save
from onnx import TensorProto, numpy_helper

from sweep import precision, spec
from sweep.cli import commands
from sweep.cli.bisect import node_table, trace
from sweep.errors import ConfigError
from sweep.models import file_digest
from sweep.runner.worker import reference
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage import record_file, store
from sweep.storage.record import Record
from sweep.system import user_code

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 6
BAD = 3
INT8 = Precision(name="int8", dtype="int8", quantize_ops=("MatMul",), per_channel=False, calibration_batches=2)
FP16 = Precision(name="fp16", dtype="fp16")


def planted() -> onnx.ModelProto:
    """Six products with Relus; one weight of the fourth is a thousand times too large, and meets a zero."""
    g = Author()
    x, width = "x", 32
    for layer in range(LAYERS):
        weight = g.rng.standard_normal((width, width), dtype=np.float32) * np.float32((2 / width) ** 0.5)
        if layer == BAD:
            weight[:, 0] = 0
            weight[0, 0] = 1000  # of a channel that is silent: fp32 does not notice, a scale for the whole tensor does
        bias = g.rng.standard_normal(width, dtype=np.float32) * np.float32(0.1)
        if layer == BAD - 1:
            bias[0] = -1000
        x = g.op("Relu", g.op("Add", g.op("MatMul", x, g.const(weight)), g.const(bias)))
    return g.model(x, {"x": (TensorProto.FLOAT, ["batch", width])}, ["batch", width])


def matmuls(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "MatMul"]


def traced(source: Path, recipe: Precision, feeds: dict, **options: int) -> tuple[list, Path]:
    calibration = [batch(onnx.load(source), 8, seed) for seed in (1, 2)]
    typed = precision.convert(source, recipe, calibration, source.with_name("typed.onnx")).path
    return precision.measure_layer_errors(source, typed, recipe, feeds, **options), typed


def test_the_planted_layer_has_the_largest_share(tmp_path: Path) -> None:
    onnx.save(planted(), tmp_path / "net.onnx")
    feeds = batch(planted(), 4, 0)
    found, _ = traced(tmp_path / "net.onnx", INT8, feeds)
    parts = node_table.shares(found)
    worst = found[int(np.argmax(parts))]
    assert worst.node == matmuls(planted())[BAD]
    assert max(parts) > 0.9
    assert sum(parts) == pytest.approx(1)
    assert node_table.first_below(found, 20).node == worst.node
    relus = [item for item in found if item.op == "Relu"]
    assert all(item.local_noise_ratio == 0 for item in relus), "a Relu that is not quantised adds nothing"
    assert relus[-1].output_noise_ratio > 0.1, "and hands the error on"


@pytest.mark.parametrize("recipe", [INT8, FP16, Precision(name="bf16", dtype="bf16")])
@pytest.mark.parametrize("name", ["transformer", "matrices", "resizer", "cnn"])
def test_what_is_carried_to_the_end_is_the_error_of_the_whole(name: str, recipe: Precision, tmp_path: Path) -> None:
    source, feeds = save(name, tmp_path), batch(NETWORKS[name](), 4, 0)
    recipe = dataclasses.replace(recipe, quantize_ops=("Conv", "MatMul", "Gemm") if recipe == INT8 else ())
    found, typed = traced(source, recipe, feeds)
    precision.emulate(typed, tmp_path / "emulated.onnx")
    whole = passes.against_fp32(source, feeds, reference.run(tmp_path / "emulated.onnx", feeds))
    last = found[-1]
    assert last.tensor == "y"
    assert -10 * math.log10(last.output_noise_ratio) == pytest.approx(whole["sqnr_db"], abs=0.2)
    in_chunks, _ = traced(source, recipe, feeds, chunk_bytes=1)
    assert [dataclasses.astuple(item) for item in in_chunks] == [dataclasses.astuple(item) for item in found]


def test_a_node_by_itself_errs_as_it_does_on_the_references_inputs(tmp_path: Path) -> None:
    """Held against numpy: the product of the fp32 graph's own input with rounded operands."""
    onnx.save(planted(), tmp_path / "net.onnx")
    feeds = batch(planted(), 4, 0)
    found, typed = traced(tmp_path / "net.onnx", INT8, feeds)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(typed).graph.initializer}
    weights = {item.name: numpy_helper.to_array(item) for item in planted().graph.initializer}
    x = feeds["x"]
    scale = stored["x__scale"]
    rounded = np.clip(np.rint(x / scale), -127, 127) * scale
    first = next(node for node in planted().graph.node if node.op_type == "MatMul")
    weight = weights[first.input[1]]
    step = np.abs(weight).max() / 127
    wrong = rounded @ (np.clip(np.rint(weight / step), -127, 127) * step) - x @ weight
    expected = float((wrong**2).sum() / ((x @ weight) ** 2).sum())
    assert found[0].local_noise_ratio == pytest.approx(expected, rel=1e-3)
    assert found[0].output_noise_ratio == pytest.approx(expected, rel=1e-3)
    assert found[0].input_noise_ratio == 0


def test_overflow_is_named_as_not_finite(tmp_path: Path) -> None:
    g = Author()
    loud = g.op("Mul", "x", g.const(np.float32(60_000)))
    calm = g.op("Div", g.op("Mul", loud, g.const(np.float32(4))), g.const(np.float32(2.4e5)))
    wide = {"x": (TensorProto.FLOAT, ["batch", 16])}
    onnx.save(g.model(g.op("MatMul", calm, g.weight(16, 4)), wide, ["batch", 4]), tmp_path / "loud.onnx")
    found, _ = traced(tmp_path / "loud.onnx", FP16, {"x": np.ones((2, 16), np.float32)})
    assert node_table.first_below(found, 20).op == "Mul"
    assert math.isinf(found[1].local_noise_ratio)
    assert [part for part in node_table.shares(found) if part]
    assert node_table.json_row(found[1], 0.5)["finite"] is False
    json.dumps([node_table.json_row(item, 0.0) for item in found], allow_nan=False)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """The record of the planted network in int8, its cache beside it."""
    onnx.save(planted(), tmp_path / "net.onnx")
    ref = ModelRef(name="net", path=str(tmp_path / "net.onnx"), digest=file_digest(tmp_path / "net.onnx"))
    variant = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=ref, precision=INT8),
        engine=EngineAxes(batch=2),
        load=LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=3, max_s=0.5),
    )
    results = tmp_path / "results"
    (results / "s").mkdir(parents=True)
    found = passes.measured(variant, results, samples=tmp_path / "s.npz")
    made = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        engine=found["engine"],
        accuracy=found["accuracy"],
    )
    store.Store(results / "s").write(made)
    return store.Store(results / "s").record_path(made.key)


def test_from_a_record(measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert commands.main(["bisect", str(measured), "--rows", "2", "--json", str(tmp_path / "rows.json")]) == 0
    printed = capsys.readouterr().out
    bad = matmuls(planted())[BAD]
    assert bad in printed
    assert "net int8 b2 s1: " in printed
    assert "First below 6 dB" in printed or "No node is below 6 dB" in printed
    told = record_file.read(measured).accuracy["sqnr_db"]
    assert f"the record has {told:.1f} dB over all outputs at batch 2" in printed
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert max(rows, key=lambda row: row["share"])["node"] == bad
    assert rows[-1]["sqnr_out_db"] == pytest.approx(told, abs=0.2)


def test_a_bad_command_is_one_line(measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plain = json.loads(measured.read_text())
    plain["variant"]["precision_recipe"] = {"name": "fp32", "dtype": "fp32"}
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / measured.name).write_text(json.dumps(plain))
    (tmp_path / "junk.json").write_text("{")
    for words, line in (
        ([str(tmp_path / "gone.json")], "gone.json cannot be read: No such file"),
        ([str(tmp_path / "junk.json")], "junk.json is damaged"),
        (
            [str(tmp_path / "plain" / measured.name)],
            "fp32 is the fp32 graph itself, no node differs; take a converted one",
        ),
        ([str(measured), "--row", "3"], "unrecognized arguments: --row 3"),
        ([str(measured), "--rows", "three"], "--rows: three is not an integer of 1 or more"),
        ([str(measured), "--rows", "0"], "--rows: 0 is not an integer of 1 or more"),
        ([str(measured), "--gate-db", "nan"], "--gate-db: nan is not a number of dB"),
        (["--rows", "3"], "the following arguments are required: RECORD"),
        ([], "the following arguments are required: RECORD"),
    ):
        assert commands.main(["bisect", *words]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1


STRANGER = "open('ran', 'a').close()\ndef call(*_): raise ValueError\n"


@pytest.mark.fault
@pytest.mark.parametrize("key", ["graph", "model.calibration", "model.labels"])
def test_a_function_that_a_record_names_runs_only_if_its_user_names_it_too(
    key: str, measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEP_ALLOW", raising=False)
    name = f"stranger_{key.rpartition('.')[2]}"
    (tmp_path / f"{name}.py").write_text(STRANGER)
    plain = json.loads(measured.read_text())

    def asks(digest: str | None, *words: str, form: str = "name") -> str:
        data = {"kind": "function", "name": None, "path": None, form: f"{name}:call", "digest": digest}
        if key == "graph":
            plain["variant"] |= {"graph": f"{name}:call", "graph_digest": digest}
        elif key == "model.calibration":
            plain["variant"]["calibration"] = data
        else:
            plain["variant"]["load"]["labels"] = data | {"output": "y", "classes": 32}
        measured.write_text(json.dumps(plain))
        assert commands.main(["bisect", str(measured), *words]) in {1, 2}
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    right = user_code.digest(key, f"{name}:call")
    line = f"{key}={name}:call stands in a record, and functions run only if you name them: add --allow {name}:call"
    assert line in asks(right)
    assert "does not state the sha256 of its source" in asks(None, "--allow", f"{name}:call")
    if key != "graph":
        assert line in asks(right, form="path")
    assert "its source has changed since it was planned" in asks("0" * 64, "--allow", f"{name}:call")
    assert not (tmp_path / "ran").exists()
    if key != "model.labels":  # the inputs of the labels are read by a function of their own
        asks(right, "--allow", f"{name}:call")
        assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("batch", "x"), ("model_ref", 5), ("precision_recipe", {"a": "\x1b[31m"}), ("seed", None)]
)
def test_a_variant_that_cannot_be_made_again_is_one_line(
    field: str, value: object, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_file.read(measured)
    with pytest.raises(ConfigError, match="its record does not say how its graph is made") as caught:
        trace.of_record(dataclasses.replace(record, variant=record.variant | {field: value}))
    assert str(caught.value).isprintable()
    bare = dataclasses.replace(record, variant={"label": "x"})
    with pytest.raises(ConfigError, match="x: its record does not say how its graph is made"):
        trace.of_record(bare)


def test_a_model_that_is_gone_is_one_line(measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "net.onnx").unlink()
    assert commands.main(["bisect", str(measured)]) == 1
    said = capsys.readouterr().err
    assert "net.onnx: No such file" in said
    assert said.count("\n") == 1

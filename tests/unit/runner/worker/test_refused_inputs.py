"""Networks that refuse the batch or the sizes that they were given, whatever stage meets it first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import onnx
import passes
import pytest
from authored_graphs import Author
from onnx import TensorProto

from sweep import models
from sweep.errors import ModelError, SessionError
from sweep.spec import EngineAxes, InputFix, LoadAxes, ModelRef, OnnxAxes, Precision, Variant

if TYPE_CHECKING:
    from pathlib import Path

QUICK = LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=1, max_s=0.1)
FP32 = Precision(name="fp32", dtype="fp32")
INT8 = Precision(name="int8", dtype="int8", quantize_ops=("Conv", "MatMul"), calibration_batches=1)


def voice(folder: Path, opset: int = 20) -> Path:
    """A filter of 192 samples over a signal of any length, as in a voice detector."""
    g = Author()
    framed = g.op("Reshape", "x", g.const(np.int64([0, 1, -1])))
    last = g.op("Conv", framed, g.weight(4, 1, 192), strides=[64])
    onnx.save(g.model(last, {"x": (TensorProto.FLOAT, ["batch", "n"])}, None, opset), folder / "voice.onnx")
    return folder / "voice.onnx"


def one_by_one(folder: Path, opset: int = 20) -> Path:
    """A file that declares any batch and takes 1."""
    g = Author()
    flat = g.op("Reshape", g.op("MatMul", "x", g.weight(16, 4)), g.const(np.int64([1, 4])))
    onnx.save(g.model(flat, {"x": (TensorProto.FLOAT, ["batch", 16])}, None, opset), folder / "single.onnx")
    return folder / "single.onnx"


def of(path: Path, recipe: Precision, batch: int, *fixes: InputFix) -> Variant:
    model = ModelRef(name=path.stem, path=str(path), digest=models.file_digest(path), inputs=fixes)
    onnx_axes = OnnxAxes(model=model, precision=recipe)
    return Variant(backend="onnxruntime", onnx=onnx_axes, engine=EngineAxes(batch=batch), load=QUICK)


@pytest.mark.parametrize(("recipe", "opset"), [(FP32, 20), (INT8, 20), (FP32, 11)])
def test_sizes_that_a_network_refuses_are_said_to_be_the_users_to_choose(
    recipe: Precision, opset: int, tmp_path: Path
) -> None:
    path = voice(tmp_path, opset)
    with pytest.raises(
        ModelError, match=r"voice does not run with x=\[batch,128\]: .*; these sizes are yours to choose"
    ):
        passes.measured(of(path, recipe, 2, InputFix(name="x", shape=("batch", 128))), tmp_path)
    if recipe is FP32:
        passes.measured(of(path, recipe, 2, InputFix(name="x", shape=("batch", 256))), tmp_path)


@pytest.mark.parametrize("opset", [20, 11])
def test_a_batch_that_a_network_refuses_is_told_from_a_broken_file(opset: int, tmp_path: Path) -> None:
    path = one_by_one(tmp_path, opset)
    with pytest.raises(ModelError, match=r"single runs at batch 1 and not at batch 2, .*: ask for batch=1$"):
        passes.measured(of(path, FP32, 2), tmp_path)
    passes.measured(of(path, FP32, 1), tmp_path)


def test_ids_beyond_a_table_are_told_of_the_range(tmp_path: Path) -> None:
    g = Author()
    last = g.op("Gather", g.weight(4, 3), "ids")
    onnx.save(g.model(last, {"ids": (TensorProto.INT64, ["batch"])}, None), tmp_path / "table.onnx")
    with pytest.raises(ModelError, match=r"table does not run on these inputs: .*; give the range of its inputs"):
        passes.measured(of(tmp_path / "table.onnx", FP32, 2, InputFix(name="ids", low=9, high=9)), tmp_path)


def test_an_operator_that_a_library_lacks_in_fp16_is_advised_to_be_kept(tmp_path: Path) -> None:
    g = Author()
    hidden = g.op("MatMul", "x", g.weight(4, 4))
    last = g.op("ScatterElements", hidden, g.const(np.int64([[0, 0, 1, 1]])), hidden, axis=1, reduction="add")
    onnx.save(g.model(last, {"x": (TensorProto.FLOAT, [1, 4])}, [1, 4]), tmp_path / "sums.onnx")
    fp16 = Precision(name="fp16", dtype="fp16")
    with pytest.raises(SessionError, match=r"the fp32 network runs, so keep .*: precision.keep=\[ScatterElements\]$"):
        passes.measured(of(tmp_path / "sums.onnx", fp16, 1), tmp_path)
    kept = dataclasses.replace(fp16, keep=("ScatterElements",))
    assert passes.measured(of(tmp_path / "sums.onnx", kept, 1), tmp_path)["accuracy"]["sqnr_db"] > 40


def test_an_error_that_has_nothing_to_do_with_the_inputs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise SessionError("no memory")

    monkeypatch.setattr("sweep.backends.onnxruntime.backend.OnnxRuntime.load", load)
    with pytest.raises(SessionError, match="no memory"):
        passes.measured(of(one_by_one(tmp_path), FP32, 1), tmp_path)

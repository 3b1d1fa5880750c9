"""Files in operator sets of years ago: real ones, written by hand in opset 7 and 9."""

import json
from pathlib import Path

import factories
import numpy as np
import onnx
import passes
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep import models
from sweep.errors import ModelError
from sweep.runner.worker import artifacts, model_files, reference
from sweep.spec import LoadAxes, ModelRef, Variant
from sweep.storage.cache import Cache
from sweep.system import onnx_files

QUICK = LoadAxes(kind="closed", warmup_s=0.02, min_s=0.05, min_requests=20, max_s=0.5)
RNG = np.random.default_rng(0)


def old_cnn(opset: int) -> onnx.ModelProto:
    """A CNN as PyTorch 0.4 exported it: weights among the inputs, batch norm, sums and squeezes with attributes."""
    shapes = {"w1": (8, 3, 3, 3), "s": (8,), "b": (8,), "m": (8,), "w2": (8, 5), "c": (5,)}
    values = {name: RNG.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    values["v"] = np.ones(8, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h1"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["h1", "s", "b", "m", "v"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("MaxPool", ["h3"], ["h4"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceSum", ["h4"], ["h5"], axes=[2], keepdims=1),
        helper.make_node("ReduceMean", ["h5"], ["h6"], axes=[3], keepdims=1),
        helper.make_node("Squeeze", ["h6"], ["h7"], axes=[2, 3]),
        helper.make_node("Dropout", ["h7"], ["h8"], ratio=0.5),
        helper.make_node("Gemm", ["h8", "w2", "c"], ["h9"]),
        helper.make_node("Softmax", ["h9"], ["y"], axis=1),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in values.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    inputs += [helper.make_tensor_value_info(item.name, TensorProto.FLOAT, list(item.dims)) for item in stored]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])]
    made = helper.make_graph(nodes, "old", inputs, outputs, stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


def asked(path: Path, precision: str = "fp32") -> Variant:
    ref = ModelRef(name=path.stem, path=str(path), digest=models.file_digest(path))
    quantised = {"quantize_ops": ("Conv", "Gemm"), "calibration_batches": 1} if precision == "int8" else {}
    return factories.variant(ref, factories.recipe(precision, **quantised), batch=2, load=QUICK)


@pytest.mark.parametrize("opset", [7, 9])
def test_it_is_upgraded_once_and_computes_the_same(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    onnx.save(old_cnn(opset), path)
    variant, cache = asked(path), Cache(tmp_path / "cache")
    found = model_files.model_file(variant, cache)
    assert models.opset(path) == opset
    assert models.opset(found) == models.LEAST_OPSET
    assert model_files.model_file(variant, cache) == found
    feeds = models.draw(models.signature(variant.onnx.model), 4, 1)
    assert list(feeds) == ["x"]
    np.testing.assert_allclose(reference.run(found, feeds)["y"], reference.run(path, feeds)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_record_says_so(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    onnx.save(old_cnn(9), path)
    found = passes.measured(asked(path, precision), tmp_path, cache=tmp_path / "c")
    assert found["mismatch"] is None
    assert found["model"]["opset"] == 13
    assert found["model"]["opset_of_file"] == 9
    assert found["model"]["parameters"] == models.parameters(path)
    assert "old is of opset 9: upgraded to 13 by onnx.version_converter" in found["realised"]["notes"]
    assert json.loads(json.dumps(found)) == found


def test_a_file_that_is_new_enough_stays_as_it_is(tmp_path: Path) -> None:
    path, model = tmp_path / "new.onnx", onnx.version_converter.convert_version(old_cnn(9), 13)
    del model.graph.input[1:]
    onnx.save(model, path)
    assert model_files.model_file(asked(path), Cache(tmp_path / "cache")) == path


def test_weights_among_the_inputs_are_hidden_whatever_the_opset(tmp_path: Path) -> None:
    """With them there, a converter leaves inputs behind that nobody feeds."""
    path, model = tmp_path / "fed.onnx", onnx.version_converter.convert_version(old_cnn(9), 17)
    assert len(model.graph.input) == 8
    model.ir_version = 8
    onnx.save(model, path)
    found = passes.measured(asked(path, "bf16"), tmp_path, cache=tmp_path / "c")
    assert (found["model"]["opset"], found["model"]["opset_of_file"]) == (17, None)
    assert not any("opset" in note for note in found["realised"]["notes"])
    assert found["accuracy"]["sqnr_db"] > 15


def test_a_file_that_cannot_be_upgraded_says_why_in_one_line(tmp_path: Path) -> None:
    path, model = tmp_path / "old.onnx", old_cnn(9)
    model.graph.node[2].op_type = "Experimental"
    onnx.save(model, path)
    with pytest.raises(
        ModelError, match=r"cannot be upgraded to opset 13 by onnx.version_converter: .*Experimental"
    ) as error:
        model_files.model_file(asked(path), Cache(tmp_path / "cache"))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not list((tmp_path / "cache" / "models").glob("*/model.onnx"))


def newest(ir_version: int, folder: Path) -> Path:
    """A file of today's onnx in a recent opset, and in a version of the format."""
    path, model = folder / "newest.onnx", onnx.version_converter.convert_version(old_cnn(9), 17)
    del model.graph.input[1:]
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_of_todays_onnx_runs_although_onnxruntime_is_older(precision: str, tmp_path: Path) -> None:
    path = newest(onnx.IR_VERSION, tmp_path)
    with pytest.MonkeyPatch.context() as patch:  # as if the installed one read less, whatever is installed
        patch.setattr(onnx_files, "_reads", lambda version: version < onnx.IR_VERSION)
        onnx_files.readable_ir_version.cache_clear()
        found = model_files.model_file(asked(path, precision), Cache(tmp_path / "cache"))
        onnx_files.readable_ir_version.cache_clear()
    assert onnx.load(found).ir_version == onnx.IR_VERSION - 1
    feeds = models.draw(models.signature(asked(path).onnx.model), 2, 0)
    (output,) = reference.run(found, feeds).values()
    assert output.shape == (2, 5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_of_a_format_that_nothing_here_knows_is_refused_alike(precision: str, tmp_path: Path) -> None:
    path = newest(99, tmp_path)
    with pytest.raises(ModelError) as error:
        artifacts.make_onnx(asked(path, precision), Cache(tmp_path / "cache"))
    readable = onnx_files.readable_ir_version()
    assert f"IR version 99: onnx {onnx.__version__} knows versions up to {onnx.IR_VERSION}" in str(error.value)
    assert f"reads them up to {readable} (its max supported IR version)" in str(error.value)
    assert f"set model.ir_version = {readable}" in str(error.value)

"""The emulated graph takes and gives what the typed graph does, and rounds where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from authored_graphs import Author, batch
from onnx import TensorProto, helper, numpy_helper

from sweep.precision import convert, emulate
from sweep.runner.worker import reference
from sweep.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path


def half_file(folder: Path) -> Path:
    """A file whose input, weight and output are float16; a branch and a node read the input and the output."""
    inner = [
        helper.make_graph(
            [helper.make_node(op, ["x"], [f"{op}_y"], name=op)],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT16, None)],
        )
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("If", ["yes"], ["a"], name="if", then_branch=inner[0], else_branch=inner[1]),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="product"),
        helper.make_node("Mul", ["y", "y"], ["z"], name="square"),
    ]
    weight = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float16)
    stored = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([True]), "yes")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 16])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", 4]) for name in "yz"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], outputs, stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, folder / "half.onnx")
    return folder / "half.onnx"


def test_a_file_with_float16_inputs_and_outputs_keeps_them(tmp_path: Path) -> None:
    source = half_file(tmp_path)
    assert emulate(source, tmp_path / "e.onnx") > 0
    onnx.checker.check_model(tmp_path / "e.onnx", full_check=True)
    x = np.random.default_rng(1).standard_normal((2, 16)).astype(np.float16)
    typed, emulated = (reference.run(path, {"x": x}) for path in (source, tmp_path / "e.onnx"))
    assert {name: value.dtype for name, value in emulated.items()} == {"y": np.float16, "z": np.float16}
    weight = numpy_helper.to_array(onnx.load(source).graph.initializer[0]).astype(np.float32)
    y = (np.maximum(x, 0).astype(np.float32) @ weight).astype(np.float16)
    np.testing.assert_allclose(emulated["y"], y, rtol=2e-3)
    np.testing.assert_allclose(emulated["z"], typed["z"], rtol=5e-3)


def test_float_io_gives_float32_under_the_same_names(tmp_path: Path) -> None:
    emulate(half_file(tmp_path), tmp_path / "e.onnx", float_io=True)
    found = reference.run(tmp_path / "e.onnx", {"x": np.full((1, 16), 1 + 2**-12, np.float32)})
    exact = reference.run(tmp_path / "e.onnx", {"x": np.ones((1, 16), np.float32)})
    assert found["y"].dtype == np.float32
    np.testing.assert_array_equal(found["y"], exact["y"], "the input is rounded to float16 first")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_conversion_without_float32_io_is_emulated_under_its_own_names(dtype: str, tmp_path: Path) -> None:
    g = Author()
    model = g.model(g.op("MatMul", "x", g.weight(16, 8)), {"x": (TensorProto.FLOAT, ["batch", 16])}, ["batch", 8])
    onnx.save(model, tmp_path / "a.onnx")
    recipe = Precision(name=dtype, dtype=dtype, keep_io=False)
    typed = convert(tmp_path / "a.onnx", recipe, [], tmp_path / "b.onnx").path
    emulate(typed, tmp_path / "c.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "c.onnx", providers=["CPUExecutionProvider"])
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    kind = {"fp16": "tensor(float16)", "bf16": "tensor(float)"}[dtype]
    assert (x.name, x.type, y.name, y.type) == ("x", kind, "y", kind)
    feed = batch(model, 2, 0)
    found = session.run(None, {"x": feed["x"].astype(np.float16 if dtype == "fp16" else np.float32)})[0]
    expected = reference.run(tmp_path / "a.onnx", feed)["y"]
    assert np.abs(found - expected).max() < 0.05

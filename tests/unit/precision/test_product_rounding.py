"""Versions of a graph that show what rounding does: TF32's operands, sums in the reverse order, random operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import authored_graphs
import numpy as np
import onnx
import pytest

from sweep import precision
from sweep.analysis import accuracy
from sweep.runner.worker import reference

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = onnx.TensorProto.FLOAT


def to_tf32(value: np.ndarray) -> np.ndarray:
    """Round float32 to 10 bits of mantissa, to nearest even, on its bits."""
    bits = value.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = bits + 0xFFF + ((bits >> 13) & 1)
    return (rounded & 0xFFFFE000).astype(np.uint32).view(np.float32)


def saved(folder: Path, author: authored_graphs.Author, last: str, width: int, output: list) -> Path:
    onnx.save(author.model(last, {"x": (FLOAT, ["batch", width])}, output), folder / "m.onnx")
    return folder / "m.onnx"


def test_tf32s_operands_are_rounded_as_on_their_bits(tmp_path: Path) -> None:
    """An identity as the second operand hands on what became of the first, bit by bit."""
    author = authored_graphs.Author()
    path = saved(tmp_path, author, author.op("MatMul", "x", author.const(np.eye(8, dtype=np.float32))), 8, ["batch", 8])
    assert precision.round_products(path, tmp_path / "tf32.onnx") == 2
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 8)) * 10.0 ** rng.integers(-20, 20, (500, 8))).astype(np.float32)
    x[0] = [1, 1 + 2**-11, 1 + 3 * 2**-11, 1 - 2**-12, -1 - 2**-11, 0, 65504, 1 + 2**-10]  # halves go to even
    outputs = reference.runner(tmp_path / "tf32.onnx", optimize=False)({"x": x})
    assert np.array_equal(outputs["y"], to_tf32(x))
    assert not np.array_equal(outputs["y"], x)


def test_weights_are_rounded_too_and_sums_are_not(tmp_path: Path) -> None:
    author = authored_graphs.Author()
    weight = author.rng.standard_normal((64, 4)).astype(np.float32)
    path = saved(tmp_path, author, author.op("MatMul", "x", author.const(weight)), 64, ["batch", 4])
    precision.round_products(path, tmp_path / "tf32.onnx")
    x = author.rng.standard_normal((8, 64)).astype(np.float32)
    outputs = reference.runner(tmp_path / "tf32.onnx", optimize=False)({"x": x})
    wide = to_tf32(x).astype(np.float64) @ to_tf32(weight).astype(np.float64)
    assert accuracy.errors({"y": wide}, outputs)["sqnr_db"] > 120
    assert 50 < accuracy.errors({"y": x.astype(np.float64) @ weight}, outputs)["sqnr_db"] < 80


@pytest.mark.parametrize("name", ["cnn", "gemm"])
def test_reversed_sums_are_the_same_function_with_other_roundings(tmp_path: Path, name: str) -> None:
    if name == "cnn":
        model, feeds = authored_graphs.cnn(), {"x": (2, 3, 16, 16)}
        onnx.save(model, path := tmp_path / "m.onnx")
    else:
        author, feeds = authored_graphs.Author(), {"x": (2, 64)}
        hidden = author.op("Gemm", "x", author.weight(32, 64), transB=1)
        path = saved(tmp_path, author, author.op("MatMul", hidden, author.weight(32, 5)), 64, ["batch", 5])
    assert precision.reverse_sums(path, tmp_path / "reversed.onnx") >= 2
    rng = np.random.default_rng(0)
    inputs = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in feeds.items()}
    found = accuracy.errors(reference.run(path, inputs), reference.run(tmp_path / "reversed.onnx", inputs))
    assert found["sqnr_db"] > 110, "the function is the same; None would say that the order did not change"


def test_a_network_without_products_has_nothing_to_change(tmp_path: Path) -> None:
    author = authored_graphs.Author()
    path = saved(tmp_path, author, author.op("Relu", "x"), 8, ["batch", 8])
    assert precision.round_products(path, tmp_path / "tf32.onnx") == 0
    assert precision.reverse_sums(path, tmp_path / "reversed.onnx") == 0


@pytest.mark.parametrize(
    ("op", "inputs", "names"),
    [
        ("RandomUniformLike", [], ["RandomUniformLike"]),
        ("Dropout", [np.float32(0.5), np.bool_(1)], ["Dropout"]),
        ("Dropout", [], []),
        ("Relu", [], []),
    ],
)
def test_operators_that_draw_random_numbers_are_named(tmp_path: Path, op: str, inputs: list, names: list[str]) -> None:
    author = authored_graphs.Author()
    last = author.op(op, "x", *(author.const(value) for value in inputs))
    assert precision.random_ops(saved(tmp_path, author, last, 8, ["batch", 8])) == names

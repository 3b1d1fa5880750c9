"""Multiply-adds of single operators by hand, and graphs that cannot be counted; the zoo's are in test_models_zoo."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep.models import cost

FLOAT = TensorProto.FLOAT
Sizes = dict[str, tuple[int, ...]]


def graph(
    tmp_path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], weights: Sizes, **more: Any
) -> Path:
    """A file with those nodes, whose last output is the graph's."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)],
            [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)],
        ir_version=10,
        **more,
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return path


def macs(tmp_path: Path, nodes: list[onnx.NodeProto], inputs: Sizes, weights: Sizes) -> float | None:
    path = graph(tmp_path, nodes, {name: ["batch", *shape[1:]] for name, shape in inputs.items()}, weights)
    gmacs = cost(path, inputs).gmacs
    return None if gmacs is None else round(gmacs * 1e9, 3)


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


@pytest.mark.parametrize(
    ("made", "inputs", "weights", "expected"),
    [
        (node("MatMul", "x", "w"), {"x": (1, 7, 5)}, {"w": (5, 3)}, 7 * 5 * 3),
        (node("MatMul", "x", "w"), {"x": (1, 2, 7, 5)}, {"w": (2, 5, 3)}, 2 * 7 * 5 * 3),
        (node("MatMul", "x", "w"), {"x": (1, 5)}, {"w": (5,)}, 5),
        (node("Gemm", "x", "w", transB=1), {"x": (1, 5)}, {"w": (3, 5)}, 15),
        (node("Gemm", "w", "x", transA=1, transB=1), {"x": (1, 5)}, {"w": (5, 3)}, 15),
        (node("Conv", "x", "w", pads=[1] * 4), {"x": (1, 4, 8, 8)}, {"w": (6, 4, 3, 3)}, 6 * 64 * 4 * 9),
        (node("Conv", "x", "w", group=4, strides=[2, 2]), {"x": (1, 4, 8, 8)}, {"w": (4, 1, 2, 2)}, 4 * 16 * 4),
        (node("ConvTranspose", "x", "w", strides=[2, 2]), {"x": (1, 4, 8, 8)}, {"w": (4, 6, 2, 2)}, 4 * 64 * 6 * 4),
        (node("Einsum", "x", "w", equation="bij,jk->bik"), {"x": (1, 7, 5)}, {"w": (5, 3)}, 7 * 5 * 3),
        (node("Softmax", "x"), {"x": (1, 7, 5)}, {}, 0),
    ],
)
def test_an_operator(tmp_path: Path, made: onnx.NodeProto, inputs: Sizes, weights: Sizes, expected: int) -> None:
    assert macs(tmp_path, [made], inputs, weights) == expected


def test_a_recurrent_layer_multiplies_at_each_step(tmp_path: Path) -> None:
    made = helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=6)
    path = graph(tmp_path, [made, node("Relu", "h")], {"x": [9, "batch", 5]}, {"w": (1, 24, 5), "r": (1, 24, 6)})
    assert cost(path, {"x": (9, 1, 5)}).gmacs == pytest.approx(9 * (24 * 5 + 24 * 6) / 1e9)


def test_shapes_that_are_computed_in_the_graph_are_followed(tmp_path: Path) -> None:
    """As exporters write a flattening that keeps the batch: Shape, Slice, Concat, Reshape."""
    constants = {"start": [0], "end": [1], "rest": [-1]}
    nodes = [
        *(helper.make_node("Constant", [], [name], value_ints=ints) for name, ints in constants.items()),
        helper.make_node("Shape", ["x"], ["whole"]),
        helper.make_node("Slice", ["whole", "start", "end"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        node("MatMul", "flat", "w"),
    ]
    assert macs(tmp_path, nodes, {"x": (1, 4, 5)}, {"w": (20, 3)}) == 60


@pytest.mark.parametrize(
    "made",
    [
        node("MatMul", "x", "unknown"),
        node("Mystery", "x", domain="com.example"),
        node("Einsum", "x", "x", "x", equation="bi,bj,bk->b"),
        node("DeformConv", "x", "x", "x"),
    ],
)
def test_what_cannot_be_counted_is_null_and_never_a_guess(tmp_path: Path, made: onnx.NodeProto) -> None:
    found = cost(graph(tmp_path, [made], {"x": ["batch", 5]}, {"w": (5, 3)}), {"x": (1, 5)})
    assert found.gmacs is None
    assert found.parameters == 15


def test_a_product_of_unknown_size_makes_the_whole_null(tmp_path: Path) -> None:
    """NonZero gives as many rows as the data has, so what multiplies them is not known before it runs."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["rows"], to=FLOAT),
        helper.make_node("Transpose", ["rows"], ["turned"]),
        node("MatMul", "turned", "w"),
    ]
    assert macs(tmp_path, nodes, {"x": (1, 5)}, {"w": (2, 3)}) is None


@pytest.mark.parametrize("shape", [(), (2,)])
def test_operands_of_a_rank_that_the_operator_has_not_are_not_counted(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A file from elsewhere may declare them."""
    weights = {"w": (4, 3)}
    path = graph(tmp_path, [helper.make_node("MatMul", ["s", "w"], ["y"])], {"x": [4]}, weights | {"s": shape})
    assert cost(path, {"x": (4,)}).gmacs is None

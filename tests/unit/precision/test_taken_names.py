"""Tensors and nodes of a user's graph that are called as the converters call theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from user_files import FLOAT, measured, node, save, value, weight

from sweep.precision import convert, measure_layer_errors
from sweep.precision.canonical_form import canonicalize
from sweep.precision.onnx_graph import FreshNames
from sweep.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = [
    *("__fed", "__exact", "__16", "__round", "__widen", "_low", "_high", "_to_high", "_to_low", "__largest", "__size"),
    *("__count", "__whole", "__int8", "__scale", "__zero", "__off", "__noise", "__signal"),
    *("__mm_0_q", "__mm_0_dq", "__mm_1_dq", "_axisNone", "_axis1"),
]


def chained(path: Path, suffix: str) -> Path:
    """Multiply x, h and w beside tensors and nodes that have their names with the suffix, an input and output too."""
    names = [f"{name}{suffix}" for name in ("x", "h", "w", "y")]
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="mm"),
        node("Add", ["h", names[0]], [names[1]], name=f"x{suffix}"),
        node("MatMul", [names[1], names[2]], ["y"], name=f"h{suffix}"),
        node("Add", ["y", "w"], [names[3]], name=f"y{suffix}"),
    ]
    inputs = [value(name, FLOAT, ["batch", 4]) for name in ("x", names[0])]
    outputs = [value(name, FLOAT, None) for name in ("y", names[3])]
    return save(path, nodes, inputs, outputs, [weight("w", 4, 4), weight(names[2], 4, 4)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_taken_names_change_no_value(suffix: str, tmp_path: Path) -> None:
    path = chained(tmp_path / "net.onnx", suffix)
    for name, least_db in (("fp16", 40), ("int8", 15)):
        precision = Precision(name=name, dtype=name, quantize_ops=("MatMul",), calibration_batches=1)
        rng = np.random.default_rng(0)
        feeds = {key: rng.standard_normal((4, 4)).astype(np.float32) for key in ("x", f"x{suffix}")}
        typed = convert(path, precision, [feeds], tmp_path / f"{name}.onnx").path
        errors = {
            error.tensor: error.output_noise_ratio for error in measure_layer_errors(path, typed, precision, feeds)
        }
        assert {"h", f"h{suffix}", "y"} <= errors.keys()
        assert max(errors.values()) < 10 ** (-least_db / 10)


def test_taken_names_are_measured(tmp_path: Path) -> None:
    for suffix in ("_low", "__exact"):
        assert measured(chained(tmp_path / f"net{suffix}.onnx", suffix), "fp16", batch=4)["accuracy"]["sqnr_db"] > 40


def test_a_fresh_name_is_that_of_nothing_at_any_depth() -> None:
    inner = helper.make_graph([node("Neg", ["a"], ["b_"], name="n")], "i", [], [value("b_", FLOAT, None)])
    outer = helper.make_graph(
        [node("If", ["c"], ["y"], then_branch=inner, else_branch=inner, name="if")],
        "o",
        [value("c", onnx.TensorProto.BOOL, [])],
        [value("y", FLOAT, None)],
        [numpy_helper.from_array(np.ones(1, np.float32), "b")],
    )
    fresh = FreshNames(outer)
    assert [fresh.take(name) for name in ("b", "b", "n", "if", "free", "free")] == [
        *("b__", "b___", "n_", "if_", "free", "free_")
    ]


def test_node_names_are_unique_in_canonical_form() -> None:
    branches = [
        helper.make_graph([node("Neg", ["x"], [out], name="one")], "b", [], [value(out, FLOAT, None)]) for out in "pq"
    ]
    nodes = [
        node("Relu", ["x"], ["a"], name="one"),
        node("Relu", ["a"], ["b"], name="one"),
        node("Relu", ["b"], ["d"]),
        node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1], name="Relu_2"),
    ]
    inputs = [value("x", FLOAT, [2]), value("c", onnx.TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", FLOAT, [2]), value("d", FLOAT, [2])])
    model = canonicalize(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), ())
    assert [item.name for item in model.graph.node] == ["one", "one_1", "Relu_2_", "Relu_2"]
    inner = [attribute.g.node[0].name for attribute in model.graph.node[3].attribute]
    assert sorted(inner) == ["one_2", "one_3"]

"""Outputs and graphs that onnxruntime runs in ways of its own: no tensor, no node behind it, branches of float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from user_files import FLOAT, INT64, STRING, measured, node, save, value, weight

from sweep.errors import ConversionError

if TYPE_CHECKING:
    from pathlib import Path

X = [value("x", FLOAT, ["batch", 4])]
TENSOR = helper.make_tensor_type_proto(FLOAT, None)
CLASSIFIER = {
    "domain": "ai.onnx.ml",
    "coefficients": [float(i) for i in range(12)],
    "intercepts": [0.0] * 3,
    "post_transform": "SOFTMAX",
}
MAPS = helper.make_value_info("maps", helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, TENSOR)))
ML = (("", 17), ("ai.onnx.ml", 1))


def zipmap(path: Path) -> Path:
    nodes = [
        node("LinearClassifier", ["x"], ["label", "p"], classlabels_ints=[0, 1, 2], **CLASSIFIER),
        node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    return save(path, nodes, X, [value("label", INT64, [None]), MAPS], domains=ML)


def words(path: Path) -> Path:
    classes = node("LinearClassifier", ["x"], ["label", "p"], classlabels_strings=["a", "b", "c"], **CLASSIFIER)
    return save(path, [classes], X, [value("label", STRING, [None]), value("p", FLOAT, [None, 3])], domains=ML)


def ml_alone(path: Path) -> Path:
    classes = node("LinearClassifier", ["x"], ["label", "p"], classlabels_ints=[0, 1, 2], **CLASSIFIER)
    outputs = [value("label", INT64, [None]), value("p", FLOAT, [None, 3])]
    return save(path, [classes], X, outputs, domains=[("ai.onnx.ml", 1)])


def pieces(path: Path) -> Path:
    output = helper.make_value_info("s", helper.make_sequence_type_proto(TENSOR))
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("SplitToSequence", ["y"], ["s"], axis=1)]
    return save(path, nodes, X, [output, value("y", FLOAT, ["batch", 4])], [weight("w", 4, 4)])


def alias(path: Path) -> Path:
    outputs = [value(name, FLOAT, ["batch", 4]) for name in ("y", "x", "same")]
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Identity", ["x"], ["same"])]
    return save(path, nodes, X, outputs, [weight("w", 4, 4)])


def stored(path: Path) -> Path:
    outputs = [value("y", FLOAT, ["batch", 4]), value("w", FLOAT, [4, 4]), value("k", INT64, [2])]
    weights = [weight("w", 4, 4), numpy_helper.from_array(np.arange(2), "k")]
    return save(path, [node("MatMul", ["x", "w"], ["y"])], X, outputs, weights)


def empty(path: Path) -> Path:
    zero = numpy_helper.from_array(np.zeros(1, np.int64), "zero")
    nodes = [node("Slice", ["x", "zero", "zero"], ["none"]), node("MatMul", ["none", "w"], ["y"])]
    nodes.append(node("MatMul", ["x", "w"], ["z"]))
    outputs = [value("y", FLOAT, [None, 4]), value("z", FLOAT, ["batch", 4])]
    return save(path, nodes, X, outputs, [weight("w", 4, 4), zero])


def microsoft(path: Path) -> Path:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("FusedMatMul", ["h", "w"], ["g"], domain="com.microsoft", alpha=2.0),
    ]
    nodes.append(node("FastGelu", ["g"], ["y"], domain="com.microsoft"))
    domains = (("", 17), ("com.microsoft", 1))
    return save(path, nodes, X, [value("y", FLOAT, ["batch", 4])], [weight("w", 4, 4)], domains)


def branches(path: Path) -> Path:
    """Both branches of an If read an outer float tensor, in float16 each with a cast of the same name."""
    yes = helper.make_graph([node("Mul", ["t", "t"], ["o1"])], "yes", [], [value("o1", FLOAT, None)])
    no = helper.make_graph([node("Neg", ["t"], ["o2"])], "no", [], [value("o2", FLOAT, None)])
    nodes = [
        node("MatMul", ["x", "w"], ["t"]),
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        node("If", ["c"], ["y"], then_branch=yes, else_branch=no),
    ]
    return save(path, nodes, X, [value("y", FLOAT, ["batch", 4])], [weight("w", 4, 4)])


def loop(path: Path) -> Path:
    """The body of a Loop multiplies what it carries by an outer weight, and adds an outer tensor."""
    body = helper.make_graph(
        [node("MatMul", ["carried", "w"], ["m"]), node("Add", ["m", "t"], ["next"]), node("Identity", ["on"], ["go"])],
        "body",
        [value("i", INT64, []), value("on", TensorProto.BOOL, []), value("carried", FLOAT, ["batch", 4])],
        [value("go", TensorProto.BOOL, []), value("next", FLOAT, ["batch", 4])],
    )
    nodes = [node("MatMul", ["x", "w"], ["t"]), node("Loop", ["n", "", "t"], ["y"], body=body)]
    count = numpy_helper.from_array(np.asarray(2), "n")
    return save(path, nodes, X, [value("y", FLOAT, ["batch", 4])], [weight("w", 4, 4), count])


def scan(path: Path) -> Path:
    body = helper.make_graph(
        [node("MatMul", ["row", "w"], ["m"]), node("Add", ["m", "sum"], ["next"]), node("Relu", ["m"], ["out"])],
        "body",
        [value("sum", FLOAT, [4]), value("row", FLOAT, [4])],
        [value("next", FLOAT, [4]), value("out", FLOAT, [4])],
    )
    nodes = [node("Scan", ["zero", "x"], ["total", "y"], body=body, num_scan_inputs=1)]
    outputs = [value("total", FLOAT, [4]), value("y", FLOAT, ["batch", 4])]
    zero = numpy_helper.from_array(np.zeros(4, np.float32), "zero")
    return save(path, nodes, X, outputs, [weight("w", 4, 4), zero])


def deconvolution(path: Path) -> Path:
    image, outputs = [value("x", FLOAT, ["batch", 4, 6, 6])], [value("y", FLOAT, ["batch", 6, 13, 13])]
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2, name="up")]
    return save(path, nodes, image, outputs, [weight("w", 4, 3, 3, 3)])


def einsum(path: Path) -> Path:
    nodes = [node("Einsum", ["x", "w"], ["h"], equation="bi,ij->bj", name="ein"), node("MatMul", ["h", "v"], ["y"])]
    return save(path, nodes, X, [value("y", FLOAT, ["batch", 4])], [weight("w", 4, 4), weight("v", 4, 4)])


@pytest.mark.parametrize(
    ("write", "precision", "not_compared"),
    [
        (zipmap, "fp32", ["label", "maps"]),
        (words, "fp32", ["label"]),
        (ml_alone, "fp32", ["label"]),
        (pieces, "fp32", ["s"]),
        (pieces, "fp16", ["s"]),
        (pieces, "int8", ["s"]),
        (stored, "fp32", ["k"]),
        (stored, "fp16", ["k"]),
        (stored, "int8", ["k"]),
        (alias, "fp32", None),
        (alias, "fp16", None),
        (alias, "int8", None),
        (empty, "fp32", None),
        (empty, "fp16", None),
        (microsoft, "fp16", None),
        (microsoft, "int8", None),
        (branches, "fp32", None),
        (branches, "fp16", None),
        (branches, "int8", None),
        (branches, "bf16", None),
        (loop, "fp16", None),
        (loop, "int8", None),
        (loop, "bf16", None),
        (scan, "fp16", None),
        (scan, "bf16", None),
        (deconvolution, "fp16", None),
        (deconvolution, "int8_transposed", None),
        (einsum, "fp16", None),
        (einsum, "int8", None),
    ],
)
def test_it_is_measured_and_says_what_is_not_compared(write, precision, not_compared, tmp_path: Path) -> None:
    result = measured(write(tmp_path / "net.onnx"), precision)
    accuracy = result["accuracy"]
    assert accuracy.get("not_compared") == not_compared
    remark = f"not compared (no floats): {', '.join(not_compared or ())}"
    assert (remark in (accuracy["note"] or "")) == bool(not_compared)
    assert result["mismatch"] is None
    if write is not zipmap:
        assert accuracy["max_abs"] is not None
    assert accuracy["sqnr_db"] is None or accuracy["sqnr_db"] > 15


@pytest.mark.parametrize(
    ("write", "precision", "reason"),
    [
        (zipmap, "fp16", "LinearClassifier"),
        (words, "fp16", "LinearClassifier"),
        (ml_alone, "fp16", "LinearClassifier"),
        (empty, "int8", "none is empty over all calibration data"),
    ],
)
def test_what_it_cannot_be_is_refused_with_the_cause(write, precision, reason, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=reason):
        measured(write(tmp_path / "net.onnx"), precision)


def test_a_graph_that_cannot_be_saved_is_optimised_at_load(tmp_path: Path) -> None:
    result = measured(branches(tmp_path / "net.onnx"), "fp16")
    assert any(note.startswith("optimised at each load") for note in result["realised"]["notes"])
    assert not any(
        "each load" in note for note in measured(microsoft(tmp_path / "m.onnx"), "fp16")["realised"]["notes"]
    )


def test_int8_of_an_einsum_alone_is_refused_with_its_cause(tmp_path: Path) -> None:
    path = save(
        tmp_path / "net.onnx",
        [node("Einsum", ["x", "w"], ["y"], equation="bi,ij->bj")],
        X,
        [value("y", FLOAT, ["batch", 4])],
        [weight("w", 4, 4)],
    )
    cause = r"int8 compute, but .* computes in fp32 1: .*Conv, ConvTranspose, Gemm and MatMul"
    with pytest.raises(ConversionError, match=cause):
        measured(path, "int8")


def test_the_einsum_left_in_float_is_in_the_notes(tmp_path: Path) -> None:
    result = measured(einsum(tmp_path / "net.onnx"), "int8")
    assert "1 node kept in fp32: ein" in result["engine"]["onnx_notes"]

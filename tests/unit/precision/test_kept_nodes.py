"""Nodes that the recipe keeps: by name, pattern and op type, in every precision, and a word on what matches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from authored_graphs import NETWORKS, batch, save
from onnx import TensorProto

from sweep.errors import ConversionError
from sweep.precision import Conversion, check_label, convert, onnx_graph
from sweep.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

OPS = ("Conv", "MatMul", "Gemm")


def kept(network: str, folder: Path, dtype: str, *patterns: str, **more: object) -> Conversion:
    quantized = {"quantize_ops": OPS} if dtype in {"int8", "fp8"} else {}
    recipe = Precision(name=dtype, dtype=dtype, keep=patterns, **quantized, **more)
    feeds = [batch(NETWORKS[network](), 2, 0)]
    result = convert(save(network, folder), recipe, feeds, folder / "typed.onnx")
    check_label(result.path, recipe)
    return result


def fp32_nodes(path: Path) -> set[str]:
    """The nodes whose output is float32, besides Casts and pairs."""
    model = onnx_graph.infer_types(onnx.load(path))
    return {
        node.name
        for node, types in onnx_graph.typed_nodes(model.graph)
        if types.get(node.output[0]) == TensorProto.FLOAT
        and node.op_type not in {"Cast", "QuantizeLinear", "DequantizeLinear", "Identity"}
    }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("Gemm9", {"Gemm9"}),
        ("Conv[02]", {"Conv0", "Conv2"}),
        ("Relu*", {"Relu1", "Relu3", "Relu6"}),
        ("Conv", {"Conv0", "Conv2", "Conv4"}),
    ],
)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_name_a_pattern_and_an_op_type_stay_in_fp32(
    dtype: str, pattern: str, names: set[str], tmp_path: Path
) -> None:
    result = kept("cnn", tmp_path, dtype, pattern)
    assert fp32_nodes(result.path) == names
    plural = "node" if len(names) == 1 else "nodes"
    assert result.notes == (f"{len(names)} {plural} kept in fp32 by precision.keep: {', '.join(sorted(names))}",)
    assert result.compute_types["fp32"] == sum(name[:4] in {"Conv", "Gemm"} for name in names)
    assert result.guarded_nodes == ()


@pytest.mark.parametrize("rest", [None, "fp16", "bf16"])
@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_a_kept_product_is_not_quantized(dtype: str, rest: str | None, tmp_path: Path) -> None:
    result = kept("cnn", tmp_path, dtype, "Conv4", rest=rest)
    assert (result.compute_types[dtype], result.compute_types["fp32"]) == (3, 1)
    nodes = {node.name: node for node in onnx.load(result.path).graph.node}
    assert not any(name.endswith("_dq") for name in nodes["Conv4"].input)
    assert "1 node kept in fp32 by precision.keep: Conv4" in result.notes
    if rest:
        assert "Conv4" in fp32_nodes(result.path)


def test_several_patterns_and_the_guard_go_together(tmp_path: Path) -> None:
    result = kept("cnn", tmp_path, "fp16", "Gemm9", "Add", guard=True)
    assert fp32_nodes(result.path) == {"Gemm9", "Add5"}
    assert result.guarded_nodes == ()


def test_a_node_inside_a_branch_is_kept_with_or_without_a_name(tmp_path: Path) -> None:
    assert kept("branches", tmp_path, "fp16", "then_conv").compute_types["fp32"] == 1
    model = NETWORKS["branches"]()
    (chosen,) = (node for node in model.graph.node if node.op_type == "If")
    for attribute in chosen.attribute:
        attribute.g.node[0].name = ""
    onnx.save(model, tmp_path / "unnamed.onnx")
    recipe = Precision(name="fp16", dtype="fp16", keep=("Conv_0",))
    assert convert(tmp_path / "unnamed.onnx", recipe, [], tmp_path / "b.onnx").compute_types["fp32"] == 1


@pytest.mark.parametrize(("pattern", "nearest"), [("Gem9", "Gemm9"), ("conv4", "Conv4"), ("/head/*", "")])
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(
    pattern: str, nearest: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        kept("cnn", tmp_path, "fp16", "Conv0", pattern)
    start, _, names = str(caught.value).partition("; nearest: ")
    assert (
        start
        == f"cnn.onnx as fp16: precision.keep={pattern} is no node, no pattern of nodes and no op type of the graph"
    )
    assert len(names.split(", ")) == 3
    assert nearest in names
    assert "\n" not in names
    assert not (tmp_path / "typed.onnx").exists()


def test_keeping_everything_is_no_fp16(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"computes in fp32 4: keep fewer nodes in fp32 \(precision\.keep\)"):
        kept("cnn", tmp_path, "fp16", "*")


def test_the_function_is_the_same(tmp_path: Path) -> None:
    from sweep.runner.worker import reference

    feed = batch(NETWORKS["cnn"](), 2, 3)
    result = kept("cnn", tmp_path, "int8", "Conv0", rest="fp16")
    expected = reference.run(tmp_path / "cnn.onnx", feed)["y"]
    found = reference.run(result.path, feed)["y"]
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)

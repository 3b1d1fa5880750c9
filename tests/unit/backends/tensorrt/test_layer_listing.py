"""Layers of an engine's listing are joined to nodes, or named as the library's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest
import require
from factories import QUANTIZED, recipe, variant
from onnx import GraphProto, TensorProto, helper

from sweep.backends import registry
from sweep.backends.tensorrt import engine_inspector
from sweep.backends.tensorrt.layer_listing import describe_layers, reason_added, with_times
from sweep.runner.worker.artifacts import make_artifacts
from sweep.storage.cache import Cache
from sweep.system import onnx_shapes

if TYPE_CHECKING:
    from pathlib import Path


def graph() -> GraphProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv1"),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("Sigmoid", ["r"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    return helper.make_graph(nodes, "g", values[:1], values[1:])


def layer(name: str, kind: str = "kgen", nodes: tuple[str, ...] = (), **more: object) -> dict[str, object]:
    return {"Name": name, "LayerType": kind, "Metadata": "\x1f".join(f"[ONNX Layer: {item}]" for item in nodes), **more}


def test_a_product_is_no_node_of_what_prepares_its_input() -> None:
    """The listing names a convolution for the kernel that pads its input, too."""
    tensor = {"Name": "x", "Dimensions": [1, 3, 8, 8], "Datatype": "Half", "Format": "(NHWC) Channel major format"}
    information = {
        "Layers": [
            layer("__myl_CastConc_myl0_0", nodes=("conv1",)),
            layer("conv1_U0_myl0_1", "correlation", ("conv1", "relu1"), Inputs=[tensor], StreamId=1, TacticName="sm80"),
            layer("__myl_Sigm_myl0_2", nodes=("node_of_y",)),
            layer("__myl_Tran_myl0_3"),
            "a mere name",
        ]
    }
    layers = describe_layers(information, graph())
    assert [(item["nodes"], item["added"]) for item in layers] == [
        ([], "cast"),
        (["conv1", "relu1"], None),
        (["Sigmoid_2"], None),
        ([], "reformat"),
    ]
    assert layers[1]["inputs"] == [
        {"name": "x", "shape": [1, 3, 8, 8], "dtype": "fp16", "format": "(NHWC) Channel major format"}
    ]
    assert (layers[1]["stream"], layers[1]["tactic"], layers[0]["stream"]) == (1, "sm80", None)


def test_names_with_brackets_and_words_behind_a_name_are_read() -> None:
    renamed = graph()
    renamed.node[0].name = "block[0].conv"
    metadata = "[ONNX Layer: block[0].conv]__gemm_from_conv1x1\x1f[ONNX Layer: relu1][ONNX Layer: node_of_y]"
    (item,) = describe_layers({"Layers": [{"Name": "a", "LayerType": "gemm", "Metadata": metadata}]}, renamed)
    assert item["nodes"] == ["block[0].conv", "relu1", "Sigmoid_2"]


def test_an_older_listing_names_its_nodes_in_the_layers_name() -> None:
    information = {
        "Layers": [
            {
                "Name": "conv1 + relu1",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
            },
            {"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat"},
        ]
    }
    first, second = describe_layers(information, graph())
    assert (first["nodes"], second["added"]) == (["conv1", "relu1"], "reformat")
    assert (first["inputs"][0]["dtype"], first["inputs"][0]["shape"]) == ("fp16", None)
    assert describe_layers(information, None)[0]["added"] == "other"


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("kgen", "__myl_Cast_myl0_1", "cast"),
        ("kgen", "__myl_ReshTran_myl0_1", "reformat"),
        ("kgen", "__myl_Move_myl0_1", "copy"),
        ("kgen", "__myl_MoveConc_myl0_1", "copy"),
        ("kgen", "__myl_CastConc_myl0_1", "cast"),
        ("kgen", "__myl_MulAdd_myl0_1", "other"),
        ("Cast", "c", "cast"),
        ("Memcpy", "m", "copy"),
        ("signal", "s", "other"),
    ],
)
def test_what_no_node_asks_for_has_a_reason(kind: str, name: str, reason: str) -> None:
    assert reason_added(kind, name) == reason


def test_times_join_the_listing_by_name_and_what_does_not_match_is_told() -> None:
    layers = describe_layers({"Layers": [layer("a"), layer("b"), layer("a")]}, graph())
    assert [item["name"] for item in layers] == ["a", "b", "a#2"]
    times = {name: {"time": {"median_us": 1.0}, "kernels": []} for name in ("b", "a", "z")}
    joined, notes = with_times(layers, times)
    assert [(item["name"], item["time"] is None) for item in joined] == [
        ("b", False),
        ("a", False),
        ("z", False),
        ("a#2", True),
    ]
    assert notes == [
        "1 of 3 layers that ran are not in the engine's listing",
        "1 of 3 layers of the engine's listing were not timed",
    ]


def test_the_builders_listing_tells_shapes_and_formats() -> None:
    line = (
        "Name: a_0, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,3], Strides: [3,1], Datatype: Half, Format: "
        "(Arbitrary) Format with stride order = [1,0] }], Outputs: [ { Name: y, Datatype: Float }], TacticName: t, "
        "StreamId: 2, Metadata: [ONNX Layer: conv1][ONNX Layer: relu1]\n"
    )
    (item,) = describe_layers(engine_inspector.parse_listing(line), graph())
    form = "(Arbitrary) Format with stride order = [1,0]"
    assert item["inputs"] == [{"name": "x", "shape": [2, 3], "dtype": "fp16", "format": form}]
    assert item["outputs"] == [{"name": "y", "shape": None, "dtype": "fp32", "format": None}]
    assert (item["nodes"], item["stream"]) == (["conv1", "relu1"], 2)


@pytest.mark.parametrize(("network", "precision"), [("tiny_cnn", "fp16"), ("mlp", "int8")])
def test_every_layer_of_an_engine_that_rtx_builds_is_joined_or_named(
    tmp_path: Path, network: str, precision: str
) -> None:
    require.library_for("tensorrt_rtx")
    typed_as = recipe(precision, **(QUANTIZED if precision == "int8" else {}))
    asked = variant(network, typed_as, "tensorrt_rtx", batch=2, compute_capability="8.9")
    with Cache(tmp_path) as cache:
        made = make_artifacts(asked, registry.get("tensorrt_rtx"), cache)
        assert made.onnx is not None
        typed = onnx.load(made.onnx.typed).graph
        information = json.loads((made.engine.path / "inspector.json").read_text())
        layers = describe_layers(information, typed)
    assert layers
    assert all(item["nodes"] or item["added"] for item in layers)
    products = [
        name
        for name, node in zip(onnx_shapes.node_names(typed), typed.node, strict=True)
        if node.op_type in ("Conv", "MatMul", "Gemm")
    ]
    assert sorted(name for item in layers for name in item["nodes"] if name in products) == sorted(products)
    assert all(tensor["shape"] and tensor["dtype"] for item in layers for tensor in (*item["inputs"], *item["outputs"]))

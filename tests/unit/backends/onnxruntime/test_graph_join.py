"""Nodes of onnxruntime's optimised graphs are joined to the nodes that they were fused from."""

from __future__ import annotations

from onnx import GraphProto, NodeProto, TensorProto, helper

from sweep.backends.onnxruntime.graph_join import Joined, join


def graph(nodes: list[NodeProto], stored: tuple[str, ...] = ("w",)) -> GraphProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in stored]
    return helper.make_graph(nodes, "g", values[:1], values[1:], constants)


def node(op: str, inputs: list[str], outputs: list[str], name: str = "", **more: str) -> NodeProto:
    return helper.make_node(op, inputs, outputs, name=name, **more)


def test_a_fused_node_computes_all_between_its_tensors() -> None:
    typed = graph(
        [node("MatMul", ["x", "w"], ["a"], "product"), node("Add", ["a", "w"], ["b"]), node("Relu", ["b"], ["y"])]
    )
    optimised = graph([node("FusedGemm", ["x", "w", "w"], ["y"], "fused")])
    assert join(optimised, typed) == [Joined(["product", "Add_1", "Relu_2"], None)]


def test_what_constant_folding_removed_is_no_layers_and_what_is_still_read_is() -> None:
    """The scale of a weight is folded; a weight in int8 is read as it is, so that the layer computes its DQ."""
    typed = graph(
        [
            node("Mul", ["w", "w"], ["scale"], "folded"),
            node("DequantizeLinear", ["w8", "scale"], ["wd"], "dequantise"),
            node("Shape", ["x"], ["sizes"], "sizes"),
            node("Reshape", ["x", "sizes"], ["flat"], "reshape"),
            node("MatMul", ["flat", "wd"], ["y"], "product"),
        ],
        ("w", "w8"),
    )
    optimised = graph([node("QLinearMatMul", ["x", "w8"], ["y"], "fused")], ("w8",))
    assert join(optimised, typed) == [Joined(["dequantise", "reshape", "product"], None)]


def test_a_blocked_convolution_took_in_the_sum_and_the_activation_after_it() -> None:
    typed = graph(
        [
            node("Conv", ["x", "w"], ["a"], "first"),
            node("Relu", ["a"], ["r"], "relu"),
            node("Conv", ["r", "w"], ["c"], "second"),
            node("Add", ["c", "r"], ["s"], "sum"),
            node("Relu", ["s"], ["t"], "end"),
            node("Flatten", ["t"], ["y"], "flatten"),
        ]
    )
    optimised = graph(
        [
            node("Conv", ["x", "w", ""], ["reorder"], "r_nchwc", activation="Relu"),
            node("Conv", ["reorder", "w", "", "reorder"], ["reorder_1"], "c_nchwc", activation="Relu"),
            node("ReorderOutput", ["reorder_1"], ["t"], "ReorderOutput"),
            node("Flatten", ["t"], ["y"], "flatten"),
        ]
    )
    assert join(optimised, typed) == [
        Joined(["first", "relu"], None),
        Joined(["second", "sum", "end"], None),
        Joined([], "reformat"),
        Joined(["flatten"], None),
    ]


def test_what_no_node_asks_for_is_named() -> None:
    """A cast to the type of the kernels, a reordering on the way in, and a tensor that no graph had before."""
    typed = graph([node("Conv", ["x", "w"], ["y"], "conv")])
    optimised = graph(
        [
            node("Cast", ["x"], ["InsertedPrecisionFreeCast_x"], "InsertedPrecisionFreeCast_0"),
            node("ReorderInput", ["InsertedPrecisionFreeCast_x"], ["reordered"], "ReorderInput"),
            node("DequantizeLinear", ["w"], ["bias_dq"], "bias_dq"),
            node("Conv", ["reordered", "w", "bias_dq"], ["y"], "conv"),
        ]
    )
    assert [(item.nodes, item.added) for item in join(optimised, typed)] == [
        ([], "cast"),
        ([], "reformat"),
        ([], "other"),
        (["conv"], None),
    ]


def test_a_node_with_subgraphs_ends_where_they_read() -> None:
    branch = helper.make_graph(
        [node("Relu", ["a"], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    typed = graph([node("Abs", ["x"], ["a"], "abs"), node("Cast", ["x"], ["c"], "cast", to="7"), choice])
    assert [item.nodes for item in join(typed, typed)] == [["abs"], ["cast"], ["choice"]]


def test_the_parts_of_a_node_that_was_taken_apart_are_that_node() -> None:
    typed = graph([node("HardSwish", ["x"], ["y"], "swish")])
    optimised = graph([node("HardSigmoid", ["x"], ["gate"]), node("Mul", ["x", "gate"], ["y"])])
    assert join(optimised, typed) == [Joined(["swish"], None)] * 2
    typed = graph([node("Softmax", ["x"], ["y"], "softmax")])
    parts = [node("Exp", ["x"], ["e"]), node("ReduceSum", ["e"], ["sum"]), node("Div", ["e", "sum"], ["y"])]
    assert join(graph(parts), typed) == [Joined(["softmax"], None)] * 3

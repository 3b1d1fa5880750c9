"""Every refusal of typed_onnx: one line that says what was asked, what was found and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from authored_graphs import IMAGE, NETWORKS, Author, batch, save
from onnx import TensorProto, helper, numpy_helper

from sweep.errors import ConversionError, SweepError, UnsupportedError
from sweep.precision import cast, check_label, convert, count_compute_types, qdq_rules
from sweep.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

OPS = ("Conv", "MatMul", "Gemm")


def recipe(dtype: str, *ops: str) -> Precision:
    return Precision(name=dtype, dtype=dtype, quantize_ops=ops)


def feeds() -> list[dict[str, np.ndarray]]:
    return [batch(NETWORKS["cnn"](), 2, 0)]


def refused(source: Path, precision: Precision, calibration: list, folder: Path) -> str:
    """The one line of the refusal; nothing is left of the target."""
    target = folder / "target.onnx"
    with pytest.raises(SweepError) as caught:
        convert(source, precision, calibration, target)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["int4", "int2"])
def test_a_type_without_converter_is_unsupported(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"{dtype}.* is not converted by this version: take fp32, tf32, fp16"):
        convert(save("cnn", tmp_path), recipe(dtype, *OPS), feeds(), tmp_path / "target.onnx")


@pytest.mark.parametrize(
    ("precision", "calibration", "line"),
    [
        (recipe("fp32"), [], "precision fp32 is the fp32 graph itself: use that file"),
        (recipe("int8"), feeds(), "precision int8 quantizes nothing: set quantize_ops to some of Conv"),
        (recipe("int8", "Conv", "Softmax"), feeds(), "precision int8 quantizes Softmax: set quantize_ops"),
        (recipe("int8", *OPS), [], "got no calibration batches: set calibration_batches to 1 or more"),
        (recipe("int8", *OPS), [{}], "cnn.onnx as int8: ValueError: .*x"),
        (recipe("int8", "ConvTranspose"), feeds(), "asks for int8 compute, but .* computes in fp32 4: give a float32"),
        (
            recipe("int8", *OPS),
            [{"x": np.full((1, 3, 16, 16), np.nan, np.float32)}],
            "calibration batch 0 holds NaN or Inf in x: ",
        ),
    ],
)
def test_requests_that_cannot_be_met(precision: Precision, calibration: list, line: str, tmp_path: Path) -> None:
    assert re.search(line, refused(save("cnn", tmp_path), precision, calibration, tmp_path))


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    for content in (b"", b"not a graph"):
        path.write_bytes(content)
        assert re.search("junk.onnx cannot be read as ONNX: .*; export", refused(path, recipe("fp16"), [], tmp_path))


def test_a_source_of_another_type(tmp_path: Path) -> None:
    half = convert(save("cnn", tmp_path), recipe("fp16"), [], tmp_path / "half.onnx").path
    line = refused(half, recipe("int8", *OPS), feeds(), tmp_path)
    assert line.startswith("half.onnx as int8: the file already computes in fp16 4: give the float32 export")
    model = NETWORKS["cnn"]()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, tmp_path / "double.onnx")
    assert count_compute_types(tmp_path / "double.onnx")["fp64"] == 4
    assert "already computes in fp64 4" in refused(tmp_path / "double.onnx", recipe("fp16"), [], tmp_path)


def test_a_converted_graph_that_is_invalid_names_its_control_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = cast.cast_model

    def wrong(*given: object, **named: object) -> object:
        model, notes = right(*given, **named)
        (chosen,) = (node for node in model.graph.node if node.op_type == "If")
        chosen.attribute[0].g.node[0].input[0] = "nowhere"
        return model, notes

    monkeypatch.setattr(cast, "cast_model", wrong)
    line = refused(save("branches", tmp_path), recipe("fp16"), [], tmp_path)
    assert line.startswith("branches.onnx as fp16: the converted graph (with If) is not valid: ")
    assert line.endswith("or leave this precision out")


def test_a_file_that_is_not_valid_itself_is_no_fault_of_the_conversion(tmp_path: Path) -> None:
    g = Author()
    g.nodes.append(helper.make_node("NoSuchOp", [g.op("Conv", "x", g.weight(4, 3, 1, 1))], ["odd"], domain="acme"))
    model = g.model("odd", IMAGE, ["batch", 4, 16, 16])
    model.opset_import.add(domain="acme", version=1)
    onnx.save(model, tmp_path / "odd.onnx")
    line = refused(tmp_path / "odd.onnx", recipe("fp16"), [], tmp_path)
    assert line.startswith("odd.onnx as fp16: the file itself is not valid here: ")
    assert "acme:NoSuchOp(-1) is not a registered function/op; export it with an opset and operators that" in line


@pytest.mark.parametrize(
    ("carried", "label", "fits"),
    [
        ("fp32", "fp32", True),
        ("fp32", "tf32", True),
        ("fp32", "fp16", False),
        ("fp32", "int8", False),
        ("fp16", "fp16", True),
        ("fp16", "fp32", False),
        ("fp16", "tf32", False),
        ("int8", "int8", True),
        ("int8", "fp32", False),
        ("int8", "fp16", False),
        ("int8", "fp8", False),
        ("bf16", "bf16", True),
        ("bf16", "fp16", False),
        ("fp8", "fp8", True),
        ("fp8", "int8", False),
    ],
)
def test_a_label_fits_the_types_or_is_refused(carried: str, label: str, fits: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a column of the table
    path = save("cnn", tmp_path)
    if carried != "fp32":
        path = convert(path, recipe(carried, *OPS), feeds(), tmp_path / "typed.onnx").path
    if fits:
        check_label(path, recipe(label))
        return
    asked = label.replace("tf32", "fp32")
    line = f"precision {label} asks for {asked} compute, but {path.name} computes in {carried} 4: give "
    with pytest.raises(ConversionError, match=line):
        check_label(path, recipe(label))


def test_the_rest_of_a_mix_is_read_from_what_it_dequantises_to(tmp_path: Path) -> None:
    mixed = Precision(name="int8_fp16", dtype="int8", rest="fp16", quantize_ops=OPS)
    path = convert(save("cnn", tmp_path), mixed, feeds(), tmp_path / "typed.onnx").path
    check_label(path, mixed)
    counts = count_compute_types(path)
    assert counts["int8"] == sum(counts.values()), "the products alone do not tell"
    line = r"asks for int8 and fp32 beside it, but typed\.onnx holds fp16 \d+ beside it: set precision.rest"
    with pytest.raises(ConversionError, match=line):
        check_label(path, recipe("int8", *OPS))


def test_an_integer_operator_is_int8_under_any_label(tmp_path: Path) -> None:
    node = helper.make_node("MatMulInteger", ["x", "x"], ["y"], name="m")
    x = helper.make_tensor_value_info("x", TensorProto.INT8, [2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [2, 2])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y])), tmp_path / "m.onnx")
    with pytest.raises(ConversionError, match="computes in int8 1: give the float32 export"):
        check_label(tmp_path / "m.onnx", recipe("fp32"))


def test_every_broken_rule_is_named(tmp_path: Path) -> None:
    path = convert(save("cnn", tmp_path), recipe("int8", *OPS), feeds(), tmp_path / "typed.onnx").path
    model = onnx.load(path)
    assert qdq_rules.find_violations(model, "int8", per_channel=True) == []
    assert "works on int8, not float8_e4m3fn" in qdq_rules.find_violations(model, "fp8", per_channel=True)[0]
    stored = {item.name: item for item in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in stored]
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    stored[pairs[0].input[2]].CopyFrom(numpy_helper.from_array(np.int8(3), pairs[0].input[2]))
    stored[pairs[1].input[2]].CopyFrom(numpy_helper.from_array(np.int32(0), pairs[1].input[2]))
    stored[pairs[2].input[1]].CopyFrom(numpy_helper.from_array(np.float32(0), pairs[2].input[1]))
    del pairs[3].input[2]
    stored[weights[0].input[1]].CopyFrom(numpy_helper.from_array(np.float32(1), weights[0].input[1]))
    found = " / ".join(qdq_rules.find_violations(model, "int8", per_channel=True))
    for line in ("point other than 0", "works on int32", "not a positive number", "works on uint8", "along axis 0"):
        assert line in found
    assert "along axis" not in " / ".join(qdq_rules.find_violations(model, "int8", per_channel=False))


def test_a_converter_that_did_nothing_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cast, "cast_model", lambda model, *_, **__: (model, ()))
    line = refused(save("cnn", tmp_path), recipe("fp16"), [], tmp_path)
    assert "asks for fp16 compute, but the graph converted for cnn.onnx as fp16 computes in fp32 4" in line


def test_a_converter_that_broke_the_rules_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        qdq_rules, "find_violations", lambda *_, **__: ["conv_dq has a zero point other than 0", "another"]
    )
    line = refused(save("cnn", tmp_path), recipe("int8", *OPS), feeds(), tmp_path)
    assert line.startswith("cnn.onnx as int8: conv_dq has a zero point other than 0 (2 such faults); simplify")


def as_it_is(dtype: str, **more: object) -> Precision:
    return Precision(name=dtype, dtype=dtype, tool="none", quantize_ops=OPS if dtype in {"int8", "fp8"} else (), **more)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "int8", "fp8"])
def test_a_wrong_label_on_a_typed_file_is_refused_with_the_types_found(dtype: str, tmp_path: Path) -> None:
    line = refused(save("cnn", tmp_path), as_it_is(dtype), [], tmp_path)
    assert line == (
        f"precision {dtype} asks for {dtype} compute, but cnn.onnx computes in fp32 4: give a file that is typed so, "
        "or convert it: precision.tool=builtin"
    )


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "int8", "fp8"])
def test_a_file_that_is_typed_goes_through_as_it_is(dtype: str, tmp_path: Path) -> None:
    typed = convert(save("cnn", tmp_path), recipe(dtype, *OPS), feeds(), tmp_path / "typed.onnx").path
    found = convert(typed, as_it_is(dtype), [], tmp_path / "target.onnx")
    assert found.notes == (f"typed already: {dtype} 4 compute nodes",)
    assert (found.samples, found.compute_types[dtype]) == (0, 4)
    assert onnx.load(found.path).graph == onnx.load(typed).graph
    others = {"fp16": "bf16", "bf16": "fp16", "int8": "fp8", "fp8": "int8"}
    found.path.unlink()
    line = refused(typed, as_it_is(others[dtype]), [], tmp_path)
    assert f"asks for {others[dtype]} compute, but typed.onnx computes in {dtype} 4" in line


def test_an_op_that_the_quantiser_cannot_take_is_one_line(tmp_path: Path) -> None:
    """An operator of somebody else's, which has no shape inference and no kernel to calibrate with."""
    g = Author()
    x = g.op("Conv", "x", g.weight(4, 3, 3, 3))
    g.nodes.append(helper.make_node("Wobble", [x], ["wobbled"], name="wobble", domain="com.example"))
    model = g.model(g.op("Conv", "wobbled", g.weight(4, 4, 1, 1)), IMAGE, ["batch", 4, 14, 14])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    line = refused(tmp_path / "odd.onnx", recipe("int8", *OPS), feeds(), tmp_path)
    assert line.startswith("odd.onnx as int8: ")
    assert "Wobble" in line
    assert line.endswith("check the file with onnx.checker and that each input is fed, or leave this precision out")


def classifier(folder: Path) -> Path:
    """A file in which nothing but float32 can be computed: LinearClassifier of ai.onnx.ml takes no other type."""
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", coefficients=[0.5] * 12, intercepts=[0.0] * 3,
        classlabels_ints=[0, 1, 2], post_transform="SOFTMAX",
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 3]),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=9),
        folder / "linear.onnx",
    )
    return folder / "linear.onnx"


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "int8", "fp8"])
def test_a_label_without_a_node_in_its_type_is_refused_with_the_op_types(dtype: str, tmp_path: Path) -> None:
    ops = OPS if dtype in {"int8", "fp8"} else ()
    calibration = [{"x": np.ones((2, 4), np.float32)}]
    line = refused(classifier(tmp_path), recipe(dtype, *ops), calibration, tmp_path)
    assert (
        f"asks for {dtype} compute, but no node of linear.onnx computes in {dtype}: it has LinearClassifier 1" in line
    )
    assert "leave this precision out" in line


def test_a_file_that_is_called_typed_needs_a_node_in_the_type_as_well(tmp_path: Path) -> None:
    precision = Precision(name="fp16", dtype="fp16", tool="none")
    assert "no node of linear.onnx computes in fp16" in refused(classifier(tmp_path), precision, [], tmp_path)


def elementwise(folder: Path, *op_types: str) -> Path:
    names = ["x", *(f"h{number}" for number in range(len(op_types)))]
    nodes = [
        helper.make_node(op, [names[n]], [names[n + 1]], **({"perm": [1, 0]} if op == "Transpose" else {}))
        for n, op in enumerate(op_types)
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])]
    outputs = [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [2, 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "plain.onnx"
    )
    return folder / "plain.onnx"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_network_without_products_computes_in_the_type_of_its_tensors(dtype: str, tmp_path: Path) -> None:
    converted = convert(elementwise(tmp_path, "Relu", "Sigmoid"), recipe(dtype), [], tmp_path / "target.onnx")
    assert sum(converted.compute_types.values()) == 0
    line = refused(elementwise(tmp_path, "Transpose", "Identity"), recipe(dtype), [], tmp_path)
    assert f"no node of plain.onnx computes in {dtype}: it has no nodes that compute" in line


def test_tf32_needs_a_float32_node(tmp_path: Path) -> None:
    check_label(elementwise(tmp_path, "Relu"), recipe("tf32"))
    with pytest.raises(ConversionError, match=r"no node of plain.onnx computes in fp32: it has no nodes that compute"):
        check_label(elementwise(tmp_path, "Transpose"), recipe("tf32"))
    check_label(elementwise(tmp_path, "Transpose"), recipe("fp32"))

"""Conversions as onnxruntime sees them: the same function, the same contract, the types of the label."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import authored_graphs
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from authored_graphs import IMAGE, NETWORKS, Author, batch, save
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper

from sweep.errors import ConversionError
from sweep.precision import Conversion, check_label, convert, count_compute_types, onnx_graph, passes_through
from sweep.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).parents[3] / "conf" / "precision"
OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FP16 = Precision(name="fp16", dtype="fp16")
INT8 = Precision(name="int8", dtype="int8", quantize_ops=OPS, calibration_batches=2)
BF16 = Precision(name="bf16", dtype="bf16")
QUANTISED = {
    name: Precision(name=name, dtype=name.split("_")[0], rest=name.partition("_")[2] or None, quantize_ops=OPS)
    for name in ("int8", "int8_fp16", "int8_bf16", "fp8", "fp8_fp16", "fp8_bf16")
}
for mix in ("int8_fp16", "int8_bf16", "fp8_bf16"):
    QUANTISED[f"{mix}_wide"] = dataclasses.replace(QUANTISED[mix], wide=True)
RECIPES = {"fp16": FP16, "bf16": BF16, **QUANTISED}
SILERO = Path(importlib.util.find_spec("silero_vad").origin).parent / "data"  # the package itself wants torch
LEAST_DB = {"fp16": 45, "int8": 20, "int8_fp16": 20, "int8_fp16_wide": 20, "fp8": 15, "fp8_fp16": 15}


def converted(name: str, recipe: Precision, folder: Path) -> Conversion:
    source = save(name, folder)
    calibration = [batch(NETWORKS[name](), 4, seed) for seed in range(4)]
    return convert(source, recipe, calibration, folder / f"{name}.{recipe.name}.onnx")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Precision], Conversion]:
    """Convert each network with each recipe once, for the tests that read what came out."""
    return functools.cache(lambda name, recipe: converted(name, recipe, tmp_path_factory.mktemp("typed")))


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    taken = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": ["ReluQuantRewrite"]}
    return onnxruntime.InferenceSession(path, options, **taken).run(None, feed)[0]


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


def contract(path: Path) -> list:
    model = onnx.load(path)
    return [(value.name, value.type) for value in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize("recipe", LEAST_DB)
@pytest.mark.parametrize("name", ["cnn", "resizer", "transformer", "matrices"])
def test_same_function_same_contract(name: str, recipe: str, typed: Callable[[str, Precision], Conversion]) -> None:
    result = typed(name, RECIPES[recipe])
    source = result.path.with_name(f"{name}.onnx")
    onnx.checker.check_model(result.path, full_check=True)
    assert contract(result.path) == contract(source)
    for size in (1, 4):
        feed = batch(NETWORKS[name](), size, seed=99)
        assert sqnr_db(run(source, feed), run(result.path, feed)) > LEAST_DB[recipe]


@pytest.mark.parametrize(
    ("name", "nodes", "left"), [("cnn", 4, 0), ("resizer", 3, 0), ("transformer", 6, 0), ("matrices", 5, 3)]
)
def test_dtypes_count_what_each_node_computes_in(
    name: str, nodes: int, left: int, typed: Callable[[str, Precision], Conversion]
) -> None:
    zero = {"int8": 0, "fp8": 0, "fp16": 0, "bf16": 0, "fp32": 0}
    for recipe in (FP16, BF16):
        half = typed(name, recipe)
        assert count_compute_types(half.path.with_name(f"{name}.onnx")) == {**zero, "fp32": nodes}
        wide = 1 if (name, recipe) == ("resizer", BF16) else 0  # its ConvTranspose
        assert (
            half.compute_types == count_compute_types(half.path) == {**zero, "fp32": wide, recipe.dtype: nodes - wide}
        )
    for recipe in QUANTISED.values():
        quarter = typed(name, recipe)
        expected = {**zero, recipe.dtype: nodes - left, recipe.rest or "fp32": left}
        assert quarter.compute_types == count_compute_types(quarter.path) == expected
        check_label(quarter.path, recipe)


def test_int8_notes_say_which_nodes_stay_in_fp32(tmp_path: Path) -> None:
    only_conv = Precision(name="int8", dtype="int8", quantize_ops=("Conv",))
    assert converted("cnn", only_conv, tmp_path).notes == ("1 node kept in fp32: Gemm9",)
    assert converted("cnn", INT8, tmp_path).notes == ()


@pytest.mark.parametrize("name", ["cnn", "resizer", "transformer", "matrices"])
@pytest.mark.parametrize("recipe", QUANTISED)
def test_quantised_graphs_keep_tensorrts_rules(
    name: str, recipe: str, typed: Callable[[str, Precision], Conversion]
) -> None:
    model = onnx.load(typed(name, QUANTISED[recipe]).path)
    kind = np.dtype(np.int8 if recipe.startswith("int8") else ml_dtypes.float8_e4m3fn)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    pairs = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    assert all(stored[node.input[2]].dtype == kind and not stored[node.input[2]].astype(int).any() for node in pairs)
    for node in pairs:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            weight, axis = stored[node.input[0]], node.attribute[0].i
            assert weight.dtype == kind
            assert np.abs(weight.astype(np.float32)).max() == (127 if kind == np.int8 else 448)
            assert stored[node.input[1]].shape == (weight.shape[axis],)
    readers = [node.op_type for node in model.graph.node for i in node.input if _is_dequantised(makers.get(i))]
    allowed = {*OPS, "Add"} if name == "cnn" else set(OPS)  # TensorRT fuses an Add behind a Conv if its skip is int8
    assert set(readers) <= allowed, "only the inputs of the named ops carry Q/DQ"
    assert all(not _is_dequantised(makers.get(i)) for n in model.graph.node for i in n.input[2:]), "biases stay float"


def _is_dequantised(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def test_int8_leaves_the_embedding_that_shares_a_weight_in_float(typed: Callable[[str, Precision], Conversion]) -> None:
    model = onnx.load(typed("transformer", INT8).path)
    (gather,) = (node for node in model.graph.node if node.op_type == "Gather")
    (table,) = (item for item in model.graph.initializer if item.name == gather.input[0])
    assert table.data_type == TensorProto.FLOAT


def test_int8_per_tensor_when_asked(tmp_path: Path) -> None:
    recipe = Precision(name="int8", dtype="int8", quantize_ops=OPS, per_channel=False)
    model = onnx.load(converted("cnn", recipe, tmp_path).path)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert all(not item.dims for item in model.graph.initializer if item.name in scales)


def test_int8_lifts_an_old_opset(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    model.opset_import[0].version, model.ir_version = 11, 6
    onnx.save(model, tmp_path / "old.onnx")
    feed = batch(model, 4, 0)
    result = convert(tmp_path / "old.onnx", INT8, [feed], tmp_path / "new.onnx")
    assert result.compute_types["int8"] == 4
    assert sqnr_db(run(tmp_path / "old.onnx", feed), run(result.path, feed)) > 20


def test_fp16_without_keep_io_changes_the_contract_only_of_floats(tmp_path: Path) -> None:
    result = converted("transformer", Precision(name="fp16", dtype="fp16", keep_io=False), tmp_path)
    kinds = [kind.tensor_type.elem_type for _, kind in contract(result.path)]
    assert kinds == [TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT16]


def test_fp16_converts_inside_control_flow(tmp_path: Path) -> None:
    assert converted("branches", BF16, tmp_path).compute_types["bf16"] == 2
    result = converted("branches", FP16, tmp_path)
    onnx.checker.check_model(result.path, full_check=True)
    assert (result.compute_types["fp16"], result.compute_types["fp32"]) == (2, 0)
    for sign in (1, -1):
        feed = {"x": sign * np.abs(batch(NETWORKS["branches"](), 2, 5)["x"])}
        assert sqnr_db(run(tmp_path / "branches.onnx", feed), run(result.path, feed)) > 45


def test_fp16_notes_what_has_no_float16_and_what_was_clipped(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Range", ["low", "high", "one"], ["a"], name="a"),
        helper.make_node("Add", ["x", "a"], ["b"], name="b"),
        helper.make_node("MatMul", ["b", "b"], ["c"], name="c"),
        helper.make_node("Add", ["c", "huge"], ["y"], name="d"),
    ]
    values = (("low", 0), ("high", 4), ("one", 1), ("huge", -3.4e38))
    stored = [numpy_helper.from_array(np.float32(value), name) for name, value in values]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "a.onnx")
    result = convert(tmp_path / "a.onnx", FP16, [], tmp_path / "b.onnx")
    assert result.notes == ("1 node kept in fp32: Range", "1 weight clipped to +-65504")
    assert result.compute_types["fp16"] == 1


def test_bf16_leaves_in_fp32_what_tensorrt_refuses_in_it(tmp_path: Path) -> None:
    g = Author()
    low = g.op("HardSwish", g.op("HardSigmoid", g.op("Conv", "x", g.weight(4, 3, 1, 1))))
    onnx.save(g.model(g.op("Conv", low, g.weight(4, 4, 1, 1)), IMAGE, ["batch", 4, 16, 16]), tmp_path / "a.onnx")
    result = convert(tmp_path / "a.onnx", BF16, [], tmp_path / "b.onnx")
    assert result.notes == ("2 nodes kept in fp32: HardSigmoid, HardSwish",)
    nodes = onnx.load(result.path).graph.node
    assert [node.op_type for node in nodes if node.op_type != "Identity"] == [
        *("Cast", "Conv", "Cast", "HardSigmoid", "HardSwish", "Cast", "Conv", "Cast")
    ], "no Cast between the two"


def test_bf16_refuses_a_network_of_nothing_but_what_tensorrt_has_no_bf16_for(tmp_path: Path) -> None:
    lone = Author()
    onnx.save(lone.model(lone.op("ConvTranspose", "x", lone.weight(3, 3, 1, 1)), IMAGE, None), tmp_path / "a.onnx")
    assert convert(tmp_path / "a.onnx", FP16, [], tmp_path / "b.onnx").notes == ()
    with pytest.raises(ConversionError, match=r"computes in fp32 1: TensorRT has no bf16 for ConvTranspose, .*leave"):
        convert(tmp_path / "a.onnx", BF16, [], tmp_path / "c.onnx")


@pytest.mark.parametrize("recipe", ["fp16", "bf16"])
def test_what_onnx_defines_with_float32_constants_stays_in_fp32(recipe: str, tmp_path: Path) -> None:
    g = Author()
    last = g.op("MeanVarianceNormalization", g.op("Conv", "x", g.weight(4, 3, 1, 1)), axes=[0, 2, 3])
    onnx.save(g.model(last, IMAGE, ["batch", 4, 16, 16]), tmp_path / "a.onnx")
    result = convert(tmp_path / "a.onnx", RECIPES[recipe], [], tmp_path / "b.onnx")
    assert result.notes == ("1 node kept in fp32: MeanVarianceNormalization",)


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_declared_shape_that_the_nodes_contradict_is_corrected(dtype: str, tmp_path: Path) -> None:
    g = Author()
    flat = g.op("Reshape", g.op("Conv", "x", g.weight(4, 3, 3, 3)), g.const(np.int64([0, 4, -1])))
    model = g.model(flat, IMAGE, [1, "seqlen"])  # as ddddocr's file declares what is of rank 3
    model.graph.value_info.append(helper.make_tensor_value_info(flat, TensorProto.FLOAT, [1, 7]))
    model.graph.value_info.append(helper.make_tensor_value_info("Conv0_out", TensorProto.FLOAT, ["b", 4, 14, 14]))
    onnx.save(model, tmp_path / "a.onnx")
    fed = {"x": np.ones((2, 3, 16, 16), np.float32)}
    recipe = FP16 if dtype == "fp16" else INT8
    result = convert(tmp_path / "a.onnx", recipe, [fed], tmp_path / "b.onnx")
    assert run(result.path, fed).shape == (2, 4, 196)
    assert sqnr_db(run(tmp_path / "a.onnx", fed), run(result.path, fed)) > LEAST_DB[dtype]
    (output,) = onnx.load(result.path).graph.output
    assert len(output.type.tensor_type.shape.dim) == 3


@pytest.mark.parametrize("recipe", ["fp16", "bf16", "int8_bf16"])
def test_where_to_resize_stays_in_fp32(recipe: str, typed: Callable[[str, Precision], Conversion]) -> None:
    model = onnx.load(typed("resizer", RECIPES[recipe]).path)
    stored = {item.name: item.data_type for item in model.graph.initializer}
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize" and len(node.input) == 3)
    assert stored[resize.input[2]] == TensorProto.FLOAT


def test_wide_products_give_float32_and_the_rest_does_not(typed: Callable[[str, Precision], Conversion]) -> None:
    model = onnx_graph.infer_types(onnx.load(typed("transformer", QUANTISED["int8_fp16_wide"]).path))
    stored = {item.name for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    types = onnx_graph.element_types(model.graph)
    by_weight = {
        node.name: types[node.output[0]] for node in model.graph.node if makers_of_weight(node, makers) & stored
    }
    assert len(by_weight) == 4
    assert set(by_weight.values()) == {TensorProto.FLOAT}
    others = [node for node in model.graph.node if node.op_type == "MatMul" and node.name not in by_weight]
    assert [types[node.output[0]] for node in others] == [TensorProto.FLOAT16] * 2, "attention stays in one type"
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert {types[node.output[0]] for node in norms} == {TensorProto.FLOAT16}


@pytest.mark.parametrize(("mix", "kept"), [("int8_bf16", "FLOAT"), ("int8_fp16", "FLOAT16"), ("fp8_bf16", "BFLOAT16")])
def test_a_quantised_softmax_stays_in_float32_beside_int8_in_bf16(
    mix: str, kept: str, typed: Callable[[str, Precision], Conversion]
) -> None:
    model = onnx_graph.infer_types(onnx.load(typed("transformer", QUANTISED[f"{mix}_wide"]).path))
    types = onnx_graph.element_types(model.graph)
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    low = TensorProto.FLOAT16 if mix.endswith("fp16") else TensorProto.BFLOAT16
    assert types[softmax.output[0]] == TensorProto.DataType.Value(kept)
    others = [node for node in model.graph.node if node.op_type in {"Add", "LayerNormalization"}]
    assert low in {types[node.output[0]] for node in others}


def makers_of_weight(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> set[str]:
    pairs = [makers[name] for name in node.input if name in makers]
    return {pair.input[0] for pair in pairs if pair.op_type == "DequantizeLinear"}


def test_scales_are_no_smaller_than_float16_can_hold(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    weight = next(item for item in model.graph.initializer if item.name == "w0")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e-4), "w0"))
    onnx.save(model, tmp_path / "a.onnx")
    for name, least in (("int8_fp16", 6.1e-5), ("fp8_fp16", 6.1e-5), ("int8_bf16", 0), ("int8", 0)):
        result = convert(tmp_path / "a.onnx", QUANTISED[name], [batch(model, 2, 0)], tmp_path / "b.onnx")
        typed = onnx.load(result.path)
        stored = {item.name: numpy_helper.to_array(item).astype(np.float32) for item in typed.graph.initializer}
        scales = [stored[node.input[1]] for node in typed.graph.node if node.op_type == "DequantizeLinear"]
        assert (min(scale.min() for scale in scales) >= 6.1e-5) == (least > 0)
        assert all(scale.min() > 0 for scale in scales)


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx"])
def test_fp16_of_a_trained_network_with_control_flow(name: str, tmp_path: Path) -> None:
    result = convert(SILERO / name, FP16, [], tmp_path / name)
    assert result.compute_types["fp16"] > 0
    assert result.compute_types["fp32"] == 0
    rng = np.random.default_rng(0)
    feed = {"input": rng.standard_normal((1, 576), dtype=np.float32), "sr": np.array(16000)}
    feed["state"] = np.zeros((2, 1, 128), np.float32)
    assert np.abs(run(SILERO / name, feed) - run(result.path, feed)).max() < 0.01


def test_int8_refuses_a_network_that_lies_inside_control_flow(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"computes in fp32 2: .*outside control flow"):
        converted("branches", INT8, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["branches.onnx"]


@pytest.mark.parametrize("recipe", ["bf16", "int8", "fp8_fp16"])
def test_two_conversions_give_the_same_bytes(recipe: str, tmp_path: Path) -> None:
    here = converted("transformer", RECIPES[recipe], tmp_path)
    script = (
        "import sys, pathlib; sys.path[:0] = sys.argv[1].split(':'); import test_convert as t;"
        "t.converted('transformer', t.RECIPES[sys.argv[2]], pathlib.Path(sys.argv[3]))"
    )
    other = tmp_path / "other"
    other.mkdir()
    command = [
        sys.executable,
        "-c",
        script,
        f"{Path(__file__).parent}:{Path(authored_graphs.__file__).parent}",
        recipe,
        str(other),
    ]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (other / here.path.name).read_bytes() == here.path.read_bytes()


@pytest.mark.parametrize("recipe", LEAST_DB)
def test_weights_too_large_for_one_file_go_beside_it(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = converted("cnn", RECIPES[recipe], tmp_path)
    whole_dtypes, feed = whole.compute_types, batch(NETWORKS["cnn"](), 2, 9)
    expected = run(whole.path, feed)
    monkeypatch.setattr(onnx_graph, "SINGLE_FILE_BYTES", 1000)
    for _ in range(2):  # the second time over the first's files
        parted = converted("cnn", RECIPES[recipe], tmp_path)
        assert parted.compute_types == whole_dtypes
        np.testing.assert_array_equal(run(parted.path, feed), expected)
    names = {"cnn.onnx", parted.path.name, f"{parted.path.name}.data"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("recipe", ["fp16", "int8", "fp8_bf16"])
def test_nothing_is_left_behind_and_nothing_is_said(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(root.filters))
    result = converted("cnn", RECIPES[recipe], tmp_path)
    assert (root.level, list(root.handlers), list(root.filters)) == before
    assert list(scratch.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "cnn.onnx", result.path.name}
    assert capfd.readouterr() == ("", "")


def test_onnx_is_not_imported_with_the_package() -> None:
    script = "import sys, sweep.precision; sys.exit(bool({'onnx', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_yaml_is_a_precision(path: Path) -> None:
    values = OmegaConf.to_container(OmegaConf.load(path))
    recipe = Precision(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    types = "_".join(filter(None, (recipe.dtype, recipe.rest)))
    assert (recipe.name, types) == (path.stem, "native" if path.stem == "qat" else path.stem)
    assert passes_through(recipe) == (path.stem in {"fp32", "tf32", "native", "qat"})
    assert path.read_text().startswith("# ")
    assert bool(recipe.quantize_ops) == (recipe.dtype in {"int8", "fp8"})
    assert bool(recipe.wide) == bool(recipe.rest)
    assert bool(recipe.guard) == ("fp16" in {recipe.dtype, recipe.rest})
    assert bool(recipe.calibration_batches) == bool(recipe.quantize_ops or recipe.guard)


def test_a_file_that_carries_the_precision_already_goes_through(tmp_path: Path) -> None:
    first = converted("cnn", FP16, tmp_path)
    again = convert(first.path, FP16, [], tmp_path / "again.onnx")
    assert again.notes == ("cnn.fp16.onnx was fp16 already: not converted",)
    assert again.compute_types == first.compute_types
    check_label(again.path, FP16)


def keeps_none(threshold: float) -> onnx.ModelProto:
    """A detector's end: a product of the rows whose largest value is above a threshold."""
    g = Author()
    best = g.op("ReduceMax", g.op("MatMul", "x", g.weight(32, 4)), g.const(np.int64([1])), keepdims=0)
    rows = g.op("Compress", "x", g.op("Greater", best, g.const(np.float32(threshold))), axis=0)
    return g.model(
        g.op("MatMul", rows, g.weight(32, 4)), {"x": (TensorProto.FLOAT, ["batch", 32])}, ["kept", 4], opset=20
    )


@pytest.mark.parametrize("method", [None, "entropy", "percentile"])
def test_a_batch_in_which_a_tensor_is_empty_adds_nothing_to_its_range(method: str | None, tmp_path: Path) -> None:
    onnx.save(keeps_none(5), tmp_path / "a.onnx")
    loud, quiet = (
        np.full((2, 32), size, np.float32) * np.sign(np.arange(32, dtype=np.float32) % 3 - 1) for size in (100, 1e-3)
    )
    loud[0] = 0  # one row of the two is kept
    recipe = dataclasses.replace(INT8, calibration_method=method)
    weights = [item for item in keeps_none(5).graph.initializer if item.name == "w0"]
    assert (numpy_helper.to_array(weights[0]).T @ loud[1]).max() > 5
    typed = [
        convert(tmp_path / "a.onnx", recipe, calibration, tmp_path / "b.onnx").path.read_bytes()
        for calibration in ([{"x": loud}, {"x": quiet}], [{"x": quiet}, {"x": loud}])
    ]
    assert typed[0] == typed[1]
    stored = {item.name: item for item in onnx.load_from_string(typed[0]).graph.initializer}
    if method is None:
        assert numpy_helper.to_array(stored["Compress3_out__scale"]) == pytest.approx(100 / 127, rel=0.001)


def test_a_tensor_that_is_always_empty_has_no_range_and_the_line_says_so(tmp_path: Path) -> None:
    onnx.save(keeps_none(1e6), tmp_path / "a.onnx")
    line = r"Compress3_out is empty over all calibration data, .*model\.calibration=.*precision\.keep=\[MatMul4\]"
    with pytest.raises(ConversionError, match=line):
        convert(tmp_path / "a.onnx", INT8, [batch(keeps_none(1), 2, 0)], tmp_path / "b.onnx")

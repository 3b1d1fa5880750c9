"""fp16 that breaks under true rounding, where onnxruntime's CPU shows nothing, and the guard that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import passes
import pytest
from authored_graphs import NETWORKS, Author, batch, save
from onnx import TensorProto, helper, numpy_helper

from sweep import models
from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.errors import ConversionError
from sweep.precision import Conversion, check_label, convert, count_compute_types, emulate
from sweep.runner.worker import accuracy_check, artifacts, reference
from sweep.spec import EngineAxes, InputFix, LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPS = ("Conv", "MatMul", "Gemm")
RECIPES = {
    "fp16": Precision(name="fp16", dtype="fp16"),
    "int8_fp16": Precision(name="int8_fp16", dtype="int8", rest="fp16", quantize_ops=OPS),
    "fp8_fp16": Precision(name="fp8_fp16", dtype="fp8", rest="fp16", quantize_ops=OPS),
}
LEAST_DB = {"fp16": 45, "int8_fp16": 25, "fp8_fp16": 15}
WIDTH = 64


def loud() -> onnx.ModelProto:
    """A norm as exporters write it: the sum of squares is near 100,000, though no input or output is large."""
    g = Author()
    x = g.op("Mul", g.op("MatMul", "x", g.weight(WIDTH, WIDTH)), g.const(np.float32(40)))
    total = g.op("ReduceSum", g.op("Mul", x, x), g.const(np.int64([-1])), keepdims=1)
    x = g.op("Div", x, g.op("Sqrt", g.op("Add", total, g.const(np.float32(1)))))
    last = g.op("MatMul", x, g.weight(WIDTH, 8))
    return g.model(last, {"x": (TensorProto.FLOAT, ["batch", WIDTH])}, ["batch", 8])


def calibration() -> list[dict[str, np.ndarray]]:
    return [batch(loud(), 8, seed) for seed in range(2)]


def guarding(name: str) -> Precision:
    recipe = RECIPES[name]
    return Precision(**{field: getattr(recipe, field) for field in recipe.__slots__} | {"guard": True})


def rounded_db(source: Path, typed: Path, folder: Path) -> float:
    """SQNR of a typed graph under true rounding."""
    feed = batch(onnx.load(source), 8, 99)
    emulate(typed, folder / "emulated.onnx")
    found = passes.against_fp32(source, feed, reference.run(folder / "emulated.onnx", feed))
    return -np.inf if found["nonfinite"] else found["sqnr_db"]


@pytest.mark.parametrize("name", RECIPES)
def test_what_overflows_fp16_is_right_with_the_guard_and_wrong_without(name: str, tmp_path: Path) -> None:
    onnx.save(loud(), tmp_path / "loud.onnx")
    plain = convert(tmp_path / "loud.onnx", RECIPES[name], calibration(), tmp_path / "plain.onnx")
    assert plain.guarded_nodes == ()
    assert rounded_db(tmp_path / "loud.onnx", plain.path, tmp_path) < 1
    feed = batch(loud(), 8, 99)
    hidden = passes.against_fp32(tmp_path / "loud.onnx", feed, reference.run(plain.path, feed))
    assert hidden["sqnr_db"] > LEAST_DB[name], "onnxruntime's CPU computes fp16 in fp32: it hides the overflow"

    safe = convert(tmp_path / "loud.onnx", guarding(name), calibration(), tmp_path / "safe.onnx")
    assert safe.guarded_nodes == ("Mul2", "ReduceSum3", "Add4", "Sqrt5")
    assert "4 nodes kept in fp32 by the range guard: Mul2, ReduceSum3, Add4, Sqrt5" in safe.notes
    assert safe.compute_types == plain.compute_types, "every product is still in the asked type"
    assert rounded_db(tmp_path / "loud.onnx", safe.path, tmp_path) > LEAST_DB[name]


def test_guarded_neighbours_hand_on_float32(tmp_path: Path) -> None:
    onnx.save(loud(), tmp_path / "loud.onnx")
    model = onnx.load(convert(tmp_path / "loud.onnx", guarding("fp16"), calibration(), tmp_path / "safe.onnx").path)
    makers = {name: node for node in model.graph.node for name in node.output}
    (add,) = (node for node in model.graph.node if node.name == "Add4")
    assert makers[add.input[0]].name == "ReduceSum3"


def test_a_guarded_product_is_counted_as_fp32_and_passes_its_label(tmp_path: Path) -> None:
    model = loud()
    weight = next(item for item in model.graph.initializer if item.name == "w0")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e5), "w0"))
    onnx.save(model, tmp_path / "louder.onnx")
    made = convert(tmp_path / "louder.onnx", guarding("fp16"), calibration(), tmp_path / "safe.onnx")
    assert (made.compute_types["fp16"], made.compute_types["fp32"]) == (1, 1)
    check_label(made.path, guarding("fp16"))
    with pytest.raises(ConversionError, match=r"asks for fp16 compute, but safe\.onnx computes in fp16 1, "):
        check_label(made.path, RECIPES["fp16"])


def test_a_guard_needs_something_to_calibrate_with(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="precision fp16 got no calibration batches"):
        convert(save("cnn", tmp_path), guarding("fp16"), [], tmp_path / "none.onnx")


def test_a_guard_with_nothing_to_do_changes_nothing(tmp_path: Path) -> None:
    feeds = [batch(NETWORKS["cnn"](), 2, 0)]
    plain = convert(save("cnn", tmp_path), RECIPES["fp16"], feeds, tmp_path / "a.onnx")
    safe = convert(save("cnn", tmp_path), guarding("fp16"), feeds, tmp_path / "b.onnx")
    assert (safe.guarded_nodes, safe.notes) == ((), ())
    assert safe.path.read_bytes() == plain.path.read_bytes()


def test_infinity_that_is_meant_is_left_alone(tmp_path: Path) -> None:
    g = Author()
    scores = g.op("Where", g.op("Greater", "x", g.const(np.float32(0))), "x", g.const(np.float32(-np.inf)))
    last = g.op("MatMul", g.op("Softmax", scores, axis=-1), g.weight(WIDTH, 8))
    model = g.model(last, {"x": (TensorProto.FLOAT, ["batch", WIDTH])}, ["batch", 8])
    onnx.save(model, tmp_path / "mask.onnx")
    made = convert(tmp_path / "mask.onnx", guarding("fp16"), calibration(), tmp_path / "b.onnx")
    assert made.guarded_nodes == ()
    assert rounded_db(tmp_path / "mask.onnx", made.path, tmp_path) > 45


@pytest.mark.parametrize(("dtype", "low", "high"), [("fp16", 45, 80), ("bf16", 35, 56)])
def test_emulation_rounds_at_every_tensor_and_survives_the_optimiser(
    dtype: str, low: int, high: int, tmp_path: Path
) -> None:
    for name in ("cnn", "resizer", "transformer", "branches"):
        made = convert(save(name, tmp_path), Precision(name=dtype, dtype=dtype), [], tmp_path / "typed.onnx")
        assert emulate(made.path, tmp_path / "emulated.onnx") > 0
        assert count_compute_types(tmp_path / "emulated.onnx") == count_compute_types(tmp_path / f"{name}.onnx")
        onnx.checker.check_model(tmp_path / "emulated.onnx", full_check=True)
        assert low < rounded_db(tmp_path / f"{name}.onnx", made.path, tmp_path) < high
        feed = batch(NETWORKS[name](), 4, 5)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        taken = {"providers": ["CPUExecutionProvider"]}
        untouched = onnxruntime.InferenceSession(tmp_path / "emulated.onnx", options, **taken).run(None, feed)[0]
        np.testing.assert_allclose(
            reference.run(tmp_path / "emulated.onnx", feed)["y"], untouched, rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_emulation_of_one_product_is_numpys(dtype: str, tmp_path: Path) -> None:
    import ml_dtypes

    kind = np.dtype(np.float16 if dtype == "fp16" else ml_dtypes.bfloat16)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in "xy"]
    weight = np.random.default_rng(1).standard_normal((16, 16), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "g", *[[end] for end in ends], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "a.onnx")
    made = convert(tmp_path / "a.onnx", Precision(name=dtype, dtype=dtype), [], tmp_path / "b.onnx")
    emulate(made.path, tmp_path / "c.onnx")
    x = np.random.default_rng(0).standard_normal((4, 16), np.float32)
    exact = x.astype(kind).astype(np.float32) @ weight.astype(kind).astype(np.float32)
    expected = exact.astype(kind).astype(np.float32)
    np.testing.assert_allclose(reference.run(tmp_path / "c.onnx", {"x": x})["y"], expected, rtol=2**-7)
    assert np.mean(reference.run(tmp_path / "c.onnx", {"x": x})["y"] == expected) > 0.95, "but for the order of sums"


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


@pytest.mark.parametrize("model", ["tiny_cnn", "mlp"])
def test_fp8_is_computed_as_it_stands(model: str, tmp_path: Path) -> None:
    """The optimiser takes the lowest fp8 for a Relu's zero, and fuses pairs into operators without fp8."""
    precision = Precision(name="fp8", dtype="fp8", quantize_ops=OPS, calibration_batches=1)
    asked = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=ModelRef(name=model, revision=models.zoo.entry(model).revision), precision=precision),
        engine=EngineAxes(batch=2),
    )
    cache, backend = Cache(tmp_path), OnnxRuntime()
    typed = passes.typed_file(asked, cache)
    feeds = models.draw(models.signature(asked.onnx.model), 2, 0)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(typed, options, providers=["CPUExecutionProvider"]).run(["logits"], feeds)[0]
    engine = artifacts.build_engine(asked, backend, typed, cache)
    session = backend.load(engine.path, engine.info, asked, feeds)
    for found in (reference.run(typed, feeds), session.outputs()):
        assert apart(plain, found["logits"]) < 0.03, "rounded as it stands"
    session.close()

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    spoilt = onnxruntime.InferenceSession(typed, options, providers=["CPUExecutionProvider"]).run(["logits"], feeds)[0]
    assert apart(plain, spoilt) > 0.5, "this onnxruntime no longer spoils fp8: the settings can go"


@pytest.mark.parametrize("guard", [True, None])
def test_the_embedded_backend_shows_the_overflow_and_records_what_was_guarded(
    guard: bool | None,  # noqa: FBT001 - a column of the table
    tmp_path: Path,
) -> None:
    onnx.save(loud(), tmp_path / "loud.onnx")
    model = ModelRef(name="loud", path=str(tmp_path / "loud.onnx"), inputs=(InputFix(name="x"),))
    precision = Precision(name="fp16", dtype="fp16", guard=guard, calibration_batches=1 if guard else None)
    asked = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=model, precision=precision),
        engine=EngineAxes(batch=4),
        load=LoadAxes(kind="closed", warmup_s=0.01, min_s=0.02, min_requests=9, max_s=1.0),
    )
    found = passes.measured(asked, tmp_path, cache=tmp_path / "c")
    assert found["accuracy"]["note"] == accuracy_check.ROUNDED
    assert (found["accuracy"]["sqnr_db"] > 45) == bool(guard)
    assert len(found["engine"]["guarded"]) == (3 if guard else 0)
    assert any("stay in fp32" in note for note in found["realised"]["notes"]) == bool(guard)
    assert OnnxRuntime().mismatch(asked, found["realised"]) is None


ROWS = {"x": (TensorProto.FLOAT, ["batch", WIDTH])}
SPATIAL = {"x": (TensorProto.FLOAT, ["batch", 4, 8, 8])}


def guarded(model: onnx.ModelProto, folder: Path, scale: float = 1.0, name: str = "fp16") -> Conversion:
    """The guarded conversion of a model, calibrated on one batch of normal values times ``scale``."""
    onnx.save(model, folder / "source.onnx")
    feeds = [{key: value * np.float32(scale) for key, value in batch(model, 8, 0).items()}]
    return convert(folder / "source.onnx", guarding(name), feeds, folder / "typed.onnx")


def normalization(variance: list[float], scale: float, epsilon: float = 1e-5, gain: float = 1) -> onnx.ModelProto:
    """A BatchNormalization of an input times a factor, and a convolution."""
    g = Author()
    x = g.op("Mul", "x", g.const(np.float32(scale)))
    means = np.array([1, 0, -1, 2]) * scale
    gains = np.array([1, 2, 3, 4]) * gain
    factors = [g.const(np.float32(value)) for value in (gains, [0.1, 0, -0.1, 0.2], means, variance)]
    x = g.op("BatchNormalization", x, *factors, epsilon=epsilon)
    return g.model(g.op("Conv", x, g.weight(4, 4, 1, 1)), SPATIAL, ["batch", 4, 8, 8])


@pytest.mark.parametrize(
    ("variance", "scale", "epsilon"),
    [([1e7, 2e7, 1e6, 1e5], 3e3, 1e-5), ([1e-6, 4e-6, 1e-7, 3e-7], 1e-3, 1e-8)],
    ids=["large", "small"],
)
def test_a_variance_that_fp16_cannot_hold_is_folded_in_float64(
    variance: list[float], scale: float, epsilon: float, tmp_path: Path
) -> None:
    model = normalization(variance, scale, epsilon)
    made = guarded(model, tmp_path)
    assert made.guarded_nodes == ()
    assert "1 variance beyond fp16 folded into the scale beside it: BatchNormalization1" in made.notes
    typed = onnx.load(made.path)
    stored = {item.name: numpy_helper.to_array(item) for item in typed.graph.initializer}
    (norm,) = (node for node in typed.graph.node if node.op_type == "BatchNormalization")
    expected = np.float64([1, 2, 3, 4]) / np.sqrt(np.float32(variance).astype(np.float64) + np.float32(epsilon))
    np.testing.assert_array_equal(stored[norm.input[1]], expected.astype(np.float32).astype(np.float16))
    np.testing.assert_array_equal(stored[norm.input[4]], np.ones(4, np.float16))
    assert rounded_db(tmp_path / "source.onnx", made.path, tmp_path) > 45
    plain = convert(tmp_path / "source.onnx", RECIPES["fp16"], [], tmp_path / "plain.onnx")
    assert rounded_db(tmp_path / "source.onnx", plain.path, tmp_path) < 35, "clipped, or short of bits"


def test_a_normalization_that_cannot_be_folded_either_stays_in_fp32(tmp_path: Path) -> None:
    made = guarded(normalization([1] * 4, 1e-3, gain=1e5), tmp_path)
    assert made.guarded_nodes == ("BatchNormalization1",), "its scale is 1e5 whatever is folded"
    assert rounded_db(tmp_path / "source.onnx", made.path, tmp_path) > 45


def test_a_normalization_that_fp16_holds_is_left_alone(tmp_path: Path) -> None:
    made = guarded(normalization([1, 2, 3, 4], 1), tmp_path)
    assert (made.guarded_nodes, made.notes) == ((), ())


@pytest.mark.parametrize("name", RECIPES)
def test_weights_beyond_fp16_and_below_it_are_found_from_the_file(name: str, tmp_path: Path) -> None:
    g = Author()
    x = g.op("MatMul", g.op("Mul", "x", g.const(np.float32(1e-4))), g.weight(WIDTH, WIDTH))
    x = g.op("Mul", x, g.const(np.full(WIDTH, 1e5, np.float32)))
    low = g.op("Div", x, g.op("Add", g.op("Sub", x, x), g.const(np.float32(1e-9))))
    low = g.op("Mul", low, g.const(np.full(WIDTH, 1e-9, np.float32)))
    made = guarded(g.model(g.op("MatMul", low, g.weight(WIDTH, 8)), ROWS, ["batch", 8]), tmp_path, name=name)
    assert {"Mul2", "Add4", "Mul6"} <= set(made.guarded_nodes)
    assert "Mul0" not in made.guarded_nodes, "a subnormal float16 holds 1e-4"
    assert "MatMul1" not in made.guarded_nodes
    assert not any("clipped" in note for note in made.notes)
    assert (
        rounded_db(tmp_path / "source.onnx", made.path, tmp_path) > (LEAST_DB if name == "fp16" else {name: 10})[name]
    )


def test_a_bound_beyond_fp16_saturates_and_one_below_it_does_not(tmp_path: Path) -> None:
    g = Author()
    x = g.op("Clip", "x", g.const(np.float32(-3.4e38)), g.const(np.float32(3.4e38)))
    x = g.op("Div", x, g.op("Clip", g.op("ReduceL2", x, g.const(np.int64([-1]))), g.const(np.float32(1e-12))))
    made = guarded(g.model(g.op("MatMul", x, g.weight(WIDTH, 8)), ROWS, ["batch", 8]), tmp_path)
    assert made.guarded_nodes == ("Clip2",)


def test_a_weight_inside_a_branch_is_found_too(tmp_path: Path) -> None:
    model = NETWORKS["branches"]()
    (chosen,) = (node for node in model.graph.node if node.op_type == "If")
    inner = chosen.attribute[0].g
    weight = numpy_helper.to_array(inner.initializer[0])
    inner.initializer[0].CopyFrom(numpy_helper.from_array(weight * np.float32(1e6), inner.initializer[0].name))
    made = guarded(model, tmp_path)
    assert made.guarded_nodes == (inner.node[0].name,)
    assert (made.compute_types["fp16"], made.compute_types["fp32"]) == (1, 1)


def layer_norm(g: Author) -> str:
    return g.op("LayerNormalization", "x", g.const(np.ones(WIDTH, np.float32)), axis=-1)


def root_of_squares(g: Author) -> str:
    return g.op("Div", "x", g.op("ReduceL2", "x", g.const(np.int64([-1])), keepdims=1))


def written_out(g: Author) -> str:
    """A LayerNormalization as exporters write it for an old opset."""
    centred = g.op("Sub", "x", g.op("ReduceMean", "x", g.const(np.int64([-1])), keepdims=1))
    squares = g.op("Pow", centred, g.const(np.float32(2)))
    variance = g.op("ReduceMean", squares, g.const(np.int64([-1])), keepdims=1)
    return g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, g.const(np.float32(1e-5)))))


def log_of_sum(g: Author) -> str:
    return g.op("Sub", "x", g.op("ReduceLogSumExp", "x", g.const(np.int64([-1])), keepdims=1))


@pytest.mark.parametrize(
    ("author", "quiet", "loud_scale", "names"),
    [
        (layer_norm, 20, 60, ("LayerNormalization0",)),
        (root_of_squares, 4, 30, ("ReduceL20",)),
        (written_out, 20, 60, ("Pow2", "ReduceMean3")),
        (log_of_sum, 1, 10, ("ReduceLogSumExp0",)),
    ],
)
def test_squares_and_sums_inside_an_operator_are_guarded(
    author: Callable[[Author], str], quiet: float, loud_scale: float, names: tuple[str, ...], tmp_path: Path
) -> None:
    """No tensor is beyond 32,752; twice the input would take the squares beyond 65,504."""
    g = Author()
    model = g.model(g.op("MatMul", author(g), g.weight(WIDTH, 8)), ROWS, ["batch", 8])
    assert guarded(model, tmp_path, quiet).guarded_nodes == ()
    assert guarded(model, tmp_path, loud_scale).guarded_nodes == names


def test_two_normalizations_that_share_their_factors_are_folded_apart(tmp_path: Path) -> None:
    """Beside a text, which is no exponent."""
    model = normalization([1e7, 2e7, 1e6, 1e5], 3e3)
    (first,) = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    second = onnx.NodeProto()
    second.CopyFrom(first)
    second.name = "second"
    second.output[0], first.output[0] = first.output[0], "between"
    second.input[0] = "between"
    model.graph.node.insert(2, second)
    model.graph.initializer.append(numpy_helper.from_array(np.array(["2"], object), "text"))
    made = guarded(model, tmp_path)
    scales = [node.input[1] for node in onnx.load(made.path).graph.node if node.op_type == "BatchNormalization"]
    assert len(set(scales)) == 2
    assert rounded_db(tmp_path / "source.onnx", made.path, tmp_path) > 45

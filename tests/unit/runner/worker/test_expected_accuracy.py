"""What rounding explains, for authored networks: a low floor, no floor at all, emulated types, and what costs much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import authored_graphs
import numpy as np
import onnx
import passes
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep import precision
from sweep.analysis import accuracy
from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, LoadConfig, ModelConfig, PrecisionConfig
from sweep.runner.worker import expected_accuracy
from sweep.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sweep.spec import Variant


def asked(path: Path, **recipe: object) -> Variant:
    recipe = {"name": "fp32", "dtype": "fp32"} | recipe
    return variants.from_config(
        Config(
            model=ModelConfig(path=str(path)),
            precision=PrecisionConfig(**recipe),
            backend=BackendConfig(name="onnxruntime"),
            load=LoadConfig(kind="closed", warmup_s=0.02, min_s=0.02, min_requests=3, max_s=0.5),
            batch=4,
            results=str(path.parent),
        )
    )


def saved(folder: Path, author: authored_graphs.Author, last: str, width: int) -> Path:
    inputs = {"x": (TensorProto.FLOAT, ["batch", 64])}
    onnx.save(author.model(last, inputs, ["batch", width]), folder / "own.onnx")
    return folder / "own.onnx"


def classifier(folder: Path, common: float) -> Path:
    """Scores less their mean over the classes: what all classes share cancels, and takes the lower bits with it."""
    author = authored_graphs.Author()
    hidden = author.op("Relu", author.op("MatMul", "x", author.weight(64, 128)))
    weight = author.rng.standard_normal((128, 10)).astype(np.float32) / 11 + np.float32(common)
    scores = author.op("MatMul", hidden, author.const(weight))
    mean = author.op("ReduceMean", scores, author.const(np.array([1])))
    return saved(folder, author, author.op("Sub", scores, mean), 10)


def test_fp32_of_a_network_with_a_low_floor_is_not_called_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine sums in another order, as any other library does; the fixed 75 dB called that TF32."""
    right, reordered = OnnxRuntime.build, tmp_path / "reordered.onnx"

    def build(backend: OnnxRuntime, onnx_file: Path, *others: object) -> dict:
        precision.reverse_sums(onnx_file, reordered)
        return right(backend, reordered, *others)

    monkeypatch.setattr(OnnxRuntime, "build", build)
    found = passes.measured(asked(classifier(tmp_path, 300.0)), tmp_path)
    assert found["accuracy"]["sqnr_db"] < 75
    assert found["accuracy"]["sqnr_db"] == pytest.approx(found["accuracy"]["expected"]["floor_db"], abs=20)
    assert (found["mismatch"], list(found["realised"]["precision"])) == (None, ["fp32"])


def test_each_precision_has_the_level_of_its_own_rounding(tmp_path: Path) -> None:
    path = classifier(tmp_path, 0.0)
    levels = {}
    for dtype in ("fp32", "fp16", "bf16"):
        found = passes.measured(asked(path, name=dtype, dtype=dtype), tmp_path)["accuracy"]
        levels[dtype] = found["expected"]["expected_db"]
        assert dtype == "fp32" or found["sqnr_db"] == pytest.approx(levels[dtype], abs=0.5)
    assert levels["fp32"] == found["expected"]["floor_db"] > 110
    assert 15 < levels["fp16"] - levels["bf16"] < 21, "three bits of mantissa are 18 dB"
    assert levels["fp16"] == pytest.approx(found["expected"]["tf32_db"], abs=6), "both have 10 bits"


@pytest.mark.parametrize(("dtype", "least_db"), [("fp16", 55), ("bf16", 40)])
def test_without_keep_io_samples_are_fed_in_the_type_of_the_graph(tmp_path: Path, dtype: str, least_db: float) -> None:
    """Float32 samples were refused for a float16 input."""
    found = passes.measured(asked(classifier(tmp_path, 0.0), name=dtype, dtype=dtype, keep_io=False), tmp_path)
    assert found["mismatch"] is None
    assert least_db < found["accuracy"]["sqnr_db"] < least_db + 20
    assert found["accuracy"]["expected"]["expected_db"] == pytest.approx(found["accuracy"]["sqnr_db"], abs=0.5)


def test_a_file_in_bfloat16_as_it_came_is_emulated_where_no_kernels_are(tmp_path: Path) -> None:
    """The CPU has no MatMul of bfloat16 in onnxruntime: neither the engine nor the reference could be had."""
    recipe = Precision(name="bf16", dtype="bf16")
    typed = precision.convert(classifier(tmp_path, 0.0), recipe, [], tmp_path / "typed.onnx").path
    found = passes.measured(asked(typed, name="native", dtype="native"), tmp_path)
    assert (found["mismatch"], found["accuracy"]["max_abs"]) == (None, 0)
    assert found["accuracy"]["reference"] == accuracy.TYPED_REFERENCE
    assert "every 16-bit tensor is rounded" in found["accuracy"]["note"]
    assert found["realised"]["rounded_tensors"] > 0
    assert found["accuracy"]["expected"]["expected_db"] is None
    assert "not computed for a file in bfloat16" in found["accuracy"]["expected"]["note"]


def test_the_floor_counts_what_cancels_between_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variance as a difference of means has other bits in each library; neither products nor inputs show it."""
    author = authored_graphs.Author()
    axis, small, common = author.const(np.array([1])), author.const(np.float32(0.3)), author.const(np.float32(7))
    x = author.op("Add", author.op("Mul", author.op("Cast", "x", to=1), small), common)
    mean = author.op("ReduceMean", x, axis)
    squares = author.op("ReduceMean", author.op("Mul", x, x), axis)
    variance = author.op("Sub", squares, author.op("Mul", mean, mean))
    last = author.op("Div", author.op("Sub", x, mean), author.op("Sqrt", variance))
    model = author.model(last, {"x": (TensorProto.INT32, ["batch", 64])}, ["batch", 64])
    onnx.save(model, tmp_path / "own.onnx")
    floor_db = passes.measured(asked(tmp_path / "own.onnx"), tmp_path)["accuracy"]["expected"]["floor_db"]
    assert 60 < floor_db < 100
    monkeypatch.setattr(precision, "widen_sums", lambda *_: 0)
    (tmp_path / "narrow").mkdir()
    narrow = passes.measured(asked(tmp_path / "own.onnx"), tmp_path / "narrow")["accuracy"]["expected"]
    assert narrow["floor_db"] > floor_db + 20


def test_a_network_whose_sums_have_one_order_has_an_estimate(tmp_path: Path) -> None:
    author = authored_graphs.Author()
    found = passes.measured(asked(saved(tmp_path, author, author.op("Sign", "x"), 64)), tmp_path)["accuracy"]
    assert (found["sqnr_db"], found["max_abs"]) == (None, 0)
    assert 120 < found["expected"]["floor_db"] < 144
    assert found["expected"]["tf32_db"] is None
    assert "the floor is estimated from fp32's unit roundoff" in found["expected"]["note"]
    assert "no TF32: the network has no such products" in found["expected"]["note"]


def test_what_would_cost_much_is_left_out_and_keeps_the_fixed_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected_accuracy, "MOST_GMACS", 1e-6)
    found = passes.measured(asked(classifier(tmp_path, 0.0)), tmp_path)
    expected = found["accuracy"]["expected"]
    assert (expected["floor_db"], expected["tf32_db"], expected["expected_db"]) == (None, None, None)
    assert expected["note"].endswith("GMACs a sample; 1e-06 GMACs are the limit")
    assert found["mismatch"] is None


def test_a_network_whose_products_cannot_be_counted_is_timed_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shape of its product comes from a float, which shape inference does not follow."""
    author = authored_graphs.Author()
    width = author.op("Cast", author.op("Add", author.const(np.float32([60])), author.const(np.float32([4]))), to=7)
    shape = author.op("Concat", author.op("Shape", "x", end=1), width, axis=0)
    path = saved(tmp_path, author, author.op("MatMul", author.op("Reshape", "x", shape), author.weight(64, 128)), 128)
    result = passes.measured(asked(path), tmp_path)
    assert result["model"]["gmacs"] is None
    assert result["accuracy"]["expected"]["floor_db"] > 110
    monkeypatch.setattr(expected_accuracy, "MOST_GMACS", 0.0)
    note = passes.measured(asked(path), tmp_path)["accuracy"]["expected"]["note"]
    assert note.startswith("not computed for ")


def test_a_large_batch_is_explained_at_a_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(tmp_path, 0.0)
    whole = passes.measured(asked(path), tmp_path)
    per_sample = whole["model"]["gmacs"]
    monkeypatch.setattr(expected_accuracy, "MOST_GMACS", per_sample * 2.5)
    part = passes.measured(asked(path), tmp_path)["accuracy"]["expected"]
    assert part["note"] == "computed at batch 2"
    for name in ("floor_db", "tf32_db"):
        assert part[name] == pytest.approx(whole["accuracy"]["expected"][name], abs=4)
        assert part[name] != whole["accuracy"]["expected"][name]


def test_the_figures_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(tmp_path, 0.0)
    first = passes.measured(asked(path), tmp_path)["accuracy"]["expected"]
    monkeypatch.setattr(precision, "round_products", None)
    monkeypatch.setattr(precision, "reverse_sums", None)
    assert passes.measured(asked(path), tmp_path)["accuracy"]["expected"] == first


def test_a_file_of_int8_names_itself_as_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors were called exact against fp32, which it never had; integer kernels may round another way."""
    runner = expected_accuracy.runner

    def off_by_a_hundredth(*args: Any, fuse_pairs: bool = False, **options: Any) -> Callable[..., dict]:
        infer, factor = runner(*args, **options), 1.01 if fuse_pairs else 1.0
        return lambda feeds: {name: value * factor for name, value in infer(feeds).items()}

    monkeypatch.setattr(expected_accuracy, "runner", off_by_a_hundredth)
    rng = np.random.default_rng(0)
    stored = {
        "xs": np.float32(0.03),
        "zero": np.int8(0),
        "w": rng.integers(-127, 127, (64, 4)).astype(np.int8),
        "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "xs", "zero"], ["d"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wd", axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"], name="mm"),
    ]
    ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, ["batch", 64]), ("y", 1, ["batch", 4]))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = tmp_path / "qdq.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    found = passes.measured(
        asked(path, name="int8", dtype="int8", quantize_ops=["MatMul"], calibration_batches=1), tmp_path
    )
    assert found["accuracy"]["reference"] == accuracy.TYPED_REFERENCE
    assert f"compared with {accuracy.TYPED_REFERENCE}" in found["realised"]["notes"]
    assert found["accuracy"]["expected"]["floor_db"] == pytest.approx(40, abs=1e-3)

"""2:4 sparsity by magnitude: along what is summed, two of four, the largest kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import passes
import pytest
import require
from authored_graphs import IMAGE, NETWORKS, Author, batch, save
from onnx import TensorProto, numpy_helper

from sweep import models
from sweep.backends.tensorrt.backend import TensorRTRTX
from sweep.errors import ConversionError
from sweep.precision import sparsify
from sweep.precision.sparsity import sparsify_model
from sweep.runner.worker import artifacts, reference
from sweep.spec import EngineAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def groups(values: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(values, axis, -1).reshape(-1, 4)


def holds(before: np.ndarray, after: np.ndarray, axis: int) -> None:
    """Two of each four are zero, and they are the smallest."""
    was, now = np.abs(groups(before, axis)), groups(after, axis)
    assert ((now == 0).sum(axis=1) == 2).all()
    np.testing.assert_allclose(np.abs(now).sum(axis=1), np.sort(was, axis=1)[:, 2:].sum(axis=1), rtol=1e-6)


def test_each_op_is_pruned_along_what_it_sums_over() -> None:
    g = Author()
    conv = g.op("Conv", "x", g.weight(8, 3, 3, 3))  # 3 channels: no group of four
    conv = g.op("Conv", conv, g.weight(12, 8, 3, 3))
    flat = g.op("Flatten", g.op("GlobalAveragePool", conv))
    flat = g.op("Gemm", flat, g.weight(20, 12), transB=1)
    flat = g.op("Gemm", flat, g.weight(20, 16))
    model = g.model(g.op("MatMul", flat, g.weight(16, 4)), IMAGE, ["batch", 4])
    before = weights(model)
    pruned, count = sparsify_model(model)
    after = weights(pruned)
    assert count == 4
    np.testing.assert_array_equal(after["w0"], before["w0"])
    for name, axis in (("w1", 1), ("w2", 1), ("w3", 0), ("w4", 0)):
        holds(before[name], after[name], axis)


def test_a_shared_embedding_stays_dense() -> None:
    model = NETWORKS["transformer"]()
    before = weights(model)["w0"]
    pruned, count = sparsify_model(model)
    (gather,) = (node for node in pruned.graph.node if node.op_type == "Gather")
    np.testing.assert_array_equal(weights(pruned)[gather.input[0]], before)
    assert count == 4
    (tied,) = (node for node in pruned.graph.node if node.op_type == "MatMul" and node.output[0] in last(pruned))
    holds(before.T, weights(pruned)[tied.input[1]], 0)


def last(model: onnx.ModelProto) -> list[str]:
    return list(model.graph.node[-1].input)


def test_ties_are_broken_the_same_way_each_time(tmp_path: Path) -> None:
    g = Author()
    equal = np.ones((8, 8), np.float32)
    model = g.model(g.op("MatMul", "x", g.const(equal)), {"x": (TensorProto.FLOAT, ["batch", 8])}, ["batch", 8])
    onnx.save(model, tmp_path / "a.onnx")
    assert sparsify(tmp_path / "a.onnx", tmp_path / "b.onnx") == 1
    sparsify(tmp_path / "a.onnx", tmp_path / "c.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()
    assert (weights(onnx.load(tmp_path / "b.onnx"))["w0"].sum(axis=0) == 4).all()


def test_a_graph_without_a_weight_to_prune_is_one_clear_line(tmp_path: Path) -> None:
    g = Author()
    model = g.model(g.op("Conv", "x", g.weight(4, 3, 1, 1)), IMAGE, ["batch", 4, 16, 16])
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(
        ConversionError, match=r"sparsity=force asks to prune a\.onnx 2:4, but none of its Conv"
    ) as caught:
        sparsify(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.onnx").exists()


def test_a_pruned_graph_runs(tmp_path: Path) -> None:

    assert sparsify(save("cnn", tmp_path), tmp_path / "b.onnx") == 3
    found = passes.against_fp32(
        tmp_path / "cnn.onnx",
        batch(NETWORKS["cnn"](), 2, 0),
        reference.run(tmp_path / "b.onnx", batch(NETWORKS["cnn"](), 2, 0)),
    )
    assert 0 < found["sqnr_db"] < 20


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_forced_sparsity_reaches_the_typed_graph_and_the_builder(name: str, tmp_path: Path) -> None:
    require.library_for("tensorrt_rtx")
    quantised = {"quantize_ops": ("Conv", "MatMul", "Gemm"), "calibration_batches": 1} if name == "int8" else {}
    asked = Variant(
        backend="tensorrt_rtx",
        onnx=OnnxAxes(
            model=ModelRef(name="mlp", revision=models.zoo.entry("mlp").revision),
            precision=Precision(name=name, dtype=name, **quantised),
            prune="2:4",
        ),
        engine=EngineAxes(batch=2, sparsity="force"),
    )
    cache = Cache(tmp_path)
    typed = passes.typed_file(asked, cache)
    large = [values for values in weights(onnx.load(typed)).values() if values.size >= 10_000]
    assert len(large) == 3
    for values in large:
        assert ((groups(values.astype(np.float32), 0 if values.shape[0] != 10 else 1) == 0).sum(axis=1) >= 2).all()
    assert artifacts.build_engine(asked, TensorRTRTX(), typed, cache).info["precision"] == {name: 3}

"""Networks whose outputs rounding to 16 bits destroys though every value fits, and the guard that keeps a few nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from authored_graphs import Author
from onnx import TensorProto

from sweep.analysis import accuracy
from sweep.precision import convert, emulate, onnx_graph, rounding_guard
from sweep.runner.worker import reference
from sweep.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.precision import Conversion

WIDTH = 64


def recipe(dtype: str, *, guard: bool) -> Precision:
    return Precision(name=dtype, dtype=dtype, guard=guard or None, calibration_batches=1 if guard else None)


def saved(folder: Path, author: Author, last: str) -> Path:
    onnx.save(author.model(last, {"x": (TensorProto.FLOAT, ["batch", WIDTH])}, ["batch", WIDTH]), folder / "own.onnx")
    return folder / "own.onnx"


def normalized(folder: Path, *, sums: bool = True, power: bool = False) -> Path:
    """A layer normalization with its variance as a difference, as flax writes it."""
    g = Author()
    axis, share = g.const(np.int64([-1])), g.const(np.float32(1 / WIDTH))
    square = g.op("Pow", "x", g.const(np.float32(2))) if power else g.op("Mul", "x", "x")

    def mean(name: str) -> str:
        if sums:
            return g.op("Mul", share, g.op("ReduceSum", name, axis, keepdims=1))
        return g.op("ReduceMean", name, axis, keepdims=1)

    average = mean("x")
    difference = g.op("Sub", mean(square), g.op("Mul", average, average))
    variance = g.op("Max", difference, g.const(np.float32(0)))
    deviation = g.op("Sqrt", g.op("Add", variance, g.const(np.float32(1e-6))))
    return saved(folder, g, g.op("Div", g.op("Sub", "x", average), deviation))


def converted(path: Path, precision: Precision, x: np.ndarray) -> Conversion:
    return convert(path, precision, [{"x": x}] if precision.guard else [], path.with_name("typed.onnx"))


def rounded_db(path: Path, typed: Path, x: np.ndarray) -> float:
    emulate(typed, path.with_name("emulated.onnx"))
    figures = accuracy.errors(reference.run(path, {"x": x}), reference.run(path.with_name("emulated.onnx"), {"x": x}))
    return accuracy.level(figures) if not figures["nonfinite"] else -np.inf


def rows(mean: float, spread: float, seed: int = 0) -> np.ndarray:
    return (mean + spread * np.random.default_rng(seed).standard_normal((8, WIDTH))).astype(np.float32)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_variance_as_a_difference_stays_in_fp32_though_the_calibration_data_bears_it(
    tmp_path: Path, dtype: str
) -> None:
    """Rows that are all but constant, as padded files are, meet it later."""
    path = normalized(tmp_path)
    nodes = [node.name for node in onnx.load(path).graph.node]
    safe = converted(path, recipe(dtype, guard=True), rows(0, 1))
    assert list(safe.guarded_nodes) == nodes[:7], "the square, both sums and means, the square of one, the difference"
    (note,) = safe.notes
    words = "7 nodes kept in fp32 by the rounding guard, since they compute a variance as the difference of two means: "
    assert note == f"{words}{', '.join(nodes[:5])}, ..."
    later = rows(4, 0.02, 1)
    assert rounded_db(path, safe.path, later) > {"fp16": 20, "bf16": 3}[dtype]


def test_bf16_keeps_that_form_without_calibration_data_and_fp16_only_where_it_guards(tmp_path: Path) -> None:
    path = normalized(tmp_path)
    assert len(converted(path, recipe("bf16", guard=False), rows(0, 1)).guarded_nodes) == 7
    assert converted(path, recipe("fp16", guard=False), rows(0, 1)).guarded_nodes == ()
    assert rounded_db(path, tmp_path / "typed.onnx", rows(4, 0.02, 1)) < 5


@pytest.mark.parametrize(("sums", "power", "count"), [(True, True, 7), (False, False, 5), (False, True, 5)])
def test_the_form_is_known_by_what_it_computes(tmp_path: Path, sums: bool, power: bool, count: int) -> None:  # noqa: FBT001
    model = onnx.load(normalized(tmp_path, sums=sums, power=power))
    assert len(rounding_guard.variance_nodes(model.graph)) == count


def test_the_variance_of_another_tensor_is_no_such_form(tmp_path: Path) -> None:
    g = Author()
    axis, other = g.const(np.int64([-1])), g.op("Relu", "x")
    average = g.op("ReduceMean", other, axis, keepdims=1)
    squares = g.op("ReduceMean", g.op("Mul", "x", "x"), axis, keepdims=1)
    path = saved(tmp_path, g, g.op("Mul", "x", g.op("Sub", squares, g.op("Mul", average, average))))
    assert rounding_guard.variance_nodes(onnx.load(path).graph) == ()


def cancelling(folder: Path) -> Path:
    """A sum with 300 that the next node takes away again, between two products."""
    g = Author()
    common = g.const(np.float32(300))
    there = g.op("Add", g.op("MatMul", "x", g.weight(WIDTH, WIDTH)), common)
    return saved(folder, g, g.op("MatMul", g.op("Tanh", g.op("Sub", there, common)), g.weight(WIDTH, WIDTH)))


@pytest.mark.parametrize(("dtype", "before", "after"), [("fp16", 20, 36), ("bf16", 5, 21)])
def test_what_the_calibration_data_loses_is_found_by_switches(
    tmp_path: Path, dtype: str, before: float, after: float
) -> None:
    path = cancelling(tmp_path)
    plain = converted(path, recipe(dtype, guard=False), rows(0, 0.5))
    assert rounded_db(path, plain.path, rows(0, 0.5, 1)) < before
    safe = converted(path, recipe(dtype, guard=True), rows(0, 0.5))
    assert [name[:3] for name in safe.guarded_nodes] == ["Add", "Sub"]
    assert rounded_db(path, safe.path, rows(0, 0.5, 1)) > after
    (note,) = safe.notes
    assert note.startswith(f"2 nodes kept in fp32 by the rounding guard, since rounding to {dtype} left ")
    assert safe.compute_types[dtype] == 2, "the products are still in the type"


def test_a_network_that_no_few_nodes_mend_is_left_as_it_is_and_says_so(tmp_path: Path) -> None:
    """Sixteen steps of the logistic map lose a bit each."""
    g = Author()
    last = g.op("Sigmoid", "x")
    for _ in range(16):
        last = g.op("Mul", g.op("Mul", last, g.const(np.float32(3.99))), g.op("Sub", g.const(np.float32(1)), last))
    path = saved(tmp_path, g, last)
    typed = converted(path, recipe("fp16", guard=True), rows(0, 1))
    assert typed.guarded_nodes == ()
    (note,) = typed.notes
    assert note.startswith("rounding to fp16 leaves ")
    assert note.endswith("no few nodes in fp32 mend it; precision=fp32 or tf32 keeps them")


def test_outputs_of_nothing_and_kept_nodes_are_not_looked_into(tmp_path: Path) -> None:
    model = onnx_graph.infer_types(onnx.load(cancelling(tmp_path)))
    batch = {"x": rows(0, 0.5)}
    kept = [node.name for node in model.graph.node if node.op_type in {"Add", "Sub"}]
    loss = rounding_guard.rounding_loss(model, "fp16", [batch], kept)
    assert loss is not None
    assert (loss.nodes, loss.before_db) == ((), loss.after_db)
    assert loss.before_db > 40
    assert rounding_guard.rounding_loss(model, "fp16", [{"x": batch["x"] * 0}]) is None
    assert rounding_guard.rounding_loss(model, "fp16", []) is None

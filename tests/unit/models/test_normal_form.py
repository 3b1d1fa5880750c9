"""Files that libraries read in different ways, and the one form in which they read them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from user_files import FLOAT, measured, node, node_names, save, value, weight

from sweep import models
from sweep.models import TensorSpec, write_normal_form
from sweep.spec import InputFix, ModelRef

if TYPE_CHECKING:
    from pathlib import Path


def outer_sum(path: Path, name: str, *, hints: bool = True) -> Path:
    """Add x [a, b] and y [c, d, 1]: the sizes are free of each other, and all have one name."""
    nodes = [node("Relu", ["x"], ["p"]), node("Relu", ["y"], ["q"]), node("Add", ["p", "q"], ["z"])]
    nodes.append(node("Relu", ["q"], ["w"]))
    outputs = [value("z", FLOAT, [name, name, name]), value("w", FLOAT, [name, name, 1])]
    known = [value("p", FLOAT, [name, name]), value("q", FLOAT, [name, name, 1])] if hints else []
    inputs = [value("x", FLOAT, [name, name]), value("y", FLOAT, [name, name, 1])]
    return save(path, nodes, inputs, outputs, value_info=known)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["?", "unk__10", "", "same"])
def test_one_name_and_several_sizes_are_measured(name: str, precision: str, tmp_path: Path) -> None:
    path = outer_sum(tmp_path / "net.onnx", name)
    result = measured(path, precision, x=(3, 5), y=("batch", 3, 1))
    assert result["accuracy"]["max_abs"] == (0 if precision == "fp32" else pytest.approx(0, abs=0.01))


def test_sizes_are_written_and_stale_names_dropped(tmp_path: Path) -> None:
    path = outer_sum(tmp_path / "net.onnx", "same")
    ref = ModelRef(name="m", path=str(path), inputs=(InputFix(name="x", shape=(3, 5)),))
    fixes = (*ref.inputs, InputFix(name="y", shape=("batch", 3, 1)))
    ref = ModelRef(name="m", path=str(path), inputs=fixes)
    assert models.needs_normal_form(path, ref)
    write_normal_form(path, models.signature(ref).inputs, tmp_path / "out.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    assert [item.shape for item in session.get_inputs()] == [[3, 5], ["batch", 3, 1]]
    assert [item.shape for item in session.get_outputs()] == [["batch", 3, 5], ["batch", 3, 1]]
    x, y = np.ones((3, 5), np.float32), np.ones((4, 3, 1), np.float32)
    assert session.run(None, {"x": x, "y": y})[0].shape == (4, 3, 5)


@pytest.mark.parametrize("symbol", ["batch", "N", "rows"])
def test_a_file_whose_only_name_is_the_batch_is_used_as_it_is(symbol: str, tmp_path: Path) -> None:
    path = save(
        tmp_path / "net.onnx",
        [node("Relu", ["x"], ["y"])],
        [value("x", FLOAT, [symbol, 4])],
        [value("y", FLOAT, [symbol, 4])],
    )
    assert not models.needs_normal_form(path, ModelRef(name="m", path=str(path)))


def test_a_shape_that_the_file_lacks_is_written(tmp_path: Path) -> None:
    path = save(
        tmp_path / "net.onnx", [node("Relu", ["x"], ["y"])], [value("x", FLOAT, None)], [value("y", FLOAT, None)]
    )
    assert measured(path, x=("batch", 4))["accuracy"]["max_abs"] == 0
    write_normal_form(path, (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),), tmp_path / "out.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "out.onnx").get_outputs()[0].shape == ["batch", 4]


def twice_named(path: Path) -> Path:
    """Two MatMul of one name, and that name once more in the branches of an If, which use the free ``mm_1`` too."""
    branch = helper.make_graph([node("Neg", ["b"], ["o"], name="mm")], "t", [], [value("o", FLOAT, None)])
    other = helper.make_graph([node("Abs", ["b"], ["u"], name="mm_1")], "e", [], [value("u", FLOAT, None)])
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="mm"),
        node("MatMul", ["a", "v"], ["b"], name="mm"),
        node("ReduceSum", ["b"], ["s"], keepdims=0),
        node("Cast", ["s"], ["c"], to=onnx.TensorProto.BOOL),
        node("If", ["c"], ["y"], then_branch=branch, else_branch=other),
    ]
    inputs, outputs = [value("x", FLOAT, ["batch", 8])], [value("y", FLOAT, ["batch", 8])]
    return save(path, nodes, inputs, outputs, [weight("w", 8, 8), weight("v", 8, 8)])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nodes_of_one_name_are_measured(precision: str, tmp_path: Path) -> None:
    result = measured(twice_named(tmp_path / "net.onnx"), precision)
    assert result["accuracy"]["sqnr_db"] is None or result["accuracy"]["sqnr_db"] > 15


def test_names_are_unique_and_the_first_is_kept(tmp_path: Path) -> None:
    path = twice_named(tmp_path / "net.onnx")
    write_normal_form(path, models.signature(ModelRef(name="m", path=str(path))).inputs, tmp_path / "out.onnx")
    assert node_names(tmp_path / "out.onnx") == ["mm", "mm_2", "", "", "", "mm_1", "mm_3"]


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights_become_dense(flat: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    dense = np.zeros((4, 3), np.float32)
    dense[0, 1], dense[2, 0], dense[3, 2] = 2, -1, 0.5
    indices = np.flatnonzero(dense) if flat else np.argwhere(dense)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense != 0], "w"), numpy_helper.from_array(indices.astype(np.int64), "i"), [4, 3]
    )
    path = save(
        tmp_path / "net.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", 4])],
        [value("y", FLOAT, ["batch", 3])],
        sparse_initializer=[sparse],
    )
    ref = ModelRef(name="m", path=str(path))
    write_normal_form(path, models.signature(ref).inputs, tmp_path / "out.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]), dense)
    for precision in ("fp32", "fp16", "int8"):
        accuracy = measured(path, precision)["accuracy"]
        assert accuracy["sqnr_db"] is None or accuracy["sqnr_db"] > 20


def test_weights_in_another_file_go_with_the_graph(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save(
        folder / "net.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", "?", 8])],
        [value("y", FLOAT, ["batch", "?", 3])],
        [weight("w", 8, 3)],
    )
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert measured(folder / "net.onnx", x=("batch", 5, 8))["accuracy"]["max_abs"] == 0

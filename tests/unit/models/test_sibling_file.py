"""A typed file beside its network: read as the network is, and refused in one line where it is another one's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from onnx import TensorProto
from user_files import FLOAT, node, save, value

from sweep.errors import ModelError
from sweep.models import file_digest, sibling_ref, signature
from sweep.spec import InputFix, ModelRef

if TYPE_CHECKING:
    from pathlib import Path

HALF, INT64 = TensorProto.FLOAT16, TensorProto.INT64


def net(path: Path, shape: list, output: list, name: str = "x", result: str = "y", kind: int = FLOAT) -> Path:
    nodes = [node("Cast", [name], ["c"], to=FLOAT), node("Relu", ["c"], [result])]
    return save(path, nodes, [value(name, kind, shape)], [value(result, FLOAT, output)])


@pytest.fixture
def model(tmp_path: Path) -> ModelRef:
    path = net(tmp_path / "net.onnx", ["n", 3, "h"], ["n", 3, "h"])
    fix = InputFix(name="x", shape=("batch", 3, 8), low=-1.0, high=2.0)
    return ModelRef(name="net", path=str(path), digest=file_digest(path), inputs=(fix,))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (["n", 3, "h"], ("batch", 3, 8)),
        (["unk__1", 3, 8], ("batch", 3, 8)),
        (["?", "?", "?"], ("batch", 3, 8)),
        ([4, 3, 8], (4, 3, 8)),
    ],
    ids=["same names", "another name", "one name for all", "exported at the batch"],
)
def test_what_the_file_leaves_open_is_that_of_the_network(
    shape: list, expected: tuple, model: ModelRef, tmp_path: Path
) -> None:
    path = net(tmp_path / "typed.onnx", shape, ["other", 3, 8])
    ref = sibling_ref(model, str(path), 4)
    (spec,) = signature(ref).inputs
    assert (spec.shape, spec.low, spec.high) == (expected, -1.0, 2.0)
    assert (ref.name, ref.path, ref.digest) == ("net", str(path), file_digest(path))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": "image"}, "has the inputs image, the network has x; give"),
        ({"result": "z"}, "has the outputs z, the network has y; give"),
        ({"kind": HALF}, "input 'x' is float16, that of the network float32; give"),
        ({"shape": ["n", 4, "h"]}, "input 'x' is [n,4,h], that of the network [batch,3,8] at batch=4; give"),
        ({"shape": ["n", 3]}, "input 'x' is [n,3], that of the network [batch,3,8] at batch=4; give"),
        ({"shape": [1, 3, 8]}, "input 'x' is [1,3,8], that of the network [batch,3,8] at batch=4; give"),
        ({"output": ["n", 5, 8]}, "output 'y' is [n,5,8], that of the network [n,3,h]; give"),
        ({"output": ["n", 3]}, "output 'y' is [n,3], that of the network [n,3,h]; give"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_another_networks_file_is_one_line(changes: dict, line: str, model: ModelRef, tmp_path: Path) -> None:
    arguments = {"shape": ["n", 3, "h"], "output": ["n", 3, "h"], **changes}
    path = net(tmp_path / "typed.onnx", **arguments)
    with pytest.raises(ModelError) as caught:
        sibling_ref(model, str(path), 4)
    assert f"precision.path={path}" in str(caught.value)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_of_integers_is_not_one_of_floats(model: ModelRef, tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["y"], to=INT64)]
    path = save(tmp_path / "t.onnx", nodes, [value("x", FLOAT, ["n", 3, 8])], [value("y", INT64, ["n", 3, 8])])
    with pytest.raises(ModelError, match="output 'y' is of no floats, that of the network of floats"):
        sibling_ref(model, str(path), 4)


def test_a_network_that_is_built_here_has_typed_siblings_too(tmp_path: Path) -> None:
    mlp = ModelRef(name="mlp")
    path = net(tmp_path / "typed.onnx", ["n", 784], ["n", 10], result="logits")
    assert signature(sibling_ref(mlp, str(path), 4)).inputs[0].shape == ("batch", 784)
    with pytest.raises(ModelError, match="has the outputs y, the network has logits"):
        sibling_ref(mlp, str(net(path, ["n", 784], ["n", 10])), 4)


def test_a_file_that_is_not_there_is_told_by_its_own_key(model: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: No such file or directory; give precision.path the path of"):
        sibling_ref(model, str(tmp_path / "gone.onnx"), 4)

"""What a message says to type is typed, through a shell and Hydra, and has to pass in one round."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep import spec
from sweep.config import compose, reproduce, variants
from sweep.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import Variant

NAMES = [
    *("x", "a-b", "x:0", "onnx::Conv_1", "0", "1e3", "null", "donn\u00e9es", "#c", 'q"q', "it's", "a b", "{k:[v]}"),
    *("a=b,c", "back\\slash", "end\\", "$HOME", "\u540d", "~", "called_0"),
]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(path: Path, inputs: dict[str, list[int | str | None]]) -> Path:
    """Sum each input and add the sums: any number of inputs, of any shape."""
    nodes = [helper.make_node("ReduceSum", [name], [f"sum {i}"], keepdims=0) for i, name in enumerate(inputs)]
    nodes.append(helper.make_node("Sum", [f"sum {i}" for i in range(len(inputs))], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])
    graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "weight"))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def planned(*words: str) -> list[Variant]:
    request = compose.read(["backend=onnxruntime", *words])
    assert request is not None
    return [variants.from_config(config) for config in request.configs]


def advice(path: Path, *words: str) -> list[str]:
    """Return the words that the refusal says to type, as a shell splits them."""
    with pytest.raises(ModelError) as error:
        planned(f"model.path={path}", *words)
    printed = re.search(r"(?:for example|which is the batch:) (.*)", str(error.value))
    assert printed is not None
    return shlex.split(printed[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_advice_for_a_name_passes_and_its_settings_reproduce_the_variant(name: str, folder: Path) -> None:
    path = saved(folder / "net.onnx", {name: ["batch", "seq", 16]})
    (variant,) = planned(f"model.path={path}", *advice(path))
    assert [(fix.name, fix.shape) for fix in variant.onnx.model.inputs] == [(name, ("batch", 128, 16))]
    (again,) = planned(*shlex.split(shlex.join(reproduce.overrides(variant))))
    assert spec.variant_key(again) == spec.variant_key(variant)


def test_all_names_at_once_pass(folder: Path) -> None:
    path = saved(folder / "net.onnx", {name: ["batch", f"size {i}"] for i, name in enumerate(NAMES)})
    (variant,) = planned(f"model.path={path}", *advice(path))
    assert {fix.name for fix in variant.onnx.model.inputs} == set(NAMES)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": ["batch", "seq"], "y": ["rows", 4], "z": ["cols", 3]},
        {"x": [None, None], "y": ["?", "?", 3], "z": ["unk__1", "unk__1"]},
        {"x": ["nodes", 4, "k"], "y": ["edges", 2], "z": ["edges", "nodes"]},
        {"x": ["N", "N"], "y": ["N", 4], "z": [2, "N"]},
        {"x": ["sequence_length", "?", 8], "y": ["sequence_length"]},
        {"x": ["a b", 4], "y": ["c'd", 4]},
        {"x": None, "y": [None, "seq"]},
        {"x": ["time"], "y": ["height", "width"]},
    ],
)
def test_the_advice_needs_one_round(inputs: dict[str, list[int | str | None]], folder: Path) -> None:
    path = saved(folder / "net.onnx", inputs)
    (variant,) = planned(f"model.path={path}", *advice(path))
    assert variant.onnx.model.path == str(path)


def test_what_is_fixed_already_is_kept_beside_the_advice(folder: Path) -> None:
    path = saved(folder / "net.onnx", {"x": ["unk", "unk"], "0": ["unk", 3], "y": ["unk", "unk"]})
    words = ["+model.inputs.x.shape=[batch,7]", "+model.inputs.called_0={name:'0',shape:[5,3],low:0,high:2}"]
    (variant,) = planned(f"model.path={path}", *words, *advice(path, *words))
    fixes = {fix.name: (fix.shape, fix.high) for fix in variant.onnx.model.inputs}
    assert fixes == {"x": (("batch", 7), None), "0": ((5, 3), 2.0), "y": (("batch", 128), None)}


def test_two_tables_of_one_input_are_refused(folder: Path) -> None:
    path = saved(folder / "net.onnx", {"x": ["batch", "seq"]})
    words = ("+model.inputs.x.shape=[batch,7]", "+model.inputs.other={name:x,low:1}")
    with pytest.raises(Exception, match=r"model\.inputs names 'x' twice"):
        planned(f"model.path={path}", *words)
    with pytest.raises(Exception, match=r"model\.inputs\.other.name=5: must be text"):
        planned(f"model.path={path}", "+model.inputs.other={name:5}")

"""Every ONNX file that is saved can be read by the installed onnxruntime."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx
import onnxruntime
import pytest
from authored_graphs import NETWORKS

import sweep
from sweep.precision import convert
from sweep.spec import Precision
from sweep.system import is_readable_ir, readable_ir_version, save_onnx

ROOT = Path(sweep.__file__).parent
SAVES = {"save", "save_model", "SerializeToString", "SerializePartialToString", "save_tensor"}
OWN = {
    "system/onnx_files.py": {"save_model", "SerializeToString"},  # the function itself, and its probe
    "report/mlflow/registry.py": {"save_model"},  # of mlflow.pyfunc
}


def test_the_newest_version_that_is_read_is_told_from_the_next() -> None:
    newest = readable_ir_version()
    assert 10 <= newest <= onnx.IR_VERSION
    model = NETWORKS["matrices"]()
    for version in range(10, onnx.IR_VERSION + 1):
        model.ir_version = version
        if version <= newest:
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        else:
            with pytest.raises(Exception, match="Unsupported model IR version"):
                onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert is_readable_ir(version) == (version <= newest)


@pytest.mark.parametrize("weights", [None, "new.onnx.data"])
def test_a_model_of_todays_onnx_is_saved_so_that_it_is_read(weights: str | None, tmp_path: Path) -> None:
    model, target = NETWORKS["transformer"](), tmp_path / "new.onnx"
    model.ir_version = onnx.IR_VERSION
    save_onnx(model, target, weights)
    assert onnx.load(target).ir_version == min(onnx.IR_VERSION, readable_ir_version())
    onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert (tmp_path / "new.onnx.data").exists() == (weights is not None)


def test_an_older_model_keeps_its_version(tmp_path: Path) -> None:
    model = NETWORKS["matrices"]()
    model.ir_version = 8
    save_onnx(model, tmp_path / "old.onnx")
    assert onnx.load(tmp_path / "old.onnx").ir_version == 8


def test_a_conversion_of_todays_file_is_read(tmp_path: Path) -> None:
    model = NETWORKS["matrices"]()
    model.ir_version = onnx.IR_VERSION
    onnx.save(model, tmp_path / "new.onnx")
    typed = convert(tmp_path / "new.onnx", Precision(name="fp16", dtype="fp16"), [], tmp_path / "typed.onnx")
    assert is_readable_ir(onnx.load(typed.path).ir_version)


def saves(path: Path) -> set[str]:
    """Name what a module calls to turn a model into a file or bytes, by attribute of onnx or of a model."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    attributes = [func for func in calls if isinstance(func, ast.Attribute) and func.attr in SAVES]
    return {
        func.attr
        for func in attributes
        if func.attr != "save" or (isinstance(func.value, ast.Name) and func.value.id == "onnx")
    }


def test_every_save_goes_through_the_one_function() -> None:
    names = {path.relative_to(ROOT).as_posix(): saves(path) for path in sorted(ROOT.rglob("*.py"))}
    assert {name: calls for name, calls in names.items() if calls} == OWN


def test_a_save_elsewhere_would_be_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    for line, seen in {
        "onnx.save(model, path)": {"save"},
        "onnx.save_model(model, path)": {"save_model"},
        "path.write_bytes(model.SerializeToString())": {"SerializeToString"},
        "onnx_graph.save(model, path)": set(),
    }.items():
        module.write_text(f"{line}\n")
        assert saves(module) == seen, line

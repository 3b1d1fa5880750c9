"""A model file that changes in mid-sweep: what was measured stays, the rest is refused, and nothing is mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import CLOSED, Cli
from mlflow_ui import wait_until
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

BOMB = "\n".join(
    ["# @package _global_", "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
)


def write(path: Path, factor: float) -> None:
    """Y = x @ w; the weights are ``factor``, so that the file's size never changes."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(np.full((64, 64), factor, np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    scratch = path.with_suffix(".new")
    onnx.save(made, scratch)
    scratch.replace(path)


def test_a_model_that_changes_in_mid_sweep_is_refused_and_never_mixed(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(path, 1.0)
    words = ("-m", f"model.path={path}", "batch=1,2,3", *CLOSED, "load.min_s=0.3", "name=s")
    process = cli.start(*words)
    wait_until(lambda: bool(list(cli.results.glob("s/records/*.json"))), 60, lambda: "no record")
    write(path, 2.0)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    first = {record.key: record for record in cli.records()}
    refused = [record for record in first.values() if record.status == "failed"]
    assert len(first) == 3
    assert len(refused) >= 1  # the second may have ended before the file was changed
    for record in refused:
        assert record.error
        assert "has changed since it was planned" in record.error["message"]
        assert "start the sweep again" in record.error["message"]

    again = cli.run(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 to measure" in again.stdout
    assert "measured already" not in again.stdout
    now = {record.key: record for record in cli.records()}
    assert {key: now[key] for key in first} == first
    assert [record.status for key, record in now.items() if key not in first] == ["ok"] * 3


def test_a_yaml_bomb_ends_in_one_line_and_little_memory(cli: Cli, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "bomb.yaml").write_text(BOMB)
    done = cli.run("--config-dir", str(own.parent), "+experiment=bomb", timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "its aliases (*name) stand for more than" in done.stderr
    assert not cli.results.exists()

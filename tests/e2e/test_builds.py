"""Streams, CUDA graph, load and MPS never rebuild an engine; batch and precision do. Counted in real workers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import require
from authored_graphs import NETWORKS, batch
from onnx import TensorProto, helper

from sweep.analysis.accuracy import REFERENCE
from sweep.precision import convert
from sweep.spec import Precision
from sweep.system.environment import machine

if TYPE_CHECKING:
    from conftest import Cli

pytestmark = pytest.mark.e2e

SHORT = ("load.min_s=0.05", "load.warmup_s=0.02", "load.min_requests=9", "load.max_s=0.2")
COUNTING = Path(__file__).parent / "counting"


class Counted:
    """The command line, with every build in every worker written down."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self._file = cli.results.parent / "builds"
        self.said = ""

    def run(self, *words: str) -> list[str]:
        """Sweep; the builds since the last call."""
        before = len(self._lines())
        path = os.pathsep.join([str(COUNTING), self.cli.environment()["PYTHONPATH"]])
        done = self.cli.run(*words, *SHORT, PYTHONPATH=path, SWEEP_TEST_BUILDS=str(self._file))
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = " ".join(done.stdout.split())
        assert {record.status for record in self.cli.records()} == {"ok"}
        return self._lines()[before:]

    def engines(self) -> int:
        return sum(path.is_dir() for path in (self.cli.results / "cache" / "engines").iterdir())

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


@pytest.fixture
def counted(cli: Cli) -> Counted:
    return Counted(cli)


def test_one_build_for_all_streams_loads_threads_and_repeats(counted: Counted) -> None:
    same = ("backend=onnxruntime", "precision=int8", "load.fractions=[0.5]")
    built = counted.run("-m", *same, "streams=1,2", "load=closed,quick", "backend.intra_op_threads=1,2", "repeats=2")
    assert len(counted.cli.records()) == 8
    assert len(built) == 1
    assert counted.run(*same, "streams=3", "load=poisson", "load.rates_ips=[50]", "seed=7") == []
    assert sum(not record.engine["cached"] for record in counted.cli.records() if record.engine) <= 1
    assert len({record.engine["key"] for record in counted.cli.records() if record.engine}) == 1


def test_one_build_for_all_graphs_mps_shares_and_clients(counted: Counted) -> None:
    axes = ("cuda_graph=true,false", "mps=null,50", "clients=1,2", "load=closed")
    built = counted.run("-m", "backend=simulated", *axes)
    assert len(counted.cli.records()) == 8
    assert len(built) == 1


def test_batch_and_precision_build_once_each_and_a_second_sweep_builds_nothing(counted: Counted) -> None:
    asked = ("-m", "backend=onnxruntime", "batch=1,2", "precision=fp32,fp16", "streams=1,2", "load=closed")
    built = counted.run(*asked)
    assert sorted(line.split(" s")[0] for line in built) == [
        f"onnxruntime tiny_cnn {precision} b{batch}" for precision in ("fp16", "fp32") for batch in (1, 2)
    ]
    assert counted.run(*asked, "force=true") == []


def test_an_engine_that_does_not_build_is_tried_once_and_every_variant_of_it_says_why(cli: Cli, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    node = helper.make_node("NoSuchOp", ["x"], ["y"], "odd", domain="acme")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    done = cli.run("-m", "backend=onnxruntime", f"model.path={tmp_path / 'odd.onnx'}", "streams=1,2,3", *SHORT)
    assert done.returncode == 1
    errors = [record.error or {} for record in cli.records()]
    assert [(error["stage"], error["kind"]) for error in errors] == [("build", "BuildError")] * 3
    assert all("onnxruntime refused the graph" in error["message"] for error in errors)
    assert sum("said of this engine once" in error["message"] for error in errors) == 2


def test_repeated_passes_keep_their_engines_in_a_cache_too_small_for_them(counted: Counted) -> None:
    asked = ("-m", "backend=onnxruntime", "batch=1,2", "load=closed", "cache_gib=0.00001")
    assert len(counted.run(*asked, "name=once")) == 2
    assert counted.engines() == 1  # the first made room for the second
    assert len(counted.run(*asked, "repeats=2", "name=twice")) == 2  # of four passes: held from first to last


def test_builds_build_afresh_at_every_sweep_and_leave_nothing_in_the_cache(counted: Counted) -> None:
    asked = ("backend=onnxruntime", "load=closed", "builds=2")
    assert len(counted.run(*asked)) == 2
    assert "2 engines were built, all of one plan; their peaks differ by" in counted.said
    assert len(counted.run(*asked, "force=true")) == 2
    (record,) = counted.cli.records()
    assert record.engine
    assert [start["build"] for start in record.engine["starts"]] == [0, 1]
    assert not record.engine["cached"]
    assert counted.engines() == 0


def test_a_damaged_model_is_built_again_and_said(counted: Counted) -> None:
    asked = ("backend=onnxruntime", "load=closed", "force=true")
    counted.run(*asked)
    model = next(counted.cli.results.glob("cache/models/*/model.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    assert counted.run(*asked) == []  # the network is the same again, and so is its engine
    assert "is damaged (model.onnx changed): built again" in counted.said


def test_build_only_fills_the_cache_and_measures_nothing(cli: Cli) -> None:
    words = ("-m", "backend=onnxruntime", "batch=1,2", "precision=fp32,tf32", "streams=1,2")
    done = cli.run(*words, "build_only=true")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(", ")[0] for line in lines if line.startswith("[")] == [
        f"[{number}/2] tiny_cnn fp32 b{number} s1 (and 1 more of this engine)  built" for number in (1, 2)
    ]
    assert "engines: 2 built" in lines
    assert any(line.startswith("unsupported here: 4 variants: onnxruntime's CPU provider does not") for line in lines)
    assert cli.records() == []
    assert cli.run(*words, *SHORT, "load=closed").returncode == 0
    assert [record.engine["cached"] for record in cli.records() if record.engine] == [True] * 4


def test_a_plan_of_build_only_is_what_model_engine_takes(cli: Cli) -> None:
    """Built without a GPU where there is none, kept in the sweep's folder, and timed where a GPU is."""
    require.library_for("tensorrt_rtx")
    words = ("backend=tensorrt_rtx", "model=mlp", "batch=4", "backend.compute_capability=8.9")
    done = cli.run(*words, "build_only=true", "name=built")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line.strip() for line in done.stdout.splitlines() if "model.engine=" in line)
    kept = cli.results / "built" / "plans"
    assert [f"model.engine={path}" for path in kept.iterdir()] == [line]
    assert next(kept.iterdir()).name.startswith("mlp_fp32_b4_s1_cc8.9-")
    shutil.rmtree(cli.results / "cache")
    timed = cli.run(line, "batch=4", "name=timed", *SHORT)
    assert "backend: tensorrt_rtx (auto: mlp_fp32_b4_s1_cc8.9-" in timed.stdout
    (record,) = cli.records()
    assert (record.variant["precision"], record.status in {"ok", "failed", "unsupported"}) == ("as-built", True)
    assert timed.returncode == int(record.status == "failed")  # a GPU of another compute capability refuses it
    if machine()["gpu"] is None:
        assert (record.error or {})["message"] == "tensorrt_rtx runs on an NVIDIA GPU and none is seen here"


def test_an_engine_that_does_not_build_is_named_with_build_only(cli: Cli, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)]
    node = helper.make_node("NoSuchOp", ["x"], ["y"], "odd", domain="acme")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    path = tmp_path / "odd.onnx"
    done = cli.run("-m", "backend=onnxruntime", f"model.path={path}", "batch=1,2", "build_only=true")
    assert done.returncode == 1
    assert done.stdout.count("failed  build: onnxruntime refused the graph") == 2
    assert "engines: 2 failed" in done.stdout


def test_a_search_writes_a_recipe_that_repeats_it_and_a_quantized_sibling_runs_beside_it(
    cli: Cli, tmp_path: Path
) -> None:
    """The commands that the pages show, and what their records say."""
    path, typed = tmp_path / "net.onnx", tmp_path / "qat.onnx"
    onnx.save(NETWORKS["cnn"](), path)
    int8 = Precision(name="int8", dtype="int8", quantize_ops=("Conv", "Gemm"), keep=("Gemm9",))
    convert(path, int8, [batch(NETWORKS["cnn"](), 8, 1)], typed)
    words = ("backend=onnxruntime", f"model.path={path}", "load=closed", *SHORT)
    search = ("precision.search=true", "accuracy.min_sqnr_db=50")
    done = cli.run("-m", *words, "precision=fp32,int8,qat", f"precision.path={typed}", *search)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {record.variant["precision"]: record for record in cli.records()}
    found = records["int8"].engine["node_search"]
    assert (found["reached"], found["nodes"], found["gates"]) == (True, ["Gemm9"], {"min_sqnr_db": 50.0})
    assert found["before"]["sqnr_db"] < 50 < found["after"]["sqnr_db"]
    assert records["int8"].engine["onnx_notes"] == ["1 node kept in fp32 by precision.keep: Gemm9"]
    assert records["qat"].engine["dtypes"]["int8"] == 3
    assert {record.accuracy["reference"] for record in records.values()} == {REFERENCE}
    assert "peak over" in done.stdout
    words = (*words, "--config-dir", str(cli.results / "recipes"), f"precision={found['recipe']}")
    done = cli.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = (record for record in cli.records() if record.variant["precision"] == found["recipe"])
    assert again.variant["precision_recipe"]["keep"] == ["Gemm9"]
    assert again.accuracy["sqnr_db"] == records["int8"].accuracy["sqnr_db"]
    assert again.engine["onnx_notes"] == records["int8"].engine["onnx_notes"]

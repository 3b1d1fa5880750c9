"""The command as a user types it, with real inference."""

from __future__ import annotations

import resource
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import CLOSED, QUICK, Cli
from onnx import TensorProto, helper, numpy_helper

from sweep.config.schema import help_lines
from sweep.storage import samples_file

pytestmark = pytest.mark.e2e

SIX = ("-m", "precision=fp16,int8", "batch=1,8,32")
CALM = (*QUICK[:-1], "load.fractions=[0.1,0.2]")  # a neighbour that takes half of the machine overloads no point


def onnx_file(path: Path, *, op: str = "Relu", domain: str = "", batch: int | str = "batch") -> Path:
    """A one-weight network of 16 features, with a last op of choice."""
    weight = numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node(op, ["h"], ["y"], name="last", domain=domain),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 16]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_the_main_job_measures_six_variants_and_answers(cli: Cli) -> None:
    done = cli.run(*SIX, *CALM)
    assert done.returncode == 0, done.stdout + done.stderr
    records = cli.records()
    assert sorted((item.variant["precision"], item.variant["batch"]) for item in records) == [
        (precision, batch) for precision in ("fp16", "int8") for batch in (1, 8, 32)
    ]
    for item in records:
        assert item.status == "ok"
        assert item.peak
        assert item.peak["ips"] > 0
        assert len(item.points) == 2
        assert item.accuracy
        assert item.accuracy["sqnr_db"] > 15
        assert item.realised
        assert item.realised["contexts"] == 1
        assert samples_file.load(cli.stores()[0].samples_path(item.key))
    assert "backend: onnxruntime (auto: " in done.stdout
    steady = [item for item in records if item.peak["verdict"] == "ok"]  # of these alone the answer is, if of any
    starts = "one start" if len(steady) == 1 else "one start each"
    assert f"{starts}; what starts differ by here is not known" in done.stdout
    assert "is emulated" in done.stdout
    assert (cli.stores()[0].root / "report.html").exists()

    before = [path.stat().st_mtime_ns for path in sorted(cli.results.glob("*/records/*"))]
    again = cli.run(*SIX, *CALM)
    assert again.returncode == 0
    assert "0 to measure, 6 measured already" in again.stdout
    assert [path.stat().st_mtime_ns for path in sorted(cli.results.glob("*/records/*"))] == before

    judged = cli.run(*SIX, *CALM, "slo.p50_ms=500", "slo.search=false")
    assert "0 to measure" in judged.stdout
    for item in cli.records():
        assert item.slo
        assert (item.slo["percentile"], item.slo["limit_ms"]) == (50, 500)

    started = {item.key: item.started_at for item in cli.records()}
    assert cli.run(*SIX, *CALM, "force=true", "only=[batch=1]").returncode == 0
    again = {item.key: item for item in cli.records()}
    assert again.keys() == started.keys()
    for key, item in again.items():
        assert (item.started_at > started[key]) == (item.variant["batch"] == 1)
        assert item.started_at >= started[key]


def test_a_limit_is_answered_from_what_was_measured_before(cli: Cli) -> None:
    words = ("-m", "backend=simulated", "batch=1,8", *QUICK)  # its clock is virtual, so that its points are steady
    assert cli.run(*words).returncode == 0
    judged = cli.run(*words, "slo.p50_ms=500", "slo.search=false")
    assert "0 to measure, 2 measured already" in judged.stdout
    assert "samples/s keep p50 <= 500 ms" in judged.stdout


def test_engines_are_shared_by_streams_and_kept_between_sweeps(cli: Cli) -> None:
    cli.run("-m", "streams=1,2", "precision=int8", *CLOSED, "name=a")
    cli.run("-m", "streams=2,1", "precision=int8", *CLOSED, "load.min_s=0.2", "name=b")
    assert len([path for path in (cli.results / "cache" / "engines").iterdir() if path.is_dir()]) == 1
    assert [record.engine["cached"] for record in cli.records() if record.engine].count(False) == 1
    assert sorted(record.realised["contexts"] for record in cli.records() if record.realised) == [1, 1, 2, 2]


def test_repeats_pool_their_samples_at_the_same_rates(cli: Cli) -> None:
    done = cli.run("-m", "batch=1,8", "repeats=2", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    for record in cli.records():
        points = samples_file.load(cli.stores()[0].samples_path(record.key))
        assert sorted({point.repeat for point in points}) == [0, 1]
        rungs = [point for point in points if point.index == 0]
        assert rungs[0].offered_rps == rungs[1].offered_rps
        assert record.points[0]["requests"] == sum(int(point.measured.sum()) for point in rungs)
        assert record.engine
        starts = record.engine["starts"]
        assert [(start["fresh"], start["build"]) for start in starts] == [(True, None)] * 2
        assert {start["plan_digest"] for start in starts} == {record.engine["plan_digest"]}
        assert record.peak
        assert record.peak["start_cv"] is not None
    assert not list(cli.results.glob("*/parts"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["batchh=3"], "batchh: no such key; did you mean batch?"),
        (["+batchh=3"], "batchh: no such key; did you mean batch?"),
        (["load.min_ss=3"], "load.min_ss: no such key; did you mean load.min_s?"),
        (["-m", "batch=1,abc"], "batch=abc: "),
        (["batch=abc"], "batch=abc: "),
        (["batch=0"], "batch=0: must be 1 or more"),
        (["-m", "batch=1,0"], "batch=0: must be 1 or more"),
        (["mps=150"], "mps=150: a percentage from 1 to 100"),
        (["streams=-1"], "streams=-1: must be 1 or more"),
        (["cuda_graph=perhaps"], "cuda_graph=perhaps: "),
        (["precision=fp33"], "precision=fp33: no such precision; there are: bf16, fp16, "),
        (["-m", "precision=fp16,fp33"], "precision=fp33: no such precision; there are: "),
        (["model=resnet51"], "model=resnet51: no such model; there are: "),
        (["backend=tensorflow"], "backend=tensorflow: no such backend; there are: "),
        (["+experiment=nope"], "experiment=nope: no such experiment; there are: batch_scaling, "),
        (["model.path=/nowhere/model.onnx"], "/nowhere/model.onnx"),
        (["model.path=broken.onnx"], "broken.onnx"),
        (["model.path=fixed.onnx", "batch=8"], "no batch axis"),
        (["model.path=good.onnx", "+model.inputs.z.shape=[batch,16]"], "z"),
        (["load=poisson"], "load.kind=poisson needs load.rates_ips"),
        (["slo.p99_ms=1", "slo.p50_ms=1"], "set one"),
        (["slo.p99_ms=-1"], "slo.p99_ms=-1: must be above 0"),
        (["slo.p99_ms=1500"], "slo.p99_ms=1500 is above load.max_wait_s=1 s"),
        (["load.points=2"], "load.points=2: must be 3 or more"),
        (["load.budget_s=2"], "load.budget_s=2: 8 points with load.warmup_s=0.3 and repeats=1 need 5.8 or more"),
        (["name=../outside"], "name=../outside: "),
        (["batch=[1"], "batch=[1"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(cli: Cli, words: list[str], line: str) -> None:
    folder = cli.results.parent
    (folder / "broken.onnx").write_bytes(b"\x00not an onnx file")
    onnx_file(folder / "fixed.onnx", batch=1)
    onnx_file(folder / "good.onnx")
    before = sorted(path.name for path in folder.iterdir())
    done = cli.run(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_failing_variant_does_not_stop_the_others(cli: Cli) -> None:
    good = onnx_file(cli.results.parent / "good.onnx")
    lacking = onnx_file(cli.results.parent / "lacking.onnx", op="Frobnicate", domain="com.example")
    done = cli.run("-m", f"model.path={lacking},{good}", *QUICK)
    assert done.returncode == 1
    by_model = {record.variant["model"]: record for record in cli.records()}
    assert by_model["good"].status == "ok"
    failed = by_model["lacking"]
    assert failed.status == "failed"
    assert failed.error
    assert failed.error["stage"] == "build"
    assert "Frobnicate" in failed.error["message"]
    assert failed.error["stderr_tail"]
    assert "lacking fp32 b1 s1: failed at build" in done.stdout


def test_what_the_backend_lacks_is_unsupported_and_exit_0(cli: Cli) -> None:
    done = cli.run("-m", "precision=fp32,tf32", "mps=null,50", *CLOSED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(record.status for record in cli.records()) == ["ok", "unsupported", "unsupported", "unsupported"]
    reasons = {record.error["message"] for record in cli.records() if record.error}
    assert any("does not have mps" in reason for reason in reasons)
    assert any("does not run precision=tf32" in reason for reason in reasons)


def test_a_thousand_variants_plan_in_ten_seconds(cli: Cli) -> None:
    batches = ",".join(str(number) for number in range(1, 126))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ("-m", "precision=fp32,fp16,int8,tf32", f"batch={batches}", "streams=1,1,2", "plan=true")
    done = cli.run(*words, fresh=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    flat = " ".join(done.stdout.split())
    assert "1000 variants, 375 engines, 750 to measure, 500 duplicates dropped, 250 unsupported here." in flat
    assert "Predicted time: " in flat
    assert not cli.results.exists()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


@pytest.mark.parametrize("name", ["quickstart", "precision_ladder", "batch_scaling"])
def test_an_experiment_sweeps_without_m(cli: Cli, name: str) -> None:
    done = cli.run(f"+experiment={name}", "plan=true")
    assert done.returncode == 0
    variants = {"quickstart": 6, "precision_ladder": 12, "batch_scaling": 12}[name]
    assert f"{variants} variants" in done.stdout


def test_the_command_line_overrides_an_experiment(cli: Cli) -> None:
    done = cli.run("+experiment=quickstart", "batch=4", "plan=true")
    assert "2 variants" in done.stdout


def test_help_has_a_line_on_every_key(cli: Cli) -> None:
    done = cli.run("--help", "all", "model", "precision", "backend", "load", "experiment")
    assert done.returncode == 0
    for line in help_lines():
        assert line.strip() in done.stdout
        assert len(line.split(None, 1)[1]) > 10
    for choice in ("resnet50", "int8", "onnxruntime", "curve", "quickstart"):
        assert choice in done.stdout


def test_a_trained_network_with_control_flow_runs_through_model_path(cli: Cli) -> None:
    package = find_spec("silero_vad")
    assert package
    assert package.origin
    path = Path(package.origin).parent / "data" / "silero_vad.onnx"
    done = cli.run(
        "-m",
        f"model.path={path}",
        "batch=1,4",
        "+model.inputs.input.shape=[batch,512]",
        "+model.inputs.input.low=-1",
        "+model.inputs.input.high=1",
        "+model.inputs.state.shape=[2,batch,128]",
        "+model.inputs.sr.low=16000",
        "+model.inputs.sr.high=16000",
        *QUICK,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.status for record in cli.records()] == ["ok", "ok"]
    assert all(record.accuracy and record.accuracy["nonfinite"] == 0 for record in cli.records())


def test_external_data_runs_and_its_change_is_another_variant(cli: Cli) -> None:
    path = cli.results.parent / "split.onnx"
    model = onnx.load(onnx_file(cli.results.parent / "whole.onnx"))
    onnx.save(model, path, save_as_external_data=True, location="split.bin", size_threshold=0)
    words = (f"model.path={path}", *CLOSED, "name=x")
    assert cli.run(*words).returncode == 0
    weights = bytearray((cli.results.parent / "split.bin").read_bytes())
    weights[3] ^= 1
    (cli.results.parent / "split.bin").write_bytes(bytes(weights))
    assert cli.run(*words).returncode == 0
    assert len(cli.records()) == 2

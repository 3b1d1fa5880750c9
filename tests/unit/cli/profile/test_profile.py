"""``sweep profile``: the command lines of nsys and ncu, the child below them, and ncu's kernels beside their layers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import factories
import pytest

from sweep import spec
from sweep.backends import registry
from sweep.cli import commands
from sweep.cli.profile import kernels, main, nsight
from sweep.errors import ConfigError, ParityError
from sweep.runner.worker import artifacts
from sweep.storage import Record, Store
from sweep.storage.cache import Cache

NVTX = """
import os
def note(line):
    with open(os.environ["SWEEP_TEST_RANGES"], "a") as file:
        file.write(line + "\\n")
def push_range(message): note("+" + message)
def pop_range(): note("-")
"""
# A stand-in: keeps its arguments, runs what follows --output= and writes a report.
NSYS = """#!/bin/sh
printf '%s\\n' "$@" > "$SWEEP_TEST_ARGUMENTS"
while [ "${1#--output=}" = "$1" ]; do shift; done
report="${1#--output=}.nsys-rep"; shift
PYTHONPATH="$SWEEP_TEST_NVTX:$PYTHONPATH" "$@" && echo timeline > "$report"
"""
CSV = """==PROF== Connected to process 1
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","__myl_CastConc_0x07870b57a4013e50","gpu__time_duration.sum","ns","1,500"
"0","__myl_CastConc_0x07870b57a4013e50","sm__warps_active.avg.pct_of_peak_sustained_active","%","61.5"
"1","cudnn_convFwd","gpu__time_duration.sum","ns","20,000"
"1","cudnn_convFwd","launch__occupancy_limit_shared_mem","block","1"
"1","cudnn_convFwd","launch__occupancy_limit_registers","block","2"
"1","cudnn_convFwd","sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active","%","n/a"
"""
LAYERS = ["__myl_CastConc_myl0_0", "stem_U0_myl0_1"]


def executable(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of digits on onnxruntime, whose engine is in the cache."""
    variant = factories.variant(model="digits", precision="fp32", backend="onnxruntime", batch=4, streams=2)
    with Cache(tmp_path / "cache") as cache:
        engine = artifacts.make_artifacts(variant, registry.get("onnxruntime"), cache).engine.path.name
    store = Store(tmp_path / "s")
    made = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(variant),
        engine={"key": engine},
    )
    store.write(made)
    return tmp_path / "s" / "records" / f"{made.key}.json"


def test_a_loaded_engine_runs_below_nsys_with_ranges_and_its_report_is_kept(
    record: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    nvtx, log, arguments = tmp_path / "nvtx", tmp_path / "ranges", tmp_path / "arguments"
    nvtx.mkdir()
    (nvtx / "nvtx.py").write_text(NVTX)
    for name, path in (("NVTX", nvtx), ("RANGES", log), ("ARGUMENTS", arguments)):
        monkeypatch.setenv(f"SWEEP_TEST_{name}", str(path))
    monkeypatch.setenv("SWEEP_LOCK_DIR", str(tmp_path))
    binary, before = executable(tmp_path, "nsys", NSYS), record.read_bytes()
    words = [str(record), "--with", "nsys", "--binary", str(binary), "--inferences", "2", "--warmup", "1"]
    assert commands.main(["profile", *words]) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "s" / "profiles" / record.stem
    assert (folder / "nsys.nsys-rep").read_text() == "timeline\n"
    assert arguments.read_text().splitlines() == [
        *("profile", "--trace=nvtx,osrt", "--force-overwrite=true", f"--output={folder}/nsys"),
        *(sys.executable, "-m", "sweep.runner.worker.profiled_inferences", f"{folder}/request.json"),
    ]
    assert f"command  {binary} profile --trace=nvtx,osrt" in printed
    assert "ran      2 inferences on each of 2 streams, " in printed
    assert "ranges   NVTX, by the nvtx package" in printed
    assert f"report   {folder}/nsys.nsys-rep" in printed
    label = json.loads(before)["variant"]["label"]
    measured = [f"+variant {label}", "+stage measure", "+point one inference at a time on each stream"]
    ranges = log.read_text().splitlines()
    assert ranges[:4] == [f"+variant {label}", "+stage load", "-", "-"]
    assert ranges[4:8] == [f"+variant {label}", "+stage warm-up", "-", "-"]
    assert ranges[8:] == [*measured, "+inference 0", "-", "+inference 1", "-", "-", "-", "-"]
    assert record.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nsys", "--binary", "/nowhere/nsys"], "--binary /nowhere/nsys is no executable; install Nsight Systems: "),
        (["nsys"], "--with nsys: nsys is not on PATH; install Nsight Systems: apt install nsight-systems-cli"),
        (["ncu"], "backend=onnxruntime launches no kernel on a GPU, which is what ncu measures"),
        (
            ["nsys", "--binary", "/bin/sh", "--cache", "/nowhere"],
            "is no longer in /nowhere, and nothing is built below",
        ),
    ],
)
def test_what_cannot_be_profiled_is_one_line_and_2(
    record: Path, words: list[str], line: str, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nsight, "_TOOLKIT", Path("/nowhere"))
    assert commands.main(["profile", str(record), "--with", *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (record.parent.parent / "profiles").exists()


def test_on_a_gpu_the_profilers_see_the_inferences_alone() -> None:
    nsys = nsight.nsys_command("nsys", Path("/p/nsys.nsys-rep"), ["python", "x"], on_gpu=True)
    assert nsys == [
        *("nsys", "profile", "--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--cuda-graph-trace=node"),
        *("--trace=cuda,nvtx,osrt", "--force-overwrite=true", "--output=/p/nsys", "python", "x"),
    ]
    ncu = nsight.ncu_command("ncu", Path("/p/ncu.ncu-rep"), ["a", "b"], ["python", "x"])
    assert ncu[ncu.index("--profile-from-start") + 1] == "off"
    assert ncu[ncu.index("--metrics") + 1] == "a,b"
    assert ncu[ncu.index("--export") + 1] == "/p/ncu"
    assert ncu[-2:] == ["python", "x"]


def test_metrics_are_those_that_the_gpu_has() -> None:
    names = ("sm__inst_executed_pipe_tensor", "dram__bytes", "sm__warps_active")
    selected = nsight.select_metrics("".join(f"{name}    Counter  inst  some words\n" for name in names))
    assert nsight.TENSOR[1] in selected, "the first of those that this GPU has"
    assert not {nsight.TENSOR[0], nsight.TENSOR[2]} & set(selected)
    assert set(nsight.select_metrics("")) == {nsight.DURATION, nsight.SM, nsight.DRAM, *nsight.LIMITS}


def test_kernels_of_several_inferences_are_merged_and_joined_to_layers_by_their_order() -> None:
    twice = kernels.parse(CSV) + kernels.parse(CSV.replace("20,000", "30,000"))
    once = kernels.of_one_inference(twice, 2)
    assert [kernel.duration_us for kernel in once] == [1.5, 25.0]
    joined, how = kernels.join(once, LAYERS)
    assert [kernel.layer for kernel in joined] == LAYERS
    assert how == "by their order: 2 kernels, 2 layers"
    longest = kernels.longest(joined, 1)
    assert [kernel.name for kernel in longest] == ["cudnn_convFwd"]
    assert kernels.blocks_limit(longest[0]) == "shared_mem (1)"
    assert kernels.tensor_share(longest[0]) is None, "n/a is no figure"
    assert len(kernels.of_one_inference(twice[:3], 2)) == 3, "inferences that differ are not merged"


def test_kernels_of_another_number_are_joined_by_name_and_others_have_no_layer() -> None:
    joined, how = kernels.join(kernels.parse(CSV), ["__myl_CastConc_myl0_0"])
    assert [kernel.layer for kernel in joined] == ["__myl_CastConc_myl0_0", None]
    assert how == "by their names: 1 of 2 kernels, of 1 layers"
    with pytest.raises(ConfigError, match="no table of kernels"):
        kernels.parse("==ERROR== none\n")


def test_the_longest_kernels_are_printed_beside_their_layers(tmp_path: Path, capsys) -> None:
    (tmp_path / "inspector.json").write_text(json.dumps({"Layers": [{"Name": name} for name in LAYERS]}))
    main._print_kernels(CSV, {"inferences": 1, "streams": 1}, tmp_path, 5)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "kernels  2 of an inference, 21.5 us together; joined to layers by their order: 2 kernels, 2 layers"
    )
    row = next(line for line in lines if "stem_U0_myl0_1" in line)
    assert row.split()[1:8] == ["20.00", "93.0%", "-", "-", "-", "-", "-"]
    assert "shared_mem (1)" in row


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1", "the driver keeps the GPU's counters for admin"),
        ("echo 'sweep-profile: engine x is not in the cache'; exit 3", "^engine x is not in the cache; its output: "),
        ("echo '==ERROR== No metrics'; echo bye; exit 2", "ended with code 2.*==ERROR== No metrics"),
        ("true", "did not come to its end"),
    ],
)
def test_a_profiler_that_fails_says_why(tmp_path: Path, script: str, reason: str) -> None:
    binary = executable(tmp_path, "ncu", f"#!/bin/sh\n{script}\n")
    with pytest.raises(ParityError, match=reason):
        main._run([str(binary)], {}, tmp_path / "ncu.log", 60.0)


def test_a_link_in_place_of_the_reports_is_refused(record: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "s" / "profiles").symlink_to(tmp_path)
    assert commands.main(["profile", str(record), "--with", "nsys", "--binary", "/bin/sh"]) == 2
    assert "is a link to" in capsys.readouterr().err

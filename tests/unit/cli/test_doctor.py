"""The doctor on a real machine, in a process of its own."""

import os
import socket
import subprocess
import sys

import onnxruntime
import pytest

from sweep.analysis.layers import Peaks
from sweep.cli import commands, doctor, measure_peaks
from sweep.report.layers import read_peaks
from sweep.system import environment


def doctored(tmp_path, **environment):
    """Output and exit code of ``sweep doctor``; no tracking server unless one is given."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**kept, "COLUMNS": "250", **environment},
        timeout=60,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


def row(text, what):
    return next(line for line in text.splitlines() if f" {what} " in line)


def remedy(text, what):
    """The line that says how to mend it, below the table."""
    return next(line for line in text.splitlines() if line.startswith(f"  {what}: "))


def test_it_ends_well_and_leaves_nothing_behind(tmp_path) -> None:
    text, complaints, code = doctored(tmp_path)
    assert code == 0
    assert complaints == ""
    assert row(text, "onnxruntime").split()[0] == "yes"
    assert f"sqlite:///{tmp_path}/results/mlflow.db" in row(text, "MLflow")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_comes_with_its_remedy(tmp_path) -> None:
    """Without a PATH, no binary is there."""
    text, _, code = doctored(tmp_path, PATH="/nowhere")
    assert code == 0
    assert row(text, "Chromium (tests only)").split()[0] == "no"
    assert "apt-get install chromium chromium-driver" in remedy(text, "Chromium (tests only)")
    assert "comes with" in remedy(text, "trtexec")
    assert row(text, "MPS").split()[0] == "no"
    assert "nvidia-cuda-mps-control, which is not on PATH; it comes with" in remedy(text, "MPS")
    assert "sweeps run on onnxruntime, on the CPU" in remedy(text, "GPU")


LACKING = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "{name}":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""
HIDDEN = """
import importlib.util as util
find_spec = util.find_spec
util.find_spec = lambda name, *rest: None if name == "{name}" else find_spec(name, *rest)
"""


@pytest.mark.parametrize("name", ["onnxruntime", "onnx"])
def test_a_machine_without_the_embedded_default_is_exit_1(tmp_path, name) -> None:
    (tmp_path / "sitecustomize.py").write_text((LACKING + HIDDEN).format(name=name))
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    text, complaints, code = doctored(tmp_path, PYTHONPATH=path)
    assert complaints == ""
    assert row(text, name).split()[0] == "no"
    assert f"pip install {name}" in remedy(text, name)
    assert code == 1


def test_every_finding_that_is_missing_says_what_to_do(tmp_path) -> None:
    found = doctor.findings(tmp_path)
    assert all(item.remedy for item in found if item.version is None)
    missing = doctor._package("no-such-package-here", "no_such_module_here", "pip install it")
    assert (missing.version, missing.remedy) == (None, "pip install it")


def test_a_dead_tracking_server_is_named_with_the_reason(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        text, _, code = doctored(tmp_path, MLFLOW_TRACKING_URI=uri)
    assert code == 0
    assert row(text, "MLflow").split()[0] == "no"
    line = remedy(text, "MLflow")
    assert "refused" in line
    assert "unset MLFLOW_TRACKING_URI" in line
    assert uri in line


def test_a_password_in_the_uri_is_not_printed(tmp_path) -> None:
    text, _, _ = doctored(tmp_path, MLFLOW_TRACKING_URI="postgresql://me:hunter2@db.example/mlflow")
    assert "db.example/mlflow" in row(text, "MLflow")
    assert "hunter2" not in text


def test_a_command_is_not_broken_by_a_narrow_terminal(tmp_path) -> None:
    text, _, _ = doctored(tmp_path, COLUMNS="80", PATH="/nowhere")
    assert "apt-get install chromium chromium-driver" in text


def test_a_library_without_metadata_is_found_by_importing_it(tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LACKING.format(name="onnxruntime"))
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    text, complaints, code = doctored(tmp_path, PYTHONPATH=path)
    assert complaints == ""
    assert row(text, "onnxruntime").split() == ["yes", "onnxruntime", onnxruntime.__version__]
    assert code == 0


@pytest.mark.parametrize(
    ("installed", "gpu", "capability", "shown", "remedy"),
    [
        ("1.7.1.116", "NVIDIA H200", "9.0", "1.7.1.116, which refuses this GPU", "tensorrt-rtx==1.6.1.120"),
        ("1.6.1.120", "NVIDIA H200", "9.0", "1.6.1.120", ""),
        ("1.7.1.116", "NVIDIA L40S", "8.9", "1.7.1.116", ""),
        ("1.7.1.116", None, None, "1.7.1.116", ""),
        (None, "NVIDIA H200", "9.0", None, "tensorrt-rtx==1.6.1.120"),
        (None, "NVIDIA L40S", "8.9", None, "tensorrt-rtx==1.7.1.116"),
        (None, None, None, None, "for builds only: no GPU is seen here"),
    ],
)
def test_the_advised_release_is_one_that_this_gpu_loads(monkeypatch, installed, gpu, capability, shown, remedy) -> None:
    machine = {**environment.machine(), "gpu": gpu, "compute_capability": capability}
    monkeypatch.setattr(environment, "machine", lambda: machine)
    monkeypatch.setattr(environment, "version", lambda _: installed)
    monkeypatch.setattr(environment, "module_version", lambda _: None)
    finding = doctor._tensorrt_rtx()
    assert finding.version == shown
    assert remedy in finding.remedy
    assert bool(finding.remedy) == bool(remedy)


def test_measured_peaks_stand_beside_the_data_sheet_and_are_kept(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    peaks = Peaks(name="NVIDIA H200", source="measured", gb_per_s=4320.0, tflops={"fp16": 742.05}, measured=True)
    monkeypatch.setattr(measure_peaks, "measure", lambda backend, say: say("int8: no kernel") or peaks)
    assert commands.main(["doctor", "--peaks", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fp16", "TFLOP/s", "742", "989.4", "75%"] in lines
    assert ["memory", "GB/s", "4,320", "4,800", "90%"] in lines
    assert ["not", "measured:", "int8:", "no", "kernel"] in lines
    kept = read_peaks(tmp_path, "NVIDIA H200")
    assert kept is not None
    assert kept.measured
    assert (kept.of_type("fp16"), kept.of_type("bf16"), kept.gb_per_s) == (742.05, 989.4, 4320.0)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_peaks, "measure", interrupted)
    assert commands.main(["doctor", "--peaks", str(tmp_path)]) == 130
    assert commands.main(["doctor", "--backend", "simulated", str(tmp_path)]) == 2
    assert "--backend names the library that --peaks measures by: add --peaks" in capsys.readouterr().err

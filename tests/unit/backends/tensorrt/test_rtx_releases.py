"""The release of TensorRT-RTX that is installed is one that the GPU here loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from sweep.backends import registry
from sweep.backends.tensorrt import backend, cuda, library, rtx_releases

MAKEFILE = Path(__file__).parents[4] / "Makefile"


@pytest.mark.parametrize(
    ("gpu", "capability", "version", "reason"),
    [
        ("NVIDIA H200", "9.0", "1.6.1.120", "the newest that loads engines on NVIDIA H200 (compute capability 9.0): "),
        ("NVIDIA L40S", "8.9", "1.7.1.116", "not known to refuse NVIDIA L40S (compute capability 8.9)"),
        (None, None, "1.7.1.116", "for builds only: no GPU is seen here"),
    ],
)
def test_the_newest_that_the_gpu_loads(gpu, capability, version, reason) -> None:
    choice = rtx_releases.choose(gpu, capability)
    assert choice.version == version
    assert choice.reason.startswith(version)
    assert reason in choice.reason


def test_every_gpu_that_a_release_refuses_has_another_that_loads_it() -> None:
    versions = [tuple(map(int, release.version.split("."))) for release in rtx_releases.RELEASES]
    assert versions == sorted(versions, reverse=True)
    for capability in set().union(*(release.refuses for release in rtx_releases.RELEASES)):
        chosen = rtx_releases.choose("a GPU", capability).version
        assert rtx_releases.refusal(chosen, capability) is None


def test_a_release_that_refuses_the_gpu_is_unsupported_before_anything_runs(monkeypatch) -> None:
    machine = {**backend.facts.machine(), "gpu": "NVIDIA H200", "compute_capability": "9.0"}
    monkeypatch.setattr(backend.facts, "machine", lambda: machine)
    monkeypatch.setattr(library, "installed", lambda _: True)
    monkeypatch.setattr(cuda, "installed", lambda: True)
    monkeypatch.setattr(library, "version", lambda _: "1.7.1.116")
    line = registry.get("tensorrt_rtx").missing()
    assert line == (
        "tensorrt_rtx 1.7.1.116 refuses every engine on compute capability 9.0; pip install tensorrt-rtx==1.6.1.120"
    )
    monkeypatch.setattr(library, "version", lambda _: "1.6.1.120")
    assert registry.get("tensorrt_rtx").missing() is None
    monkeypatch.setattr(library, "version", lambda _: "1.7.1.116")
    assert registry.get("tensorrt").missing() is None


def installed_by_make(tmp_path: Path, *words: str) -> tuple[str, str]:
    """What ``make install-rtx`` would give to uv, and what it says; nothing is installed."""
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    for name, command in {"python": f'exec {sys.executable} "$@"', "uv": 'echo "$@"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{command}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()
    words_of_make = ["make", "-s", "-o", "install", f"VENV={tmp_path / 'venv'}", *words]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(MAKEFILE.parent)}
    done = subprocess.run(
        [*words_of_make, "install-rtx"],
        cwd=MAKEFILE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_make_installs_the_chosen_release_and_says_why(tmp_path) -> None:
    given, told = installed_by_make(tmp_path)
    choice = rtx_releases.choose_here()
    assert f"tensorrt-rtx=={choice.version} cuda-python==13.*" in given
    assert choice.reason in told


def test_make_installs_another_on_request(tmp_path) -> None:
    given, told = installed_by_make(tmp_path, "RTX_VERSION=1.4.0.76")
    assert "tensorrt-rtx==1.4.0.76 " in given
    assert told == ""


def test_the_version_of_a_library_without_metadata_is_asked_of_the_module(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(library.environment, "module_version", lambda name: f"of {name}")
    monkeypatch.setattr(library, "_versions", lambda _: iter(()))
    monkeypatch.setattr(library, "installed", lambda _: True)
    assert library.version("tensorrt_rtx") == "of tensorrt_rtx"
    monkeypatch.setattr(library, "installed", lambda _: False)
    assert library.version("tensorrt_rtx") is None

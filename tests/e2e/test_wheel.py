"""The wheel, installed outside the checkout: every command from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from python_path import REPOSITORY

from sweep.cli.commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

SCRIPTED = ("backend=simulated", "load=closed", "load.warmup_s=0.01", "load.min_s=0.05", "name=s")


class Installation:
    """The console script of an installed wheel, run in an empty folder with the installation first on the path."""

    def __init__(self, target: Path, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.script = target / "bin" / "sweep"

    def run(self, *words: str, code: int = 0, program: tuple[str, ...] = ()) -> str:
        """Return what the command prints; its exit code must be ``code`` and stderr empty."""
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        done = subprocess.run(
            [*(program or (str(self.script),)), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(self.target), "COLUMNS": "200"},
        )
        assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    root = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root / "dist")]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = (root / "dist").iterdir()
    assert wheel.name.startswith("trt_sweep-")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(root / "site")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (root / "empty").mkdir()
    return Installation(root / "site", root / "empty")


def test_it_is_the_wheel_that_runs(installed: Installation) -> None:
    code = "import sweep; from sweep.config.conf_files import conf_folder; print(sweep.__file__, conf_folder())"
    package = installed.target / "sweep"
    printed = installed.run("-c", code, program=(sys.executable,))
    assert printed.split() == [str(package / "__init__.py"), str(package / "_conf")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_by_the_name_it_was_called(installed: Installation, name: str) -> None:
    assert installed.run(name, "--help").startswith(f"usage: {installed.script} {name}")


def test_a_sweep_and_the_commands_over_its_results(installed: Installation, empty_db: bytes) -> None:
    script = installed.script
    done = installed.run(*SCRIPTED, "tracking=none")
    assert f"`{script} publish` sends the records" in done
    (installed.folder / "results" / "mlflow.db").write_bytes(empty_db)  # MLflow's tables, which take it seconds
    assert "s: 1 sent, 0 unchanged" in installed.run("publish")
    assert installed.run("recompute", "results") == "results: 1 same\n"
    assert "of at most 50 GiB (cache_gib)" in installed.run("cache")
    assert "0 removed" in installed.run("cache", "prune")
    assert "onnxruntime" in installed.run("doctor")
    module = (sys.executable, "-m", "sweep")
    text = installed.run("--help", program=module)
    assert "Settings, KEY=VALUE" in text
    assert f"{' '.join(module)} COMMAND --help" in text

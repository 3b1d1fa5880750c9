"""``python -m sweep.cli.doctor``: what this machine can do, and the exact command for what is missing."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.cli.console import Terminal
from sweep.report.mlflow import reachable, resolve_uri
from sweep.report.mlflow.store_uri import without_password
from sweep.system import environment, mps

_NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Attributes:
        what: the thing looked for.
        found: what was found; None when it is missing.
        remedy: the command that mends it, or why nothing needs to be done.
    """

    what: str
    found: str | None
    remedy: str = ""


def findings(results: Path) -> list[Finding]:
    """Everything that was looked for, in the order of the pipeline."""
    return [
        Finding("Python", sys.version.split()[0]),
        _package("onnxruntime", _install("onnxruntime")),
        _package("onnx", _install("onnx")),
        _gpu(),
        _device_nodes(),
        _package("tensorrt", _install(f"{_NVIDIA_INDEX} 'tensorrt>=10.3'")),
        _package("tensorrt-rtx", "make install-rtx"),
        _package("cuda-python", _install("'cuda-python>=12.6'")),
        _package("nvidia-ml-py", _install("nvidia-ml-py")),
        _mps(),
        _binary("trtexec", "trtexec", "comes with TensorRT's tar or Debian package; only for comparisons"),
        _package("nvidia-modelopt", _install("'sweep[modelopt]'") + "; only for precision.tool=modelopt"),
        _tracking(results),
        _binary("chromium", "Chromium (tests only)", "apt-get install chromium chromium-driver"),
    ]


def _install(what: str) -> str:
    """The command that installs into the environment that is running."""
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return f"{shown} -m pip install {what}"


def _package(name: str, remedy: str) -> Finding:
    found = environment.version(name)
    return Finding(name, found, "" if found else remedy)


def _binary(name: str, what: str, remedy: str) -> Finding:
    found = shutil.which(name)
    return Finding(what, found, "" if found else remedy)


def _gpu() -> Finding:
    machine = environment.machine()
    if machine["gpu"] is None:
        return Finding("GPU", None, "none seen by nvidia-smi: sweeps run on onnxruntime, on the CPU")
    return Finding("GPU", f"{machine['gpu']}, driver {machine['driver']}")


def _mps() -> Finding:
    reason = mps.available()
    return Finding("MPS", "available" if reason is None else None, reason or "")


def _device_nodes() -> Finding:
    nodes = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    remedy = "" if nodes else "in a container: docker run --gpus all ...; on the host: install the NVIDIA driver"
    return Finding("GPU device nodes", ", ".join(nodes) or None, remedy)


def _tracking(results: Path) -> Finding:
    uri = resolve_uri(None, results.resolve())
    problem = reachable(uri)
    shown = without_password(uri)
    if problem is None:
        return Finding("MLflow", shown)
    return Finding("MLflow", None, f"{shown}: {problem}; unset MLFLOW_TRACKING_URI to use sqlite in results/")


def main() -> None:
    """Print the findings; exit code 1 if this machine cannot run the embedded default."""
    found = findings(Path("results"))
    console = Terminal()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "what", "found"):
        table.add_column(name, overflow="fold")
    for item in found:
        mark = "[green]yes[/green]" if item.found else "[yellow]no[/yellow]"
        table.add_row(mark, item.what, escape(item.found or "-"))
    console.print(table)
    console.print("What would mend what is missing:")
    for item in found:
        if item.remedy:
            console.print(f"  {item.what}: {escape(item.remedy)}", highlight=False, soft_wrap=True)
    sys.exit(0 if all(item.found for item in found if item.what in {"onnxruntime", "onnx"}) else 1)


if __name__ == "__main__":
    main()

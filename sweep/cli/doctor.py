"""Report what this machine can do, and the command that adds what is missing.

--peaks measures what its device reaches: TFLOP/s of a large matrix product in each precision that runs here, and GB/s
of a copy of a large tensor. They are kept in RESULTS/peaks.json, and layer profiles of that device are held against
them in place of its data sheet. It takes about a minute; stop what else runs.

Exit codes: 0 this machine can run a sweep, or its peaks were measured; 1 onnx or onnxruntime is missing; 2 the command
is wrong, or there is nothing whose peak could be measured; 130 interrupted.

Examples:
  sweep doctor
  sweep doctor --peaks
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.analysis.layers import peaks_of
from sweep.backends.tensorrt import rtx_releases
from sweep.cli import arguments
from sweep.cli.console import Terminal
from sweep.errors import ConfigError
from sweep.report.mlflow import reachable, resolve_uri, without_password
from sweep.system import environment, mps, signals

if TYPE_CHECKING:
    import argparse

    from sweep.analysis.layers import Peaks

_WHOLE = 100  # from which a rate has no decimals
_NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one line of the report.

    Attributes:
        name: name of a library, program or device.
        version: its version, path or names; None if it is missing.
        remedy: the command that adds it, or why nothing needs to be done.
    """

    name: str
    version: str | None
    remedy: str = ""


def findings(results: Path) -> list[Finding]:
    """Look for everything that a sweep can use; return it in the order of the pipeline.

    Args:
        results: results folder, whose sqlite is the default MLflow store.
    """
    return [
        Finding("Python", sys.version.split()[0]),
        _package("onnxruntime", "onnxruntime", _install("onnxruntime")),
        _package("onnx", "onnx", _install("onnx")),
        _gpu(),
        _device_nodes(),
        _package("tensorrt", "tensorrt", _install(f"{_NVIDIA_INDEX} 'tensorrt>=10.3'")),
        _tensorrt_rtx(),
        _package("cuda-python", "cuda.bindings", _install("'cuda-python>=12.6'")),
        _package("nvidia-ml-py", "pynvml", _install("nvidia-ml-py")),
        _mps(),
        _binary("trtexec", "trtexec", "comes with TensorRT's tar or Debian package; only for comparisons"),
        _package(
            "nvidia-modelopt", "modelopt", _install("'trt-sweep[modelopt]'") + "; only for precision.tool=modelopt"
        ),
        _tracking(results),
        _binary("chromium", "Chromium (tests only)", "apt-get install chromium chromium-driver"),
    ]


def _install(requirement: str) -> str:
    """Return the command that installs `requirement` into the environment of this process."""
    python = Path(sys.executable)
    executable = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return f"{executable} -m pip install {requirement}"


def _package(name: str, module: str, remedy: str) -> Finding:
    """Look for a package by its metadata, and without any for its module, which is what runs."""
    version = environment.version(name) or environment.module_version(module)
    return Finding(name, version, "" if version else remedy)


def _tensorrt_rtx() -> Finding:
    """Look for TensorRT-RTX; advise the newest release that this GPU loads if it is missing, or refuses the GPU."""
    choice, capability = rtx_releases.choose_here(), environment.machine()["compute_capability"]
    requirement = f"'tensorrt-rtx=={choice.version}' 'cuda-python>=13.0'"
    remedy = f"{_install(requirement)}  # {choice.reason}"
    package = _package("tensorrt-rtx", "tensorrt_rtx", remedy)
    if rtx_releases.refusal(package.version, capability) is not None:
        return Finding(package.name, f"{package.version}, which refuses this GPU", remedy)
    return package


def _binary(name: str, label: str, remedy: str) -> Finding:
    path = shutil.which(name)
    return Finding(label, path, "" if path else remedy)


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
    store = without_password(uri)
    if problem is None:
        return Finding("MLflow", store)
    return Finding("MLflow", None, f"{store}: {problem}; unset MLFLOW_TRACKING_URI to use sqlite in {results}/")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_results(parser)
    parser.add_argument("--peaks", action="store_true", help="measure the peaks of the device, and keep them")
    parser.add_argument(
        "--backend", type=arguments.filled, metavar="NAME", help="library to measure them by [that of a sweep]"
    )


def run(options: argparse.Namespace) -> int:
    """Print the findings, or measure the peaks; return the exit code."""
    if options.peaks:
        return _measure_peaks(options)
    if options.backend is not None:
        raise ConfigError("--backend names the library that --peaks measures by: add --peaks")
    report = findings(options.results)
    console = Terminal()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "what", "found"):
        table.add_column(name, overflow="fold")
    for item in report:
        mark = "[green]yes[/green]" if item.version else "[yellow]no[/yellow]"
        table.add_row(mark, item.name, escape(item.version or "-"))
    console.print(table)
    console.print("What would mend what is missing:")
    for item in report:
        if item.remedy:
            console.print(f"  {item.name}: {escape(item.remedy)}", highlight=False, soft_wrap=True)
    return 0 if all(item.version for item in report if item.name in {"onnxruntime", "onnx"}) else 1


def _measure_peaks(options: argparse.Namespace) -> int:
    """Measure the peaks of the device, keep and print them; return the exit code."""
    from sweep.cli import measure_peaks
    from sweep.report.layers import write_peaks

    console = Terminal()

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=not console.is_terminal)

    try:
        peaks = measure_peaks.measure(options.backend or "auto", lambda line: say(f"not measured: {line}"))
    except KeyboardInterrupt:
        say("interrupted: earlier peaks are kept")
        return signals.EXIT_CODE
    say(f"{peaks.name}: {peaks.source}")
    console.print(_peaks_table(peaks, peaks_of(peaks.name)))
    path = write_peaks(options.results, peaks)
    say(f"kept in {path}: layer profiles of sweeps in {options.results}/ are held against them")
    return 0


def _peaks_table(peaks: Peaks, listed: Peaks | None) -> Table:
    """Return a table of measured peaks, beside those of the data sheet where there is one."""
    rows = [(f"{dtype} TFLOP/s", rate, listed and listed.of_type(dtype)) for dtype, rate in peaks.tflops.items()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("peak")
    for name in ("measured", *(("data sheet", "share") if listed else ())):
        table.add_column(name, justify="right")
    for name, value, sheet in (*rows, ("memory GB/s", peaks.gb_per_s, listed and listed.gb_per_s)):
        if value is not None:
            beside = (f"{sheet:,.4g}", f"{value / sheet:.0%}") if sheet else ("-", "-")
            table.add_row(name, f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}", *(beside if listed else ()))
    return table

"""What a comparison must agree on: machine, libraries, source revision."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sweep import __version__

if TYPE_CHECKING:
    from sweep.axes import JsonDict
    from sweep.backends.base import Backend

COMPARED = ("gpu", "driver", "cuda", "tensorrt", "onnxruntime", "simulated", "cpu", "host")


@functools.cache
def machine() -> JsonDict:
    """Facts of this machine; those that cannot be known are None."""
    gpu, driver = _gpu()
    return {
        "gpu": gpu,
        "compute_capability": None,
        "driver": driver,
        "cuda": None,
        "tensorrt": None,
        "onnxruntime": None,
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "host": platform.node(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "onnx": _version("onnx"),
        "sweep": __version__,
        "git": _git(),
    }


def of(backend: Backend) -> JsonDict:
    """Facts of this machine with the backend's own."""
    return {**machine(), **backend.facts()}


def differing(before: JsonDict, now: JsonDict) -> list[str]:
    """Names of the compared facts that are known on both sides and differ."""
    return [
        name
        for name in COMPARED
        if before.get(name) is not None and now.get(name) is not None and before[name] != now[name]
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _git() -> str | None:
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    described = _output(["git", "-C", str(folder), "describe", "--always", "--dirty"])
    return described or None


def _gpu() -> tuple[str | None, str | None]:
    if shutil.which("nvidia-smi") is None:
        return None, None
    line = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).splitlines()
    name, _, driver = line[0].partition(",") if line else ("", "", "")
    return name.strip() or None, driver.strip() or None


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

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
from sweep.system import nvml

if TYPE_CHECKING:
    from sweep.spec import JsonDict

COMPARED = ("gpu", "driver", "cuda", "tensorrt", "onnxruntime", "simulated", "cpu", "host")


@functools.cache
def machine() -> JsonDict:
    """Facts of this machine; those that cannot be known are None."""
    return {
        **(_nvml() or _nvidia_smi() or dict.fromkeys(("gpu", "compute_capability", "driver", "cuda"))),
        "tensorrt": None,
        "onnxruntime": None,
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "host": platform.node(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "onnx": version("onnx"),
        "sweep": __version__,
        "git": _git(),
    }


def of(backend_facts: JsonDict, uuid: str | None = None) -> JsonDict:
    """Return the facts of this machine, of the GPU ``uuid`` where one is named, and of a backend."""
    return {**machine(), **(gpu(uuid) if uuid else {}), **backend_facts}


@functools.cache
def gpu(uuid: str | None) -> JsonDict:
    """{gpu, compute_capability, gpu_uuid} of one GPU of several; of the first without ``uuid``."""
    found = _nvml(uuid) if uuid else None
    known = found or machine()
    return {"gpu": known["gpu"], "compute_capability": known["compute_capability"], "gpu_uuid": uuid}


def differing(before: JsonDict, now: JsonDict) -> list[str]:
    """Names of the compared facts that are known on both sides and differ."""
    return [
        name
        for name in COMPARED
        if before.get(name) is not None and now.get(name) is not None and before[name] != now[name]
    ]


def version(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
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
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    described = _output(["git", "-C", str(folder), "describe", "--always", "--dirty"])
    return described or None


def _nvml(uuid: str | None = None) -> JsonDict | None:
    """{gpu, compute_capability, driver, cuda} from the driver's management library; ``cuda`` is the newest it runs."""
    found = nvml.library()
    if found is None:
        return None
    try:
        device = nvml.visible(found, uuid)
        version = found.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "gpu": _text(found.nvmlDeviceGetName(device)),
            "compute_capability": ".".join(map(str, found.nvmlDeviceGetCudaComputeCapability(device))),
            "driver": _text(found.nvmlSystemGetDriverVersion()),
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
        }
    except found.NVMLError:
        return None
    finally:
        nvml.close(found)


def _text(found: str | bytes) -> str:
    return found.decode() if isinstance(found, bytes) else found


def _nvidia_smi() -> JsonDict | None:
    """The same from the command line tool, which does not tell the CUDA version as plainly."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = "--query-gpu=name,compute_cap,driver_version"
    line = next(iter(_output(["nvidia-smi", asked, "--format=csv,noheader"]).splitlines()), "")
    values = [value.strip() for value in line.split(",")]
    if len(values) != 3 or not all(values):  # noqa: PLR2004 - as many as were asked for
        return None
    return {**dict(zip(("gpu", "compute_capability", "driver"), values, strict=True)), "cuda": None}


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

"""Collect the facts that must be equal for a comparison: machine, libraries, source revision."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from sweep import __version__
from sweep.system import nvml

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.spec import JsonDict

_ANSWER = "version of the module: "  # before it stands whatever the module prints
_ASK_VERSION = f"""
import importlib, sys
module = importlib.import_module(sys.argv[1])
if getattr(module, "__file__", None) is None:
    sys.exit("a folder without code")
version = getattr(module, "__version__", None) or getattr(module, "getVersion", lambda: "unknown")()
print("{_ANSWER}" + str(version))
"""
# What decides a speed, and therefore what a kept record is checked against, in the order in which it is told.
COMPARED = (
    *("gpu", "driver", "cuda", "application_clock_mhz", "power_limit_w"),
    *("tensorrt", "onnxruntime", "simulated", "cpu", "cores", "host", "os", "python", "sweep"),
)
_GPU_FACTS = ("gpu", "compute_capability", "driver", "cuda")
_LIMITS = ("application_clock_mhz", "power_limit_w")


@functools.cache
def machine() -> JsonDict:
    """Collect the facts of this machine; unknown ones are None."""
    return {
        **(_nvml() or _nvidia_smi() or dict.fromkeys((*_GPU_FACTS, *_LIMITS))),
        "tensorrt": None,
        "onnxruntime": None,
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "host": platform.node(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": library_version("numpy"),
        "onnx": library_version("onnx"),
        "sweep": __version__,
        "git": _git(),
    }


def collect_facts(backend_facts: JsonDict, uuid: str | None = None) -> JsonDict:
    """Merge the facts of this machine, of a GPU and of a backend.

    Args:
        backend_facts: versions of the backend's libraries, by fact name.
        uuid: UUID of the GPU; None keeps those of the machine's first GPU.

    Returns:
        The facts of a record, by name; unknown ones are None.
    """
    return {**machine(), **(gpu(uuid) if uuid else {}), **backend_facts}


@functools.cache
def gpu(uuid: str | None) -> JsonDict:
    """Return name, capability, limits and UUID of the GPU ``uuid``, or of the first GPU if it is None."""
    facts = (_nvml(uuid) if uuid else None) or machine()
    return {name: facts[name] for name in ("gpu", "compute_capability", *_LIMITS)} | {"gpu_uuid": uuid}


def differing(before: JsonDict, now: JsonDict) -> list[str]:
    """Return the names of the compared facts that are known on both sides and differ."""
    return [
        name
        for name in COMPARED
        if before.get(name) is not None and now.get(name) is not None and before[name] != now[name]
    ]


def version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def library_version(name: str) -> str | None:
    """Return the version of a library whose package and module have one name; None if it is not installed."""
    return version(name) or module_version(name)


@functools.cache
def module_version(module: str) -> str | None:
    """Return the version that a module tells of itself, for a library that has no metadata of a package.

    A process of its own imports it, since a library may load CUDA, print, or crash.

    Args:
        module: name of the module.

    Returns:
        Its ``__version__``, or what its ``getVersion()`` returns; ``unknown`` if it has neither; None if it cannot be
        imported.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_VERSION, module], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rpartition(_ANSWER)[2].strip() or None if done.returncode == 0 else None


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
    """Read the facts of a GPU from NVML; ``cuda`` is the newest version that the driver runs."""
    pynvml = nvml.library()
    if pynvml is None:
        return None
    try:
        device = nvml.visible(pynvml, uuid)
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "gpu": _text(pynvml.nvmlDeviceGetName(device)),
            "compute_capability": ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(device))),
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            **_limits(pynvml, device),
        }
    except pynvml.NVMLError:
        return None
    finally:
        nvml.close(pynvml)


def _limits(pynvml: Any, device: Any) -> JsonDict:
    """Read the clock and the power that the GPU was set to; None where the driver or an instance of MIG has none."""
    readers: dict[str, Callable[[], int]] = {
        "application_clock_mhz": lambda: pynvml.nvmlDeviceGetApplicationsClock(device, pynvml.NVML_CLOCK_SM),
        "power_limit_w": lambda: round(pynvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1e3),
    }
    limits: JsonDict = dict.fromkeys(_LIMITS)
    for name, read in readers.items():
        with contextlib.suppress(AttributeError, pynvml.NVMLError):
            limits[name] = read()
    return limits


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _nvidia_smi() -> JsonDict | None:
    """Read the same facts from ``nvidia-smi``, which does not report the CUDA version in its queries."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = "--query-gpu=name,compute_cap,driver_version"
    line = next(iter(_output(["nvidia-smi", query, "--format=csv,noheader"]).splitlines()), "")
    values = [value.strip() for value in line.split(",")]
    if len(values) != 3 or not all(values):  # noqa: PLR2004 - as many as the query names
        return None
    known = dict(zip(("gpu", "compute_capability", "driver"), values, strict=True))
    return {**dict.fromkeys((*_GPU_FACTS, *_LIMITS)), **known}


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

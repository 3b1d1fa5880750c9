"""Check whether MPS can be used on this machine, and read or clear a process's share."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from typing import TYPE_CHECKING, Any

from sweep.system import nvml
from sweep.system.mps import control

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_WITH_SHARES = 7  # major compute capability: Volta


@functools.cache
def available() -> str | None:
    """Return why MPS cannot be used here, in one line; None if it can. Cached for the process."""
    if shutil.which(control.NAME) is None:
        return control.NOT_FOUND
    if "microsoft" in os.uname().release.lower():
        return "MPS does not run under WSL"
    pynvml = nvml.library()
    if pynvml is None:
        return "MPS needs an NVIDIA GPU and none is seen here"
    try:
        return _unmet_requirement(pynvml)
    except pynvml.NVMLError as error:
        return f"MPS needs an NVIDIA GPU and none is seen here ({error})"
    finally:
        nvml.close(pynvml)


def _unmet_requirement(pynvml: Any) -> str | None:
    """Return which requirement of MPS shares the GPU does not meet; None if it meets all."""
    device = nvml.visible(pynvml)
    with contextlib.suppress(pynvml.NVMLError):  # a GPU without MIG, or a driver that does not know it
        if pynvml.nvmlDeviceGetMigMode(device)[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
            return "MPS shares are not given on a GPU in MIG mode, whose instances divide it already"
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(device)
    if major < _FIRST_WITH_SHARES:
        return f"MPS gives shares from compute capability 7.0 on; this GPU has {major}.{minor}"
    return None


def environment_without_mps(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of ``environment`` with which CUDA runs with no daemon and no share."""
    variables = {key: value for key, value in environment.items() if key != control.SHARE}
    return variables | {control.PIPES: control.NO_DAEMON}


def share_of(environment: Mapping[str, str]) -> int | None:
    """Return the share, in per cent of the SMs, that ``environment`` requests; None if it is to run without MPS."""
    share = environment.get(control.SHARE, "")
    if environment.get(control.PIPES) == control.NO_DAEMON or not share.isdecimal():
        return None
    return int(share)

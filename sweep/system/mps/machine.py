"""Whether MPS can be used on this machine, and what a process was told of it."""

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
    """Why MPS cannot be used here, in one line; None if it can. Asked once a process."""
    if shutil.which(control.NAME) is None:
        return control.NOT_FOUND
    if "microsoft" in os.uname().release.lower():
        return "MPS does not run under WSL"
    found = nvml.library()
    if found is None:
        return "MPS needs an NVIDIA GPU and none is seen here"
    try:
        return _lacking(found)
    except found.NVMLError as error:
        return f"MPS needs an NVIDIA GPU and none is seen here ({error})"
    finally:
        nvml.close(found)


def _lacking(found: Any) -> str | None:
    """What the GPU lacks; ``found`` is the initialised NVML."""
    device = nvml.visible(found)
    with contextlib.suppress(found.NVMLError):  # a GPU without MIG, or a driver that does not know it
        if found.nvmlDeviceGetMigMode(device)[0] == found.NVML_DEVICE_MIG_ENABLE:
            return "MPS shares are not given on a GPU in MIG mode, whose instances divide it already"
    major, minor = found.nvmlDeviceGetCudaComputeCapability(device)
    if major < _FIRST_WITH_SHARES:
        return f"MPS gives shares from compute capability 7.0 on; this GPU has {major}.{minor}"
    return None


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """These variables, changed so that CUDA runs with no daemon and no share."""
    kept = {key: value for key, value in environment.items() if key != control.SHARE}
    return kept | {control.PIPES: control.NOWHERE}


def share_of(environment: Mapping[str, str]) -> int | None:
    """The share that a process with these variables asked for; None if it is to run without MPS."""
    share = environment.get(control.SHARE, "")
    if environment.get(control.PIPES) == control.NOWHERE or not share.isdecimal():
        return None
    return int(share)

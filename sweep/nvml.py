"""NVML, the driver's management library: the one module that imports it."""

from __future__ import annotations

import os
from typing import Any


def library() -> Any | None:
    """``pynvml``, initialised; None without it, without a driver or without a GPU. Each call wants one ``close``."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - not installed, no driver or no GPU: all mean that it cannot tell
        return None
    return pynvml


def close(found: Any) -> None:
    """Give back what ``library`` opened; a GPU that is gone does not matter any more."""
    try:
        found.nvmlShutdown()
    except found.NVMLError:
        return


def visible(found: Any) -> Any:
    """The device that CUDA would take: the first of CUDA_VISIBLE_DEVICES, by number or UUID.

    Raises:
        NVMLError: there is no such device.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return found.nvmlDeviceGetHandleByUUID(first)
    return found.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else -1)

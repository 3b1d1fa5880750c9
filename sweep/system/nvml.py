"""Access NVML, the driver's management library. Only this module imports it.

Functions that take ``pynvml`` expect it from ``library``, initialised.
"""

from __future__ import annotations

import os
from typing import Any

_UUIDS = ("GPU-", "MIG-")
_WORD_BITS = 64  # of the masks with which NVML describes sets of CPUs


def library() -> Any | None:
    """Return ``pynvml``, initialised; None without the package, a driver or a GPU. Each call needs one ``close``."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - not installed, no driver or no GPU: each means that nothing can be read
        return None
    return pynvml


def close(pynvml: Any) -> None:
    """Shut down NVML once per ``library``; the error of a GPU that is gone is ignored."""
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return


def visible(pynvml: Any, uuid: str | None = None) -> Any:
    """Return the device ``uuid``, or the one that CUDA would use: the first of CUDA_VISIBLE_DEVICES, by number or UUID.

    Raises:
        NVMLError: there is no such device.
    """
    first = uuid or os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith(_UUIDS):
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    return pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else -1)


def uuids(pynvml: Any) -> list[str]:
    """Return the UUIDs of the devices that CUDA would see, in its order; one that is split into MIG instances has none.

    As in CUDA, a list in CUDA_VISIBLE_DEVICES ends before the first entry that is not a device.

    Raises:
        NVMLError: the driver cannot count the devices.
    """
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(pynvml.nvmlDeviceGetCount())] if words is None else words.split(",")
    visible_uuids = []
    for name in map(str.strip, names):
        if name.startswith("MIG-"):
            visible_uuids.append(name)
            continue
        try:
            device = visible(pynvml, name) if name.startswith(_UUIDS) else pynvml.nvmlDeviceGetHandleByIndex(int(name))
        except (ValueError, pynvml.NVMLError):
            break
        if not _in_mig_mode(pynvml, device):
            visible_uuids.append(_text(pynvml.nvmlDeviceGetUUID(device)))
    return visible_uuids


def _in_mig_mode(pynvml: Any, device: Any) -> bool:
    """Return whether the device is in MIG mode: CUDA then uses an instance of it."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(device)[0])
    except (AttributeError, pynvml.NVMLError):  # most devices have no such mode
        return False


def cores(pynvml: Any, uuid: str) -> frozenset[int] | None:
    """Return the logical CPUs near the device (``nvmlDeviceGetCpuAffinity``); None if the driver reports none."""
    words = (os.cpu_count() or 1) // _WORD_BITS + 1
    try:
        masks = list(pynvml.nvmlDeviceGetCpuAffinity(visible(pynvml, uuid), words))
    except (AttributeError, pynvml.NVMLError):
        return None
    return (
        frozenset(
            number * _WORD_BITS + bit
            for number, mask in enumerate(masks)
            for bit in range(_WORD_BITS)
            if mask >> bit & 1
        )
        or None
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

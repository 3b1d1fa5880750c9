"""NVML, the driver's management library: the one module that imports it."""

from __future__ import annotations

import os
from typing import Any

_UUIDS = ("GPU-", "MIG-")
_WORD_BITS = 64  # of the masks in which NVML gives sets of CPUs


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


def visible(found: Any, uuid: str | None = None) -> Any:
    """The device ``uuid``, or the one that CUDA would take: the first of CUDA_VISIBLE_DEVICES, by number or UUID.

    Raises:
        NVMLError: there is no such device.
    """
    first = uuid or os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith(_UUIDS):
        return found.nvmlDeviceGetHandleByUUID(first)
    return found.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else -1)


def uuids(found: Any) -> list[str]:
    """UUIDs of the devices that CUDA would see, in its order; one that is split into MIG instances has none.

    A list in CUDA_VISIBLE_DEVICES ends, as CUDA has it, before the first entry that is no device.

    Raises:
        NVMLError: the driver cannot tell.
    """
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(found.nvmlDeviceGetCount())] if words is None else words.split(",")
    seen = []
    for name in map(str.strip, names):
        if name.startswith("MIG-"):
            seen.append(name)
            continue
        try:
            device = visible(found, name) if name.startswith(_UUIDS) else found.nvmlDeviceGetHandleByIndex(int(name))
        except (ValueError, found.NVMLError):
            break
        if not _split(found, device):
            seen.append(_text(found.nvmlDeviceGetUUID(device)))
    return seen


def _split(found: Any, device: Any) -> bool:
    """Whether the device is in MIG mode: CUDA then takes an instance of it."""
    try:
        return bool(found.nvmlDeviceGetMigMode(device)[0])
    except (AttributeError, found.NVMLError):  # most devices have no such mode
        return False


def cores(found: Any, uuid: str) -> frozenset[int] | None:
    """Logical CPUs near the device (``nvmlDeviceGetCpuAffinity``); None where the driver does not say."""
    words = (os.cpu_count() or 1) // _WORD_BITS + 1
    try:
        masks = list(found.nvmlDeviceGetCpuAffinity(visible(found, uuid), words))
    except (AttributeError, found.NVMLError):
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


def _text(found: str | bytes) -> str:
    return found.decode() if isinstance(found, bytes) else found

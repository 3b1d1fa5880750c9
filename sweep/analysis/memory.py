"""Read the memory that a variant takes out of its record, and hold it against a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.accuracy_gates import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import Limits
    from sweep.storage import ClientSession, EngineInfo, Record

MIB = 1 << 20
MEMORY_GATE = "memory_mib"


def device_bytes(record: Record) -> int | None:
    """Return the memory that the session takes on the device, bytes; of several clients, that of all of them.

    None where no device was measured, as on a CPU.
    """
    clients = None if record.realised is None else record.realised.get("clients")
    parts: Sequence[ClientSession | EngineInfo] = clients or ([record.engine] if record.engine is not None else [])
    sizes = [size for part in parts if (size := part.get("device_memory_bytes")) is not None]
    return sum(sizes) if sizes and len(sizes) == len(parts) else None


def peak_device_bytes(record: Record) -> int | None:
    """Return the most memory on the device, bytes: what the allocator recorded, or what the session takes if more."""
    size, memory = device_bytes(record), (record.engine or {}).get("memory") or {}
    clients = len((record.realised or {}).get("clients") or (None,))
    peak, buffers = memory.get("peak_bytes"), memory.get("buffers_bytes")
    recorded = (peak + buffers) * clients if isinstance(peak, int) and isinstance(buffers, int) else None
    known = [value for value in (size, recorded) if value is not None]
    return max(known) if known else None


def host_bytes(record: Record) -> int | None:
    """Return the most memory of the host that the worker held while it loaded and first ran the engine, bytes."""
    return (record.engine or {}).get("host_memory_bytes")


def fault(record: Record, limits: Limits) -> Fault | None:
    """Return why a variant takes more memory than it may; None if it does not, or without a limit.

    The memory is that of the device, and of the worker on the host where it computes on a CPU.
    """
    limit = limits.memory_mib
    if limit is None or record.engine is None:
        return None
    size, place = peak_device_bytes(record), "on the device"
    if size is None:
        size, place = host_bytes(record), "in the worker on the host"
    if size is None:
        return Fault(f"limits.memory_mib={limit:g} cannot be judged: no memory was measured", MEMORY_GATE)
    if size <= limit * MIB:
        return None
    return Fault(
        f"memory: {size / MIB:,.1f} MiB {place}, above limits.memory_mib={limit:g}",
        MEMORY_GATE,
    )

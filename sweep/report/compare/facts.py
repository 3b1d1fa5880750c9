"""Name the facts of machine, libraries and clocks that differ between two measurements."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Record

# In the order in which they are told; what decides a speed comes first.
_NAMES = {
    "gpu": "GPU",
    "driver": "driver",
    "cuda": "CUDA",
    "application_clock_mhz": "application clock (MHz)",
    "power_limit_w": "power limit (W)",
    "tensorrt": "TensorRT",
    "onnxruntime": "onnxruntime",
    "simulated": "simulated backend",
    "cpu": "CPU",
    "cores": "cores",
    "host": "host",
    "os": "operating system",
    "python": "Python",
    "numpy": "NumPy",
    "onnx": "onnx",
    "sweep": "sweep",
    "git": "sweep's revision",
}
_CLOCKS = {"sm_clock_mhz": "SM clock", "memory_clock_mhz": "memory clock"}
_CLOCK_SHARE = 0.02  # by which clocks have to differ: readings of one locked clock do by less
_MOST_VALUES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChange:
    """Hold one fact that differs.

    Attributes:
        name: the fact, as a person calls it.
        old: its value in the earlier measurement.
        new: its value in the later one.
    """

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name} {self.old} -> {self.new}"


def fact_changes(pairs: Sequence[tuple[Record, Record]]) -> list[FactChange]:
    """Return the facts that are known on both sides of the joined records and differ."""
    changes = []
    for fact, name in _NAMES.items():
        old, new = (_values(side, fact) for side in zip(*pairs, strict=True)) if pairs else ([], [])
        if old and new and set(old) != set(new):
            changes.append(FactChange(name=name, old=_text(old), new=_text(new)))
    for field, name in _CLOCKS.items():
        clocks = [(a, b) for old, new in pairs if (a := _clock(old, field)) and (b := _clock(new, field))]
        if clocks:
            before, after = (statistics.median(side) for side in zip(*clocks, strict=True))
            if abs(after / before - 1) > _CLOCK_SHARE:
                changes.append(FactChange(name=name, old=f"{before:,.0f} MHz", new=f"{after:,.0f} MHz"))
    throttled = [sum(_is_throttled(record) for record in side) for side in zip(*pairs, strict=True)]
    if throttled and throttled[0] != throttled[1]:
        changes.append(FactChange(name="throttled", old=f"{throttled[0]} variants", new=f"{throttled[1]} variants"))
    return changes


def _values(records: Sequence[Record], fact: str) -> list[str]:
    known = {str(value): None for record in records if (value := dict(record.facts).get(fact)) is not None}
    return sorted(known)


def _text(values: Sequence[str]) -> str:
    more = f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    return ", ".join(values[:_MOST_VALUES]) + more


def _clock(record: Record, field: str) -> float | None:
    spread = dict(record.telemetry or {}).get(field)
    mean = spread.get("mean") if isinstance(spread, dict) else None
    return float(mean) if mean else None


def _is_throttled(record: Record) -> bool:
    return record.telemetry is not None and bool(record.telemetry["throttled"])

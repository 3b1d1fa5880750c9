"""Read from a row the figures beside the throughput: accuracy, memory, energy and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import accuracy, joules, near, score
from sweep.report.columns import memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.report.compare.rows import Row
    from sweep.storage import Record

_MIB = 1 << 20
_LEAST_SHOWN = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Describe a figure that stands on both sides of a row.

    Attributes:
        name: field in the JSON output, with the unit at its end.
        head: head of the column in tables.
        form: format of one value.
        unit: unit in messages, with what the figure is of where the head alone says it.
        read: record -> value; None where it is not known.
    """

    name: str
    head: str
    form: str
    read: Callable[[Record], float | None]
    unit: str = ""

    def pair(self, row: Row) -> tuple[float | None, float | None]:
        """Return the figure of the old and the new record; None where it is not known."""
        return None if row.old is None else self.read(row.old), None if row.new is None else self.read(row.new)

    def sides(self, row: Row) -> int:
        """Return on how many sides of a row the figure is known."""
        return sum(value is not None for value in self.pair(row))

    def text(self, row: Row) -> str:
        """Return the figure for a table: one value if both look the same, else ``old -> new``; ``-`` if unknown."""
        old, new = (self._value_text(value) for value in self.pair(row))
        return old if old == new else f"{old} -> {new}"

    def cell(self, row: Row) -> str:
        """Return the figure for a table, with the interval of the ratio where the row has one."""
        text = self.text(row)
        if self is not CAPACITY or row.capacity is None:
            return text
        return f"{text} ({capacity_ratio_text(row.capacity)})"

    def _value_text(self, value: float | None) -> str:
        if value is None:
            return "-"
        is_small = self.form.endswith("f}") and _LEAST_SHOWN < abs(value) < 1
        return f"{value:.2g}" if is_small else self.form.format(value)


def capacity_ratio_text(ends: tuple[float, float]) -> str:
    """Return the interval of the ratio of two capacities in words.

    It is that of the estimates, where a search made them: the rates that held are lower, and by chance unequally so.
    """
    low, high = ends
    return f"est. ratio {low:.3f} to {high:.3f}" if math.isfinite(high) else f"est. ratio {low:.3f} or more"


def sqnr_db(record: Record) -> float | None:
    """Return the SQNR, dB; None where the outputs equal the reference or were not compared."""
    return None if record.accuracy is None else record.accuracy["sqnr_db"]


def is_exact(record: Record) -> bool:
    """Tell whether the outputs equal the reference."""
    return record.accuracy is not None and accuracy.is_known(record.accuracy) and record.accuracy["sqnr_db"] is None


def _engine_mib(record: Record) -> float | None:
    """Return the size of the engine on disk, MiB."""
    size = dict(record.engine or {}).get("bytes")
    return size / _MIB if isinstance(size, (int, float)) and size else None


def _energy_mj(record: Record) -> float | None:
    energy = joules(record)
    return None if energy is None else energy * 1e3


def _tail_ms(record: Record) -> float | None:
    point = near(record, 0.8)
    return None if point is None else point["latency_ms"]["p99"]


def _capacity_ips(record: Record) -> float | None:
    return None if record.slo is None else record.slo["capacity_ips"]


SQNR = Figure(name="sqnr_db", head="SQNR dB", form="{:.1f}", read=sqnr_db)
SCORE = Figure(name="score", head="top-1", form="{:.2%}", read=score)
MEMORY = Figure(name="memory_mib", head="memory MiB", form="{:,.1f}", read=memory_mib, unit="MiB")
ENGINE = Figure(
    name="engine_file_mib", head="engine file MiB", form="{:,.1f}", read=_engine_mib, unit="MiB of the engine file"
)
ENERGY = Figure(name="energy_mj_per_sample", head="mJ per sample", form="{:.3g}", read=_energy_mj, unit="mJ per sample")
TAIL = Figure(name="p99_at_80pct_ms", head="p99 ms at 80%", form="{:.3g}", read=_tail_ms)


def _peak_ips(record: Record) -> float | None:
    return None if record.peak is None else record.peak["ips"]


PEAK = Figure(name="peak_ips", head="peak samples/s", form="{:,.0f}", read=_peak_ips)
CAPACITY = Figure(name="capacity_ips", head="samples/s at the SLO", form="{:,.0f}", read=_capacity_ips)
FIGURES = (CAPACITY, TAIL, SQNR, SCORE, MEMORY, ENGINE, ENERGY)


def memory_or_engine(row: Row) -> Figure:
    """Return what tells how large a variant is: its memory, or its engine file where that is known of more sides.

    The two are never compared with one another. onnxruntime on a CPU has the file alone.
    """
    return ENGINE if ENGINE.sides(row) > MEMORY.sides(row) else MEMORY


def known(figure: Figure, rows: tuple[Row, ...]) -> bool:
    """Tell whether a table has a column for a figure: some row has a value of it.

    The engine's file has one only where the memory is not known of every row.
    """
    if figure is ENGINE:
        return any(memory_or_engine(row) is ENGINE for row in rows)
    return any(figure.sides(row) for row in rows)

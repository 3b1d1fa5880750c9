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
        read: record -> value; None where it is not known.
        instead: what stands in its place, on both sides, where that is known of more of them; None for nothing.
    """

    name: str
    head: str
    form: str
    read: Callable[[Record], float | None]
    instead: Callable[[Record], float | None] | None = None

    def pair(self, row: Row) -> tuple[float | None, float | None]:
        """Return the figure of the old and the new record; None where it is not known."""
        pair = self._read_both(row, self.read)
        if self.instead is None or None not in pair:
            return pair
        other = self._read_both(row, self.instead)
        is_better = sum(value is not None for value in other) > sum(value is not None for value in pair)
        return other if is_better else pair

    @staticmethod
    def _read_both(row: Row, read: Callable[[Record], float | None]) -> tuple[float | None, float | None]:
        return None if row.old is None else read(row.old), None if row.new is None else read(row.new)

    def text(self, row: Row) -> str:
        """Return the figure for a table: one value if both look the same, else ``old -> new``; ``-`` if unknown."""
        old, new = (self._value_text(value) for value in self.pair(row))
        return old if old == new else f"{old} -> {new}"

    def cell(self, row: Row) -> str:
        """Return the figure for a table, with the interval of the ratio where the row has one."""
        text = self.text(row)
        if self is not CAPACITY or row.capacity is None:
            return text
        low, high = row.capacity
        return f"{text} ({low:.3f} to {high:.3f})" if math.isfinite(high) else f"{text} (from {low:.3f})"

    def _value_text(self, value: float | None) -> str:
        if value is None:
            return "-"
        is_small = self.form.endswith("f}") and _LEAST_SHOWN < abs(value) < 1
        return f"{value:.2g}" if is_small else self.form.format(value)


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
MEMORY = Figure(name="memory_mib", head="memory MiB", form="{:,.1f}", read=memory_mib, instead=_engine_mib)
ENERGY = Figure(name="energy_mj_per_sample", head="mJ per sample", form="{:.3g}", read=_energy_mj)
TAIL = Figure(name="p99_at_80pct_ms", head="p99 ms at 80%", form="{:.3g}", read=_tail_ms)


def _peak_ips(record: Record) -> float | None:
    return None if record.peak is None else record.peak["ips"]


PEAK = Figure(name="peak_ips", head="peak samples/s", form="{:,.0f}", read=_peak_ips)
CAPACITY = Figure(name="capacity_ips", head="samples/s at the SLO", form="{:,.0f}", read=_capacity_ips)
FIGURES = (CAPACITY, TAIL, SQNR, SCORE, MEMORY, ENERGY)


def known(figure: Figure, rows: tuple[Row, ...]) -> bool:
    """Tell whether any row has a value of a figure."""
    return any(value is not None for row in rows for value in figure.pair(row))

"""Define what a search may look for: each objective reads one figure of a record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import joules, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sweep.storage import Record

_MS = 1e3
_MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Describe an objective.

    Attributes:
        name: as `search.objective` has it.
        title: what it is, with its unit.
        figure: reads it from a record; None if the record does not have it.
        higher: more is better.
        slopes: what the score is expected to gain when an axis doubles, before anything is measured.
        needs_slo: it is defined by `slo.*` alone.
        exact: it hardly differs between starts.
    """

    name: str
    title: str
    figure: Callable[[Record], float | None]
    higher: bool
    slopes: Mapping[str, float]
    needs_slo: bool = False
    exact: bool = False

    def score(self, record: Record) -> float | None:
        """Return the logarithm of the figure, negative where less is better; None if it is unknown or not above 0."""
        figure = self.figure(record)
        if figure is None or not figure > 0 or not math.isfinite(figure):
            return None
        return math.log(figure) if self.higher else -math.log(figure)

    def figure_of(self, score: float) -> float:
        """Return the figure of a score."""
        return math.exp(score if self.higher else -score)


def _peak(record: Record) -> float | None:
    return record.peak["ips"] if record.peak is not None else None


def _capacity(record: Record) -> float | None:
    if record.slo is None:
        return None
    return record.slo.get("estimate_ips") or record.slo["capacity_ips"]


def _latency(record: Record) -> float | None:
    return record.peak["latency_ms"].get("p50") if record.peak is not None else None


def _energy(record: Record) -> float | None:
    state = None if record.peak is None else record.peak.get("telemetry")
    energy = None if state is None else state.get("energy_j_per_sample")
    energy = joules(record) if energy is None else energy
    return None if energy is None else energy * _MS


def _memory(record: Record) -> float | None:
    size = memory.peak_device_bytes(record)
    size = memory.host_bytes(record) if size is None else size
    return None if size is None else size / memory.MIB


def _cost(record: Record) -> float | None:
    ips = _capacity(record) if record.slo is not None else _peak(record)
    return _MILLION / ips / 3600 if ips else None


_FASTER = {"batch": 0.3, "streams": 0.15, "clients": 0.15, "narrowness": 0.5}

OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(name="peak", title="peak, samples/s", figure=_peak, higher=True, slopes=_FASTER),
        Objective(
            name="capacity",
            title="capacity under the SLO, samples/s",
            figure=_capacity,
            higher=True,
            slopes={"streams": 0.15, "clients": 0.15, "narrowness": 0.5},
            needs_slo=True,
        ),
        Objective(
            name="latency",
            title="median latency of the closed loop, ms",
            figure=_latency,
            higher=False,
            slopes={"batch": -0.6, "streams": -0.5, "clients": -0.5, "narrowness": 0.4},
        ),
        Objective(name="energy", title="energy, mJ/sample", figure=_energy, higher=False, slopes=_FASTER),
        Objective(
            name="memory",
            title="memory, MiB",
            figure=_memory,
            higher=False,
            slopes={"batch": -0.4, "streams": -0.3, "clients": -0.6, "narrowness": 0.4},
            exact=True,
        ),
        Objective(name="cost", title="cost, GPU-hours per million samples", figure=_cost, higher=False, slopes=_FASTER),
    )
}

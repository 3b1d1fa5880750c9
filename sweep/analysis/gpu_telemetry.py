"""Summarise the readings of a GPU over measured windows. Pure.

The summary of several windows has the fields of the summary of one (``record_types.GpuState``). What could not be
read is None, never zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from sweep.spec import Verdict
from sweep.system import Series, gpu_readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from sweep.storage import GpuState, Spread

    SpreadName = Literal["power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c"]

# NVML's clocks event reasons by which a GPU runs slower than it was asked to: bit masks of nvml.h, documented at
# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html. Not counted: gpu_idle (0x1), clocks that
# somebody set (0x2 and 0x100) and sync_boost (0x10), which are states that a user chose or that cost nothing.
THROTTLES = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}


def window(series: Series, start_ns: int, end_ns: int, samples: int) -> GpuState | None:
    """Summarise the readings between two times; None where none was taken near them.

    Args:
        series: the readings.
        start_ns: start of the window, on the clock of ``Series.t_ns``.
        end_ns: its end.
        samples: number of samples completed in it.
    """
    t_ns = series.t_ns
    if series.lost is None and (not len(t_ns) or end_ns < t_ns[0] or start_ns > t_ns[-1]):
        return None
    first, last = int(np.searchsorted(t_ns, start_ns)), int(np.searchsorted(t_ns, end_ns, side="right"))
    if first == last and 0 < first < len(t_ns):
        first -= 1  # a window between two readings has the state of the one before it
    inside = {name: _without_nan(series.columns[name][first:last]) for name in gpu_readings.COLUMNS}
    energy_j, reasons = _energy_j(series, start_ns, end_ns), _throttle_reasons(inside["reasons"])
    foreign = inside["foreign"] if len(inside["own"]) and inside["own"].any() else np.empty(0)
    return {
        "readings": last - first,
        "power_w": _spread(inside["power_w"]),
        "sm_clock_mhz": _spread(inside["sm_clock_mhz"]),
        "memory_clock_mhz": _spread(inside["memory_clock_mhz"]),
        "temperature_c": _spread(inside["temperature_c"]),
        "energy_j": energy_j,
        "samples": samples,
        "energy_j_per_sample": _per_sample(energy_j, samples),
        "throttled": bool(reasons) if len(inside["reasons"]) else None,
        "throttle_reasons": reasons,
        "foreign_processes": int(foreign.max()) if len(foreign) else None,
        "foreign": sorted(series.strangers) if len(foreign) and foreign.any() else [],
        "measured_again": None,
        "lost": series.lost,
    }


def _without_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values[~np.isnan(values)])


def _spread(values: NDArray[np.float64]) -> Spread | None:
    if not len(values):
        return None
    return {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}


def _energy_j(series: Series, start_ns: int, end_ns: int) -> float | None:
    """Return the difference of the energy counter over the window, J, its ends interpolated between readings.

    None where the readings do not enclose the window, or the counter was not read or went back (a driver reload).
    """
    t_ns = series.t_ns
    first, last = int(np.searchsorted(t_ns, start_ns, side="right")) - 1, int(np.searchsorted(t_ns, end_ns))
    if first < 0 or last >= len(t_ns) or end_ns <= start_ns:
        return None
    around = series.columns["energy_j"][first : last + 1]
    if np.isnan(around).any() or (np.diff(around) < 0).any():
        return None
    seconds = (t_ns[first : last + 1] - start_ns) / 1e9
    start_j, end_j = np.interp([0.0, (end_ns - start_ns) / 1e9], seconds, around)
    return float(end_j - start_j)


def _per_sample(energy_j: float | None, samples: int) -> float | None:
    return None if energy_j is None or not samples else energy_j / samples


def _throttle_reasons(reasons: NDArray[np.float64]) -> dict[str, float]:
    """Return the share of the readings that showed each reason; empty where none did."""
    bits = reasons.astype(np.int64)
    shares = {name: float(np.mean((bits & mask) != 0)) for name, mask in THROTTLES.items()} if len(bits) else {}
    return {name: share for name, share in shares.items() if share}


def merged(parts: Iterable[GpuState | None]) -> GpuState | None:
    """Summarise several windows: means by readings, energy over samples; None where there is no summary."""
    states = [part for part in parts if part is not None]
    if not states:
        return None
    counted = [(part["energy_j"], part["samples"]) for part in states if part["energy_j"] is not None]
    energy_j = sum(joules for joules, _ in counted) if counted else None
    throttled = [part["throttled"] for part in states if part["throttled"] is not None]
    foreign = [part["foreign_processes"] for part in states if part["foreign_processes"] is not None]
    return {
        "readings": sum(part["readings"] for part in states),
        "power_w": _merged_spread(states, "power_w"),
        "sm_clock_mhz": _merged_spread(states, "sm_clock_mhz"),
        "memory_clock_mhz": _merged_spread(states, "memory_clock_mhz"),
        "temperature_c": _merged_spread(states, "temperature_c"),
        "energy_j": energy_j,
        "samples": sum(part["samples"] for part in states),
        "energy_j_per_sample": _per_sample(energy_j, sum(samples for _, samples in counted)),
        "throttled": any(throttled) if throttled else None,
        "throttle_reasons": _merged_reasons(states),
        "foreign_processes": max(foreign) if foreign else None,
        "foreign": sorted({name for part in states for name in part["foreign"]}),
        "measured_again": next((part["measured_again"] for part in states if part["measured_again"] is not None), None),
        "lost": next((part["lost"] for part in states if part["lost"] is not None), None),
    }


def _mean(pairs: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total


def _merged_spread(parts: Sequence[GpuState], name: SpreadName) -> Spread | None:
    weighted = [(spread, part["readings"]) for part in parts if (spread := part[name]) is not None]
    if not weighted:
        return None
    return {
        "mean": _mean([(spread["mean"], readings) for spread, readings in weighted]),
        "min": min(spread["min"] for spread, _ in weighted),
        "max": max(spread["max"] for spread, _ in weighted),
    }


def _merged_reasons(parts: Sequence[GpuState]) -> dict[str, float]:
    judged_states = [part for part in parts if part["throttled"] is not None]
    names = [name for name in THROTTLES if any(name in part["throttle_reasons"] for part in judged_states)]
    return {
        name: _mean([(part["throttle_reasons"].get(name, 0.0), part["readings"]) for part in judged_states])
        for name in names
    }


def disturbance(state: GpuState | None) -> str | None:
    """Return why a measurement is not the GPU's own best, in one line; None if nothing is known against it."""
    if state is None:
        return None
    if state["throttled"]:
        shares = ", ".join(f"{name} in {share:.0%}" for name, share in state["throttle_reasons"].items())
        return f"the GPU was throttled: {shares} of {state['readings']} readings"
    if state["foreign_processes"]:
        return f"the GPU was shared with {', '.join(state['foreign'])}"
    return None


def marked(verdict: tuple[Verdict, str | None], state: GpuState | None) -> tuple[Verdict, str | None]:
    """Return `verdict`, or ``unstable`` with the reason for an ``ok`` from a throttled or shared GPU."""
    reason = disturbance(state)
    return verdict if reason is None or verdict[0] != Verdict.OK else (Verdict.UNSTABLE, reason)

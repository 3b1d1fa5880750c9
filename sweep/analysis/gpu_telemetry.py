"""What a GPU was doing while a point was measured: readings -> one summary a window. Pure.

A summary is a plain dict, and the summary of several windows has the same fields::

    {readings, power_w, sm_clock_mhz, memory_clock_mhz, temperature_c, energy_j, samples, energy_j_per_sample,
     throttled, throttle_reasons, foreign_processes, foreign, measured_again, lost}

``power_w``, the clocks and ``temperature_c`` are {mean, min, max}. What could not be read is None, never zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.system.gpu_readings import COLUMNS, SPREAD, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sweep.spec import JsonDict


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


def window(series: Series, start_ns: int, end_ns: int, samples: int) -> JsonDict | None:
    """Summary of the readings between two times; None where none was taken near it.

    Args:
        series: the readings.
        start_ns: start of the window, on the clock of ``Series.t_ns``.
        end_ns: its end.
        samples: how many samples were completed in it.
    """
    t_ns = series.t_ns
    if series.lost is None and (not len(t_ns) or end_ns < t_ns[0] or start_ns > t_ns[-1]):
        return None
    first, last = int(np.searchsorted(t_ns, start_ns)), int(np.searchsorted(t_ns, end_ns, side="right"))
    if first == last and 0 < first < len(t_ns):
        first -= 1  # a window between two readings has the state of the one before it
    inside = {name: _known(series.columns[name][first:last]) for name in COLUMNS}
    energy_j = _energy_j(series, start_ns, end_ns)
    foreign = inside["foreign"] if len(inside["own"]) and inside["own"].any() else np.empty(0)
    return {
        "readings": last - first,
        **{name: _spread(inside[name]) for name in SPREAD},
        "energy_j": energy_j,
        "samples": samples,
        "energy_j_per_sample": _per_sample(energy_j, samples),
        **_throttling(inside["reasons"]),
        "foreign_processes": int(foreign.max()) if len(foreign) else None,
        "foreign": sorted(series.strangers) if len(foreign) and foreign.any() else [],
        "measured_again": None,
        "lost": series.lost,
    }


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values[~np.isnan(values)])


def _spread(values: NDArray[np.float64]) -> JsonDict | None:
    if not len(values):
        return None
    return {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}


def _energy_j(series: Series, start_ns: int, end_ns: int) -> float | None:
    """Difference of the energy counter over the window, its ends interpolated between the readings around them.

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


def _throttling(reasons: NDArray[np.float64]) -> JsonDict:
    """{throttled, throttle_reasons}: the share of the readings that showed each reason."""
    if not len(reasons):
        return {"throttled": None, "throttle_reasons": {}}
    bits = reasons.astype(np.int64)
    shares = {name: float(np.mean((bits & mask) != 0)) for name, mask in THROTTLES.items()}
    seen = {name: share for name, share in shares.items() if share}
    return {"throttled": bool(seen), "throttle_reasons": seen}


def merged(parts: Sequence[JsonDict | None]) -> JsonDict | None:
    """One summary of several windows: means by readings, energy over samples; None where there is none."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    counted = [part for part in known if part["energy_j"] is not None]
    energy_j = sum(part["energy_j"] for part in counted) if counted else None
    throttled = _told(known, "throttled")
    foreign = _told(known, "foreign_processes")
    return {
        "readings": sum(part["readings"] for part in known),
        **{name: _merged_spread(known, name) for name in SPREAD},
        "energy_j": energy_j,
        "samples": sum(part["samples"] for part in known),
        "energy_j_per_sample": _per_sample(energy_j, sum(part["samples"] for part in counted)),
        "throttled": any(throttled) if throttled else None,
        "throttle_reasons": _merged_reasons(known),
        "foreign_processes": max(foreign) if foreign else None,
        "foreign": sorted({name for part in known for name in part["foreign"]}),
        "measured_again": next(iter(_told(known, "measured_again")), None),
        "lost": next(iter(_told(known, "lost")), None),
    }


def _told(parts: Sequence[JsonDict], name: str) -> list[Any]:
    return [part[name] for part in parts if part[name] is not None]


def _mean(pairs: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total


def _merged_spread(parts: Sequence[JsonDict], name: str) -> JsonDict | None:
    known = [(part[name], part["readings"]) for part in parts if part[name] is not None]
    if not known:
        return None
    ends: dict[str, Callable[[Any], float]] = {"min": min, "max": max}
    return {
        "mean": _mean([(spread["mean"], readings) for spread, readings in known]),
        **{end: of(spread[end] for spread, _ in known) for end, of in ends.items()},
    }


def _merged_reasons(parts: Sequence[JsonDict]) -> dict[str, float]:
    known = [part for part in parts if part["throttled"] is not None]
    seen = [name for name in THROTTLES if any(name in part["throttle_reasons"] for part in known)]
    return {
        name: _mean([(part["throttle_reasons"].get(name, 0.0), part["readings"]) for part in known]) for name in seen
    }


def spoilt(found: JsonDict | None) -> str | None:
    """Why what was measured meanwhile is not the GPU's own best, in one line; None if nothing is known against it."""
    if found is None:
        return None
    if found["throttled"]:
        shares = ", ".join(f"{name} in {share:.0%}" for name, share in found["throttle_reasons"].items())
        return f"the GPU was throttled: {shares} of {found['readings']} readings"
    if found["foreign_processes"]:
        return f"the GPU was shared with {', '.join(found['foreign'])}"
    return None


def marked(verdict: tuple[str, str | None], found: JsonDict | None) -> tuple[str, str | None]:
    """An ``ok`` that was measured on a throttled or shared GPU is ``unstable``, with the reason."""
    reason = spoilt(found)
    return verdict if reason is None or verdict[0] != "ok" else ("unstable", reason)

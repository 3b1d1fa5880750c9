"""Read the peaks of a device from profiles of networks that reach them: a large product, and a copy.

A data sheet's peak is out of reach where power or clocks limit a device, and a CPU has no data sheet here. The highest
rates that its own layers reached are a peak that another layer can be held to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.analysis.layers.analysis import analyse
from sweep.analysis.layers.peaks import Peaks
from sweep.analysis.layers.types import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import LayerProfile


def measured_peaks(profiles: Sequence[LayerProfile]) -> Peaks | None:
    """Return the highest rates of the layers of some profiles of one device.

    The rate of a type is the highest of its products; the bandwidth is the
    highest of the layers that multiply no matrices.

    Args:
        profiles: of networks that reach the peaks, such as one large product in each type and one large copy.

    Returns:
        None where the profiles are of several devices, or no layer has a rate.
    """
    rows = [row for profile in profiles for row in analyse(profile, Peaks(name="", source="", gb_per_s=None)).rows]
    tflops: dict[str, float] = {}
    for row in rows:
        if row.tflops and row.dtype is not None and row.category in PRODUCTS:
            tflops[row.dtype] = max(row.tflops, tflops.get(row.dtype, 0.0))
    bandwidth = max((row.gb_per_s for row in rows if row.gb_per_s and row.category not in PRODUCTS), default=None)
    devices = {profile["device"] for profile in profiles}
    if len(devices) != 1 or (not tflops and bandwidth is None):
        return None
    labels = ", ".join(dict.fromkeys(profile["label"] for profile in profiles))
    return Peaks(
        name=devices.pop() or "the device",
        source=f"measured: {labels}",
        gb_per_s=bandwidth,
        tflops=tflops,
        measured=True,
    )


def merged_peaks(measured: Peaks, listed: Peaks | None) -> Peaks:
    """Return measured peaks, with those of the data sheet for types that were not measured.

    Args:
        measured: measured peaks of a device.
        listed: peaks of its data sheet; None for a device without one.
    """
    if listed is None:
        return measured
    others = {dtype: rate for dtype, rate in listed.tflops.items() if dtype not in measured.tflops}
    bandwidth = measured.gb_per_s if measured.gb_per_s is not None else listed.gb_per_s
    missing = [*others, *([] if measured.gb_per_s is not None else ["bandwidth"])]
    source = measured.source + (f"; {', '.join(missing)}: {listed.source}" if missing else "")
    return replace(measured, source=source, gb_per_s=bandwidth, tflops={**measured.tflops, **others})

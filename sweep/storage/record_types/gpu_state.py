"""Type the state of the GPU during measured windows."""

from __future__ import annotations

from typing import TypedDict

from sweep.storage.record_types.values import Count, Number, Share


class Spread(TypedDict):
    """Summarise the readings of one quantity by mean and range, in its unit.

    Attributes:
        mean: mean of the readings.
        min: lowest reading.
        max: highest reading.
    """

    mean: Number
    min: Number
    max: Number


class GpuState(TypedDict):
    """Describe the state of the GPU over one or several measured windows.

    Attributes:
        readings: number of readings in the windows.
        power_w: power, W.
        sm_clock_mhz: clock of the SMs, MHz.
        memory_clock_mhz: clock of the memory, MHz.
        temperature_c: temperature, degrees Celsius.
        energy_j: energy over the windows by the GPU's own counter, J.
        samples: samples completed in the windows.
        energy_j_per_sample: energy of one sample, J.
        throttled: whether any reading showed a reason for throttling.
        throttle_reasons: share of the readings that showed each reason, 0 to 1.
        foreign_processes: most processes of others seen on the GPU at once.
        foreign: names of those processes.
        measured_again: why an earlier try of this window was discarded and the window measured again.
        lost: why the readings end before the window does.
    """

    readings: Count
    power_w: Spread | None
    sm_clock_mhz: Spread | None
    memory_clock_mhz: Spread | None
    temperature_c: Spread | None
    energy_j: Number | None
    samples: Count
    energy_j_per_sample: Number | None
    throttled: bool | None
    throttle_reasons: dict[str, Share]
    foreign_processes: Count | None
    foreign: list[str]
    measured_again: str | None
    lost: str | None

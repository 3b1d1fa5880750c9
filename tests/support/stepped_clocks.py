"""Stand in for the kernel's clocks where ``sweep.system.clock_jumps`` reads them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.system import clock_jumps

if TYPE_CHECKING:
    import pytest

CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME = (
    time.CLOCK_MONOTONIC,
    time.CLOCK_MONOTONIC_RAW,
    time.CLOCK_BOOTTIME,
)


@dataclass
class Clocks:
    """Show the host's clocks, each with a shift of its own.

    Attributes:
        shifts: ns by the number of the clock.
        missing: clocks that this system does not have.
    """

    shifts: dict[int, int] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)

    CLOCK_MONOTONIC = CLOCK_MONOTONIC
    CLOCK_MONOTONIC_RAW = CLOCK_MONOTONIC_RAW
    CLOCK_BOOTTIME = CLOCK_BOOTTIME

    def clock_gettime_ns(self, clock: int) -> int:
        """Read a clock as ``time.clock_gettime_ns`` does."""
        if clock in self.missing:
            raise OSError(22, "Invalid argument")
        return time.clock_gettime_ns(clock) + self.shifts.get(clock, 0)

    def step(self, seconds: float, *clocks: int) -> None:
        """Set clocks forward, or back."""
        for clock in clocks:
            self.shifts[clock] = self.shifts.get(clock, 0) + round(seconds * 1e9)

    def now_ns(self) -> int:
        """Read CLOCK_MONOTONIC as ``time.perf_counter_ns`` does."""
        return self.clock_gettime_ns(CLOCK_MONOTONIC)


def install(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Let ``clock_jumps`` read clocks that can be stepped."""
    clocks = Clocks()
    monkeypatch.setattr(clock_jumps, "time", clocks)
    return clocks

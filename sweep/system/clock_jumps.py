"""Detect that CLOCK_MONOTONIC, which every duration is measured by, did not run evenly.

A broken machine or hypervisor sets it forward or back; a machine that is suspended stops it. The kernel's other clocks
that nothing sets tell: CLOCK_MONOTONIC_RAW, which is not disciplined by NTP, and CLOCK_BOOTTIME, which runs on while
the machine is suspended. CLOCK_REALTIME is not compared: it may be set at any time, and no duration depends on it.
"""

from __future__ import annotations

import time

from sweep.errors import LoadError

_RAW, _BOOT = time.CLOCK_MONOTONIC_RAW, time.CLOCK_BOOTTIME
_LEAST_NS = 5_000_000  # less is within what a reading of three clocks on a crowded machine costs
_SLEW = 0.1  # by which NTP may speed CLOCK_MONOTONIC up or slow it down: chrony's own bound is 8.3%
_QUICK_NS = 50_000
_TRIES = 5


class ClockWatch:
    """Compare the clocks with their state at the creation of this object."""

    def __init__(self) -> None:
        self._monotonic, self._others, self._spread = _read()

    def jump_s(self) -> float:
        """Return by how much CLOCK_MONOTONIC was set since, in s; negative if it was set back, 0.0 if it was not."""
        monotonic, others, spread = _read()
        gained = self._gained(monotonic, others, _RAW)
        elapsed = abs(others.get(_RAW, 0) - self._others.get(_RAW, 0))
        return gained / 1e9 if abs(gained) > _LEAST_NS + spread + self._spread + _SLEW * elapsed else 0.0

    def check(self) -> None:
        """Check that the clock ran evenly since.

        Raises:
            LoadError: it was set, or the machine was suspended.
        """
        jump_s = self.jump_s()
        monotonic, others, spread = _read()
        lost = -self._gained(monotonic, others, _BOOT)
        if jump_s or -lost > _LEAST_NS + spread + self._spread:
            raise jumped(jump_s or -lost / 1e9)
        if lost > _LEAST_NS + spread + self._spread:
            raise LoadError(
                f"the machine was suspended for {lost / 1e9:.3f} s while it was measured: no figure of that time "
                "counts; the same command measures this variant again"
            )

    def _gained(self, monotonic: int, others: dict[int, int], clock: int) -> int:
        """Return what CLOCK_MONOTONIC gained on another clock, ns; 0 where this system does not have that one."""
        if clock not in others or clock not in self._others:
            return 0
        return (monotonic - self._monotonic) - (others[clock] - self._others[clock])


class Stopwatch(ClockWatch):
    """Time what happens from its creation on, whatever the clock is set to meanwhile."""

    def seconds(self) -> float:
        """Return the time since the creation, s."""
        return max((time.clock_gettime_ns(time.CLOCK_MONOTONIC) - self._monotonic) / 1e9 - self.jump_s(), 0.0)


def jumped(by_s: float | None) -> LoadError:
    """Return the error for a clock that was set while it measured, by `by_s` seconds where that is known."""
    how = "went back" if by_s is None else f"jumped by {by_s:+.3f} s"
    return LoadError(
        f"the machine's clock (CLOCK_MONOTONIC) {how} while it was measured: no figure of that time counts; the same "
        "command measures this variant again"
    )


def _read() -> tuple[int, dict[int, int], int]:
    """Read the clocks together.

    Returns:
        CLOCK_MONOTONIC, the other clocks by number, and the time that the reading took, which is its error; all in ns.
        Of several readings the quickest.
    """
    best: tuple[int, dict[int, int], int] | None = None
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        others = {clock: value for clock in (_RAW, _BOOT) if (value := _clock_ns(clock)) is not None}
        spread = abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - before)
        if best is None or spread < best[2]:
            best = before, others, spread
        if spread < _QUICK_NS:
            break
    assert best is not None  # noqa: S101 - one try at least; tells mypy
    return best


def _clock_ns(clock: int) -> int | None:
    try:
        return time.clock_gettime_ns(clock)
    except OSError:  # a system without it
        return None

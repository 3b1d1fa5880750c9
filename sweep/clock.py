"""Two clocks with one face: the host's, and one that moves only when told to."""

from __future__ import annotations

import os
import time


class RealClock:
    """The host's monotonic clock. Sleeps to just before the due time, then yields until it."""

    _margin_ns = 80_000  # Linux wakes a sleeper some 50 us late

    now_ns = staticmethod(time.perf_counter_ns)

    def sleep_until_ns(self, due_ns: int) -> int:
        """Return at ``due_ns`` or as soon after it as can be, and the time then."""
        now = time.perf_counter_ns()
        if due_ns - now > self._margin_ns:
            time.sleep((due_ns - now - self._margin_ns) / 1e9)
            now = time.perf_counter_ns()
        while now < due_ns:
            os.sched_yield()  # the core: Linux may wake another stream's thread on this one, though others are idle
            time.sleep(0)  # and the GIL, which sched_yield keeps
            now = time.perf_counter_ns()
        return now


class VirtualClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """The virtual time."""
        return self._now_ns

    def sleep_until_ns(self, due_ns: int) -> int:
        """Move the time to ``due_ns``; it never moves back."""
        self._now_ns = max(self._now_ns, due_ns)
        return self._now_ns

"""Provide two clocks with one interface: the host's, and a virtual one."""

from __future__ import annotations

import os
import time

from sweep.system import ClockWatch

_LEAST_MARGIN_NS = 80_000
_MOST_MARGIN_NS = 1_000_000  # a busy machine's delays are no reason to spend its cores on waiting
_LONGEST_SLEEP_NS = 500_000_000  # a sleep until a time that a clock was set back from would last as long as that
_MARGIN_DECAY = (
    32  # part of the margin that is given up at each sleep, so that one late wake-up is not paid for for ever
)


class RealClock:
    """Read the host's monotonic clock. It sleeps until just before the due time, then yields until it.

    The margin before the due time is learned from how late the sleeper was woken: some 50 us on a desktop's kernel, 200
    us on a server whose cores sleep deeply.
    """

    now_ns = staticmethod(time.perf_counter_ns)

    def __init__(self) -> None:
        self._margin_ns = _LEAST_MARGIN_NS
        self._watch = ClockWatch()

    def sleep_until_ns(self, due_ns: int) -> int:
        """Return at ``due_ns`` or as soon after it as possible.

        Args:
            due_ns: time of the wake-up, in ns of ``time.perf_counter_ns``.

        Returns:
            The time of the return, in ns.

        Raises:
            LoadError: the clock was set meanwhile; raised within half a second, however far ``due_ns`` is then.
        """
        now = time.perf_counter_ns()
        while due_ns - now > 2 * _LONGEST_SLEEP_NS:
            time.sleep(_LONGEST_SLEEP_NS / 1e9)
            self._watch.check()
            now = time.perf_counter_ns()
        margin = self._margin_ns
        if due_ns - now > margin:
            time.sleep((due_ns - now - margin) / 1e9)
            now = time.perf_counter_ns()
            late = now - due_ns + margin
            self._margin_ns = min(max(_LEAST_MARGIN_NS, 2 * late, margin - margin // _MARGIN_DECAY), _MOST_MARGIN_NS)
        while now < due_ns:
            os.sched_yield()  # the core: Linux may wake another stream's thread on this one, though others are idle
            time.sleep(0)  # and the GIL, which sched_yield keeps
            now = time.perf_counter_ns()
        return now


class VirtualClock:
    """Keep a time that moves only when a sleep ends."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Return the virtual time, in ns."""
        return self._now_ns

    def sleep_until_ns(self, due_ns: int) -> int:
        """Move the time forward to ``due_ns``, never back, and return it, in ns."""
        if due_ns > self._now_ns:  # noqa: PLR1730 - a call of max is a tenth of what a simulated request costs
            self._now_ns = due_ns
        return self._now_ns

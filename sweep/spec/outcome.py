"""Define statuses and verdicts; JSON holds them as plain strings."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Name how the work on one variant ended.

    Attributes:
        OK: it was measured.
        UNSUPPORTED: this backend, library or machine cannot run it; nothing was timed.
        FAILED: a stage raised an error.
        OOM: the device or the host ran out of memory.
        TIMEOUT: a stage took longer than its limit.
        CRASHED: the worker process died.
        INVALID: what ran is not what the variant asks for, or its outputs break an accuracy gate.
    """

    OK = "ok"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INVALID = "invalid"


class Verdict(StrEnum):
    """Name how far the measurement of one point can be trusted.

    Attributes:
        OK: it counts in full.
        UNSTABLE: its throughput or a percentile moved within the window, or the GPU was disturbed.
        SHORT: it ended before the requested number of requests.
        OVERLOADED: requests arrived faster than they were completed; its latency grows with the length of the run.
        INVALID: the load generator was the bottleneck, so it measures no server.
    """

    OK = "ok"
    UNSTABLE = "unstable"
    SHORT = "short"
    OVERLOADED = "overloaded"
    INVALID = "invalid"


class SloVerdict(StrEnum):
    """Name the result of testing an SLO at one offered rate.

    Attributes:
        HELD: the SLO holds at 99% confidence.
        BROKEN: it does not hold at 99% confidence.
        UNCLEAR: the requests are too few to decide.
        OVERLOADED: as ``Verdict.OVERLOADED``.
        INVALID: as ``Verdict.INVALID``.
    """

    HELD = "held"
    BROKEN = "broken"
    UNCLEAR = "unclear"
    OVERLOADED = "overloaded"
    INVALID = "invalid"


class DriftVerdict(StrEnum):
    """Name whether the machine's speed drifted while a variant was measured.

    Attributes:
        STEADY: every sentinel run around it agrees with the sweep's median.
        DRIFTED: one of them differs by more than 2% and by more than chance.
        UNKNOWN: a sentinel run is missing at an end.
    """

    STEADY = "steady"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"

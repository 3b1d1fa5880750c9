"""Type summaries of the latency and of its parts."""

from __future__ import annotations

from typing import TypedDict

from sweep.storage.record_types.values import LatencyInterval, Milliseconds, Number


class LatencySummary(TypedDict):
    """Summarise the latency from the scheduled arrival to the completion, in ms.

    A percentile that too few requests support is None. From three passes on, a percentile that each pass supports is
    the geometric mean of the passes' own; the others, and all of fewer passes, are those of the pooled requests.

    Attributes:
        mean: mean over the measured requests.
        p50: median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        p999: 99.9th percentile.
        max: longest.
    """

    mean: Milliseconds | None
    p50: Milliseconds | None
    p90: Milliseconds | None
    p95: Milliseconds | None
    p99: Milliseconds | None
    p999: Milliseconds | None
    max: Milliseconds | None


class LatencyIntervals(TypedDict):
    """Give 95% confidence intervals of the latency, [low, high] in ms.

    An interval is None if too few requests count as independent. From three passes on it comes from the spread between
    the passes.

    Attributes:
        p50: of the median.
        p99: of the 99th percentile.
    """

    p50: LatencyInterval | None
    p99: LatencyInterval | None


class IndependentCounts(TypedDict):
    """Give how many requests count as independent for a percentile: of a pass from three passes on, else of all.

    Requests that wait behind one stall say no more than one. A percentile that fewer carry than its own count at 99%
    confidence is probably higher than printed, and tables mark it with ``>``.

    Attributes:
        p50: for the median.
        p90: for the 90th percentile.
        p95: for the 95th percentile.
        p99: for the 99th percentile.
    """

    p50: Number
    p90: Number
    p95: Number
    p99: Number


class PartTimes(TypedDict):
    """Summarise the time of one part of a request over the measured requests, in ms.

    Attributes:
        mean: mean.
        p50: median; None if too few requests support it.
        p99: 99th percentile; None if too few requests support it.
    """

    mean: Number | None
    p50: Number | None
    p99: Number | None


class GpuTimes(TypedDict):
    """Give the time of each part of a request on the GPU.

    Attributes:
        h2d: copies to the device.
        compute: inference alone.
        d2h: copies back.
    """

    h2d: PartTimes | None
    compute: PartTimes | None
    d2h: PartTimes | None

"""Type summaries of the latency and of its parts."""

from __future__ import annotations

from typing import TypedDict

from sweep.storage.record_types.values import LatencyInterval, Milliseconds, Number


class LatencySummary(TypedDict):
    """Summarise the latency from the scheduled arrival to the completion, in ms.

    A percentile that too few requests support is None.

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

    An interval is None if too few requests count as independent.

    Attributes:
        p50: of the median.
        p99: of the 99th percentile.
    """

    p50: LatencyInterval | None
    p99: LatencyInterval | None


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

"""Compute each client's own figures and how alike several clients were served. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import intervals, percentiles
from sweep.analysis.measured_window import window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Bools, ClientFigures, Peak, Point, PointSamples, Shared

LEAST_JAIN = 0.95  # below it somebody was starved: of two clients one got 1.6 times what the other did
MOST_P99_RATIO = 2.0  # above it one client's tail says nothing about another's


def shared(passes: Sequence[PointSamples]) -> Shared:
    """Return what ``peak`` and each of ``points`` hold of several clients; empty where there is one.

    Returns:
        The figures of each client: its rate is that of the window in which all of them ran, so that the rates add up to
        the total. ``p99_ratio`` is None where the count of a client does not carry it.
    """
    count = max((int(samples.client.max(initial=0)) + 1 for samples in passes if samples.client is not None), default=1)
    if count == 1:
        return {}
    each = [_client(passes, number) for number in range(count)]
    return {
        "clients": each,
        "fairness": {"jain": jain([item["achieved_ips"] for item in each]), "p99_ratio": _ratio(each)},
    }


def jain(rates: Sequence[float | None]) -> float | None:
    """Compute Jain's index: 1 where all got the same, 1/n where one got everything; None where nothing was measured.

    R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
    Computer Systems, DEC-TR-301, 1984: (sum x)^2 / (n sum x^2).
    """
    measured = [rate for rate in rates if rate is not None]
    squares = sum(rate * rate for rate in measured)
    return sum(measured) ** 2 / (len(measured) * squares) if squares else None


def unfair(part: Peak | Point) -> str | None:
    """Return why the clients of one peak or point were not served alike, in a few words; None if they were."""
    fairness, clients = part.get("fairness"), part.get("clients", [])
    if fairness is None:
        return None
    index, ratio = fairness["jain"], fairness["p99_ratio"]
    if index is not None and index < LEAST_JAIN:
        rates = ", ".join(f"{client['achieved_ips'] or 0:,.0f}" for client in clients)
        return f"they got {rates} samples/s (Jain's index {index:.2f})"
    if ratio is not None and ratio > MOST_P99_RATIO and _apart([client["p99_interval"] for client in clients]):
        return f"the worst client's p99 was {ratio:.1f} times the best one's"
    return None


def _apart(intervals_ms: Sequence[Sequence[float] | None]) -> bool:
    """Tell whether any two of these 95% intervals are apart.

    Near the knee the tails of equal queues differ by more than twice, so the ratio of two p99 alone shows nothing.
    """
    intervals = [interval for interval in intervals_ms if interval is not None]
    return len(intervals) > 1 and max(low for low, _ in intervals) > min(high for _, high in intervals)


def _client(passes: Sequence[PointSamples], number: int) -> ClientFigures:
    each = [samples.latency_ms[_of(samples, number)[samples.measured]] for samples in passes]
    latency = np.concatenate(each)
    rates = [rate for rate in (_rate_ips(samples, number) for samples in passes) if rate is not None]
    summary = percentiles.latency_summary(latency)
    return {
        "achieved_ips": sum(rates) / len(rates) if rates else None,
        "requests": len(latency),
        "p50_ms": summary["p50"],
        "p99_ms": summary["p99"],
        "p99_interval": intervals.percentile_intervals(each)["p99"] if len(latency) else None,
    }


def _of(samples: PointSamples, number: int) -> Bools:
    client = np.zeros_like(samples.stream) if samples.client is None else samples.client
    of_client: Bools = np.equal(client, number)
    return of_client


def _rate_ips(samples: PointSamples, number: int) -> float | None:
    """Return a client's part of ``measured_window.window_ips``, samples/s."""
    start, end = window(samples)
    if end <= start:
        return None
    inside = (samples.done_ns > start) & (samples.done_ns <= end) & _of(samples, number)
    return float(np.count_nonzero(inside) * samples.batch / ((end - start) / 1e9))


def _ratio(each: Sequence[ClientFigures]) -> float | None:
    tails = [item["p99_ms"] for item in each if item["p99_ms"] is not None]
    return max(tails) / min(tails) if len(tails) == len(each) and min(tails) else None

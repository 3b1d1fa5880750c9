"""Read from a record what a comparison takes of it: its peak with its starts, and its capacity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import best_comparison, intervals, start_spread
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis import StartSpread
    from sweep.storage import Record

# Standard errors of the log throughput of a start, assumed where its window gives none: completions that hang together
# err by 0.3 to 7.5% in the families of service times that the rules are studied on (docs/decisions/0053).
CORRELATED_ERROR = 0.075
UNSTEADY_ERROR = 0.25  # of a peak that is unstable or short
_WIDER = 1.01  # than between the passes, from which on an interval is that from within them
_NORMAL_HALF = 1.96  # standard errors in half of an interval of many batches


def is_usable(record: Record) -> bool:
    """Tell whether the peak of a record counts: one that is unstable or short neither wins nor ties."""
    return record.peak is not None and record.peak["verdict"] == Verdict.OK


def peak_ips(record: Record) -> float:
    """Return the peak of a record, samples/s; 0 where none was measured."""
    return (record.peak["ips"] or 0.0) if record.peak is not None else 0.0


def peak_entry(record: Record, spread: StartSpread | None) -> best_comparison.Entry:
    """Return what a comparison takes of a peak.

    Args:
        record: record with a peak.
        spread: what starts of the variant differ by, as measured elsewhere; None where nothing says.
    """
    starts = starts_ips(record)
    return best_comparison.Entry(
        value=peak_ips(record),
        starts=starts if len(starts) > 1 else [peak_ips(record)],
        within_error=_within_error(record, starts),
        spread=spread,
        assumed_cv=start_spread.assumed_cv(record),
    )


def _within_error(record: Record, starts: Sequence[float]) -> float:
    """Return the standard error of the logarithm of one start, from inside the starts; 0 where theirs hides it.

    From three passes on the interval of a peak is that between the passes, unless 0.8 of that within them is wider.
    """
    interval = record.peak["interval"] if record.peak is not None else None
    if interval is None:
        return CORRELATED_ERROR if len(starts) <= 1 else 0.0
    error = intervals.log_error(interval[0], interval[1], _batches(record))
    if len(starts) <= 1:
        return error
    passes = [ips for ips in (record.peak.get("passes_ips") if record.peak is not None else None) or [] if ips]
    if len(passes) < intervals.PASSES_AS_BATCHES:
        return error * math.sqrt(len(starts))
    between = float(np.log(passes).std(ddof=1)) / math.sqrt(len(passes))
    if error <= between * _WIDER:
        return 0.0
    half = (math.log(interval[1]) - math.log(interval[0])) / 2
    return half / intervals.WITHIN_SHARE / _NORMAL_HALF * math.sqrt(len(starts))


def _batches(record: Record) -> int:
    """Return the batch means behind the interval of a peak; records of the first version do not say."""
    batches = None if record.peak is None else record.peak.get("batches")
    return batches or intervals.BATCHES * int(record.variant.get("repeats", 1))


def starts_ips(record: Record) -> list[float]:
    """Return the throughput of each start, samples/s: that of each engine where several were built; [] if unknown."""
    passes = (record.peak.get("passes_ips") if record.peak else None) or []
    measured = [ips for ips in passes if ips]
    if len(measured) != len(passes):
        return []
    return best_comparison.build_means(measured, builds_of(record))


def builds_of(record: Record) -> int:
    """Return how many engines were built afresh for a record; 1 where the cache's served every pass."""
    return int((record.variant.get("load") or {}).get("builds") or 1)


def capacity_ips(record: Record) -> float:
    """Return the highest rate that held, samples/s; 0 where none did."""
    return (record.slo["capacity_ips"] or 0.0) if record.slo is not None else 0.0


def capacity_ratio(record: Record, best: Record, wider: float = 1.0) -> tuple[float, float]:
    """Return the ends of the ratio of two capacities: that of their estimates, else of what held and what failed.

    Args:
        record: record with a capacity.
        best: record with the capacity that it is divided by.
        wider: factor on the half-width of the estimates' intervals, where they are to hold for several ratios.
    """
    ends = capacity_ips(record) / next_ips(best), next_ips(record) / capacity_ips(best)
    intervals_ips = [item.slo.get("estimate_interval") if item.slo is not None else None for item in (record, best)]
    own, other = intervals_ips
    if own is None or other is None or min(own[0], other[0]) <= 0:
        return ends
    centre = math.log(own[0] * own[1]) / 2 - math.log(other[0] * other[1]) / 2
    half = wider * math.hypot(math.log(own[1] / own[0]), math.log(other[1] / other[0])) / 2
    return max(math.exp(centre - half), ends[0]), min(math.exp(centre + half), ends[1])


def next_ips(record: Record) -> float:
    """Return the lowest rate that did not hold, samples/s; infinite where every rate held."""
    return (record.slo["next_ips"] or math.inf) if record.slo is not None else math.inf

"""Recommend a variant: the one with the highest capacity under the SLO, else with the highest peak.

Variants that the measurement cannot distinguish from the best one are ties.
"""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import accuracy_gates, carried_tail, drifted, intervals, near
from sweep.report.comparison import compared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.spec import Slo
    from sweep.storage import Record, SloResult


_CERTAIN = 0.999  # confidence above which the text says "over 99.9%"
_DEFAULT_BATCHES = 10  # batch means per pass, behind the intervals of records without that number
_START_SPREAD = 0.01  # relative difference between two starts of a variant, which one or two passes cannot show


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold the variant that the sweep recommends.

    Attributes:
        best: record of the variant with the highest figure; None when no variant has one.
        tied: records of other variants that this measurement cannot distinguish from the best one.
        text: the recommendation in a sentence or two.
        overrides: words of the command line that plan the best variant alone; empty where they were not computed.
    """

    best: Record | None
    tied: tuple[Record, ...]
    text: str
    overrides: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """Return the overrides quoted for a shell, as ``With model=digits batch=8``; "" without overrides."""
        return f"With {shlex.join(self.overrides)}" if self.overrides else ""


def answer(records: Sequence[Record], slo: Slo | None) -> Answer:
    """Rank the variants and recommend the best.

    Args:
        records: records of the sweep; only ``ok`` ones are ranked, and none that drifted, or whose outputs rounding
            alone loses, unless all are so.
        slo: latency objective; None ranks by the closed loop's peak.

    Returns:
        The recommendation; its ``best`` is None if no record can be ranked.
    """
    passed = [record for record in records if record.status == "ok"]
    ok = [record for record in passed if not _is_lost(record)] or passed
    steady = [record for record in ok if not drifted(record)]
    ranked = sorted(
        (item for item in map(capacity if slo else peak, steady or ok) if item), key=lambda item: -item.value
    )
    if not ranked:
        reason = f"no variant held {slo} at 99% confidence" if slo else "no variant was measured"
        return Answer(best=None, tied=(), text=f"No answer: {reason}.")
    best = ranked[0]
    is_tied = _brackets_overlap if slo else functools.partial(_peaks_tied, len(ranked))
    tied = tuple(item.record for item in ranked[1:] if is_tied(best, item))
    labels = compared(records).labels
    text = _capacity_text(best, labels[best.record.key], slo) if slo else _peak_text(best, labels[best.record.key])
    if tied:
        names = ", ".join(labels[record.key] for record in tied)
        text += f" Not told apart from it by this measurement: {names}."
    lost = ", ".join(labels[record.key] for record in passed if record not in ok)
    if lost:
        text += f" Not ranked, since rounding alone loses their outputs (model.labels= scores them): {lost}."
    return Answer(best=best.record, tied=tied, text=text + _drift_text(ok, labels))


def _is_lost(record: Record) -> bool:
    """Tell whether rounding alone loses the outputs of a variant, and no labelled samples say what that costs."""
    recipe = record.variant.get("precision_recipe") or {}
    dtype = str(recipe.get("dtype", record.variant.get("precision")))
    has_score = record.accuracy is not None and "score" in record.accuracy
    return not has_score and accuracy_gates.lost_by_rounding(dtype, record.accuracy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Hold the figure by which a record is ranked, with its interval.

    Attributes:
        record: record that has the figure.
        value: figure, samples/s.
        low: lower end of its interval, samples/s.
        high: upper end of its interval, samples/s.
        batches: batch means behind the interval of a peak; None where it has none.
    """

    record: Record
    value: float
    low: float
    high: float
    batches: int | None = None


def peak(record: Record) -> Ranked | None:
    """Return the peak of the closed loop with its 95% interval; None if it was not measured."""
    if record.peak is None or record.peak["ips"] is None:
        return None
    value, interval = record.peak["ips"], record.peak["interval"]
    if not interval:
        return Ranked(record=record, value=value, low=value, high=value)
    batches = record.peak.get("batches", _DEFAULT_BATCHES * record.variant.get("repeats", 1))
    return Ranked(record=record, value=value, low=interval[0], high=interval[1], batches=batches)


def capacity(record: Record) -> Ranked | None:
    """Return the capacity under the SLO, with the lowest rate that failed as the upper end; None without one."""
    if record.slo is None or record.slo["capacity_ips"] is None:
        return None
    low = record.slo["capacity_ips"]
    high = record.slo["next_ips"] or float("inf")
    return Ranked(record=record, value=low, low=low, high=high)


def _brackets_overlap(best: Ranked, other: Ranked) -> bool:
    return other.high > best.low or other.value == best.value


def _peaks_tied(ranked: int, best: Ranked, other: Ranked) -> bool:
    """Return whether two peaks cannot be distinguished (docs/decisions/0014).

    The risk is 3% for the whole sweep, by Bonferroni over every pair of variants, since the best one was picked. Three
    or more interleaved passes are compared by the ratio of each pass, fewer by Welch's test. With fewer, peaks that
    differ by less than two starts of one variant are tied, because so few passes cannot show that difference.

    Args:
        ranked: number of variants that were ranked.
        best: highest peak.
        other: peak to compare with it.
    """
    if best.batches is None or other.batches is None:
        return True
    risk = intervals.RISK / max(ranked * (ranked - 1) / 2, 1)
    passes, other_passes = _passes(best), _passes(other)
    if len(passes) == len(other_passes) >= intervals.PASSES_AS_BATCHES:
        return not intervals.paired_apart(passes, other_passes, risk)
    if best.value <= other.value * (1 + _START_SPREAD):
        return True
    return not intervals.apart((best.low, best.high, best.batches), (other.low, other.high, other.batches), risk)


def _passes(item: Ranked) -> list[float]:
    """Return the throughput of each pass, samples/s; empty if it is unknown for any pass."""
    passes = (item.record.peak.get("passes_ips") if item.record.peak else None) or []
    measured = [ips for ips in passes if ips]
    return measured if len(measured) == len(passes) else []


def _drift_text(ok: Sequence[Record], labels: Mapping[str, str]) -> str:
    excluded = [record for record in ok if drifted(record)]
    if not excluded:
        return ""
    if len(excluded) == len(ok):
        return " The machine drifted while all of them were measured: measure again (force=true)."
    names = ", ".join(labels[record.key] for record in excluded)
    return f" Not ranked, since the machine drifted while they were measured (force=true): {names}."


def _peak_text(best: Ranked, label: str) -> str:
    text = f"Most samples/s: {label} at {best.value:,.0f}"
    loaded = near(best.record, 0.8)
    tail = carried_tail([loaded] if loaded else [])
    if loaded is not None and tail is not None:
        text += f" ({tail} {loaded['latency_ms'][tail]:.3g} ms at {loaded['achieved_ips']:,.0f})"
    return f"{text}. Add slo.p99_ms=LIMIT to rank by the samples/s that keep a latency; only that is searched."


def _capacity_text(best: Ranked, label: str, slo: Slo) -> str:
    result = best.record.slo
    assert result is not None  # noqa: S101 - `capacity` ranked it by its SLO; this is for mypy
    confidence = result["confidence"] or 0.0
    percent = "over 99.9%" if confidence > _CERTAIN else f"{confidence:.1%}"
    capacity_text = f"{best.value:,.0f} samples/s keep {slo} ({percent} confidence{_confirmation(result)})"
    above = "Every rate tried kept the limit: the capacity may be higher"
    if result["next_ips"]:
        above = f"The next rate tried, {result['next_ips']:,.0f} samples/s, missed the limit"
    remark = "" if result["monotonic"] else " A rate above it kept the limit again: the curve is not monotonic."
    return f"Take {label}: {capacity_text}. {above}.{remark}"


def _confirmation(result: SloResult) -> str:
    """Return how the capacity was confirmed, or that only the rungs of the ladder show it."""
    if not result.get("confirmed"):
        return "" if "confirmed" not in result else ", judged from the rates of the curve alone"
    last = next(
        probe
        for probe in result.get("probes", [])
        if probe["kind"] == "confirm" and probe["offered_ips"] == result["capacity_ips"]
    )
    return f", confirmed by {last['requests']:,} requests at that rate"

"""Rank the variants of one model by their capacity under the SLO, and word the outcome."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.analysis import best_comparison, start_spread
from sweep.report.recommendation import Answer, names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import SpreadHistory
    from sweep.spec import Slo
    from sweep.storage import Record, SloResult

_CERTAIN = 0.999  # confidence above which the text says "over 99.9%"


def by_capacity(
    records: Sequence[Record], slo: Slo, history: SpreadHistory | None, labels: Mapping[str, str]
) -> Answer:
    """Rank by the capacity under the SLO; a variant whose search gave no answer is tied where it may be the best."""
    judged = [record for record in records if record.slo is not None]
    ranked = sorted((record for record in judged if _capacity(record)), key=lambda record: -_capacity(record))
    if not ranked:
        return Answer(best=None, tied=(), text=f"No answer: no variant held {slo} at 99% confidence.")
    best = ranked[0]
    others = [*ranked[1:], *(record for record in judged if not _capacity(record))]
    entries = [
        best_comparison.Entry(
            value=_capacity(record) or _capacity(best),
            starts=[_capacity(record) or _capacity(best)],
            spread=history.of(record.key) if history else None,
            assumed_cv=start_spread.assumed_cv(record),
        )
        for record in [best, *others]
    ]
    margin = 1 / (1 - best_comparison.band(entries, 0)) if others else 1.0
    ratios = {best.key: best_comparison.Ratio(low=1.0, high=1.0)}
    for record in others:
        low, high = _capacity_ratio(record, best)
        ratios[record.key] = best_comparison.Ratio(low=low / margin, high=high * margin)
    tied = tuple(record for record in others if not ratios[record.key].told_apart)
    decided = not others or len(tied) < len(others)
    lead = (
        "Take" if decided else f"Too noisy to decide between {len(others) + 1} variants (raise slo.search_s). Highest:"
    )
    text = _capacity_text(best, f"{lead} {labels[best.key]}", slo)
    if tied:
        text += f" Not told apart from it by this measurement: {names(tied, labels)}."
    return Answer(best=best, tied=tied, text=text, decided=decided, ratios=ratios)


def _capacity(record: Record) -> float:
    """Return the highest rate that held, samples/s; 0 where none did."""
    return (record.slo["capacity_ips"] or 0.0) if record.slo is not None else 0.0


def _capacity_ratio(record: Record, best: Record) -> tuple[float, float]:
    """Return the ends of the ratio of two capacities: that of their estimates, else of what held and what failed."""
    ends = _capacity(record) / _next(best), _next(record) / _capacity(best)
    intervals_ips = [item.slo.get("estimate_interval") if item.slo is not None else None for item in (record, best)]
    own, other = intervals_ips
    if own is None or other is None or min(own[0], other[0]) <= 0:
        return ends
    centre = math.log(own[0] * own[1]) / 2 - math.log(other[0] * other[1]) / 2
    half = math.hypot(math.log(own[1] / own[0]), math.log(other[1] / other[0])) / 2
    return max(math.exp(centre - half), ends[0]), min(math.exp(centre + half), ends[1])


def _next(record: Record) -> float:
    """Return the lowest rate that did not hold, samples/s; infinite where every rate held."""
    return (record.slo["next_ips"] or math.inf) if record.slo is not None else math.inf


def _capacity_text(best: Record, start: str, slo: Slo) -> str:
    result = best.slo
    assert result is not None  # noqa: S101 - it was ranked by its SLO; this is for mypy
    confidence = result["confidence"] or 0.0
    percent = "over 99.9%" if confidence > _CERTAIN else f"{confidence:.1%}"
    capacity_text = f"{_capacity(best):,.0f} samples/s keep {slo} ({percent} confidence{_confirmation(result)})"
    above = "Every rate tried kept the limit: the capacity may be higher"
    if result["next_ips"]:
        above = f"The next rate tried, {result['next_ips']:,.0f} samples/s, missed the limit"
    remark = "" if result["monotonic"] else " A rate above it kept the limit again: the curve is not monotonic."
    return f"{start}: {capacity_text}. {above}.{remark}"


def _confirmation(result: SloResult) -> str:
    """Return how the capacity was confirmed, or that only the rungs of the ladder show it."""
    if not result.get("confirmed"):
        return "" if "confirmed" not in result else ", judged from the rates of the curve alone"
    runs = [
        probe
        for probe in result.get("probes", [])
        if probe["kind"] == "confirm" and probe["offered_ips"] == result["capacity_ips"]
    ]
    together = next((probe["requests_together"] for probe in runs if "requests_together" in probe), None)
    if together:
        return f", confirmed by {together:,} requests at that rate and above"
    held = next((probe for probe in runs if probe.get("verdict") == "held"), runs[0])
    return f", confirmed by {held['requests']:,} requests at that rate"

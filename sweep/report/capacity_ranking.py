"""Rank the variants of one model by their capacity under the SLO, and word the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis import best_comparison, start_spread
from sweep.report.compared_figures import capacity_ips, capacity_ratio
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
    ranked = sorted((record for record in judged if capacity_ips(record)), key=lambda record: -capacity_ips(record))
    if not ranked:
        return Answer(best=None, tied=(), text=f"No answer: no variant held {slo} at 99% confidence.")
    best = ranked[0]
    others = [*ranked[1:], *(record for record in judged if not capacity_ips(record))]
    entries = [
        best_comparison.Entry(
            value=capacity_ips(record) or capacity_ips(best),
            starts=[capacity_ips(record) or capacity_ips(best)],
            spread=history.of(record.key) if history else None,
            assumed_cv=start_spread.assumed_cv(record),
        )
        for record in [best, *others]
    ]
    margin = 1 / (1 - best_comparison.band(entries, 0)) if others else 1.0
    ratios = {best.key: best_comparison.Ratio(low=1.0, high=1.0)}
    for record in others:
        low, high = capacity_ratio(record, best)
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


def _capacity_text(best: Record, start: str, slo: Slo) -> str:
    result = best.slo
    assert result is not None  # noqa: S101 - it was ranked by its SLO; this is for mypy
    confidence = result["confidence"] or 0.0
    percent = "over 99.9%" if confidence > _CERTAIN else f"{confidence:.1%}"
    capacity_text = f"{capacity_ips(best):,.0f} samples/s keep {slo} ({percent} confidence{_confirmation(result)})"
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

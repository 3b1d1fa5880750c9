"""Which variant to take: ranked by capacity under the SLO, else by peak, and only where intervals separate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.judge import carried_tail, near

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.axes import JsonDict
    from sweep.record import Record


_CERTAIN = 0.999
_SETTINGS = ("model", "precision", "batch", "streams", "clients", "mps", "cuda_graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sweep says.

    Attributes:
        best: the variant with the highest figure; None when no variant has one.
        tied: other variants whose interval overlaps the best one's.
        text: the answer in a sentence or two.
    """

    best: Record | None
    tied: tuple[Record, ...]
    text: str


def answer(records: Sequence[Record], slo: tuple[str, float] | None) -> Answer:
    """The variant to take.

    Args:
        records: those of the sweep; only ``ok`` ones are ranked.
        slo: (percentile name, limit in ms); None ranks by the closed loop's peak.
    """
    ok = [record for record in records if record.status == "ok"]
    ranked = sorted((item for item in map(capacity if slo else peak, ok) if item), key=lambda item: -item.value)
    if not ranked:
        asked = f"no variant held {slo[0]} <= {slo[1]:g} ms at 99% confidence" if slo else "no variant was measured"
        return Answer(best=None, tied=(), text=f"No answer: {asked}.")
    best = ranked[0]
    tied = tuple(item.record for item in ranked[1:] if item.high > best.low or item.value == best.value)
    text = _capacity_text(best, slo) if slo else _peak_text(best)
    if tied:
        names = ", ".join(record.variant["label"] for record in tied)
        text += f" Not told apart from it by this measurement: {names}."
    return Answer(best=best.record, tied=tied, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A record's figure with its interval, samples/s."""

    record: Record
    value: float
    low: float
    high: float


def peak(record: Record) -> Ranked | None:
    """Peak samples/s of the closed loop with its 95% interval."""
    if record.peak is None or record.peak["ips"] is None:
        return None
    low, high = record.peak["interval"] or (record.peak["ips"], record.peak["ips"])
    return Ranked(record=record, value=record.peak["ips"], low=low, high=high)


def capacity(record: Record) -> Ranked | None:
    """Capacity under the SLO: between the highest rung that held and the lowest that did not."""
    if record.slo is None or record.slo["capacity_ips"] is None:
        return None
    low = record.slo["capacity_ips"]
    high = record.slo["next_ips"] or float("inf")
    return Ranked(record=record, value=low, low=low, high=high)


def _peak_text(best: Ranked) -> str:
    text = f"Most samples/s: {best.record.variant['label']} at {best.value:,.0f}"
    busy = near(best.record, 0.8)
    tail = carried_tail([busy] if busy else [])
    if busy is not None and tail is not None:
        text += f" ({tail} {busy['latency_ms'][tail]:.3g} ms at {busy['achieved_ips']:,.0f})"
    return f"{text}. Add slo.p99_ms=LIMIT to rank by the samples/s that keep a latency; only that is searched."


def _capacity_text(best: Ranked, slo: tuple[str, float]) -> str:
    found = best.record.slo or {}
    sure = "over 99.9%" if found["confidence"] > _CERTAIN else f"{found['confidence']:.1%}"
    held = f"{best.value:,.0f} samples/s keep {slo[0]} <= {slo[1]:g} ms ({sure} confidence{_confirmed(found)})"
    step = "" if found.get("confirmed") else "the next rung, "
    above = f"{step}{found['next_ips']:,.0f}, did not" if found["next_ips"] else "no rung failed: ask for more"
    uneven = "" if found["monotonic"] else " A rate above it held again: the curve is not monotonic."
    return f"Take {best.record.variant['label']}: {held}; {above}.{uneven}{_settings(best.record)}"


def _confirmed(found: JsonDict) -> str:
    """How the rate was confirmed, or that it is the ladder's word alone."""
    if not found.get("confirmed"):
        return "" if "confirmed" not in found else ", judged from the rungs alone"
    last = next(
        probe
        for probe in found["probes"]
        if probe["kind"] == "confirm" and probe["offered_ips"] == found["capacity_ips"]
    )
    return f", confirmed by {last['requests']:,} requests at that rate"


def _settings(record: Record) -> str:
    """The axes as one would type them."""
    typed = (
        f"{axis}={str(value).lower() if isinstance(value, bool) else value}"
        for axis in _SETTINGS
        if (value := record.variant.get(axis)) is not None
    )
    words = " ".join(typed)
    return f" With {words}." if words else ""

"""Which variant to take: ranked by capacity under the SLO, else by peak, and only where they can be told apart."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import carried_tail, drifted, intervals, near
from sweep.report.comparison import compared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.spec import Slo
    from sweep.storage import Record, SloResult


_CERTAIN = 0.999
_OLD_BATCHES = 10  # a pass, behind the intervals of records that do not say
_STARTS = 0.01  # what one or two passes cannot see: a variant's starts differ by about this


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sweep says.

    Attributes:
        best: the variant with the highest figure; None when no variant has one.
        tied: other variants that this measurement cannot tell from the best one.
        text: the answer in a sentence or two.
        overrides: words of the command line that plan the best variant alone; empty where nobody has worked them out.
    """

    best: Record | None
    tied: tuple[Record, ...]
    text: str
    overrides: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """Return how the best variant is asked for, for a shell: ``With model=digits batch=8``; "" if not known."""
        return f"With {shlex.join(self.overrides)}" if self.overrides else ""


def answer(records: Sequence[Record], slo: Slo | None) -> Answer:
    """The variant to take.

    Args:
        records: those of the sweep; only ``ok`` ones are ranked, and none that drifted unless all did.
        slo: the latency objective; None ranks by the closed loop's peak.
    """
    ok = [record for record in records if record.status == "ok"]
    steady = [record for record in ok if not drifted(record)]
    ranked = sorted(
        (item for item in map(capacity if slo else peak, steady or ok) if item), key=lambda item: -item.value
    )
    if not ranked:
        asked = f"no variant held {slo} at 99% confidence" if slo else "no variant was measured"
        return Answer(best=None, tied=(), text=f"No answer: {asked}.")
    best = ranked[0]
    alike = _brackets_meet if slo else functools.partial(_alike, len(ranked))
    tied = tuple(item.record for item in ranked[1:] if alike(best, item))
    labels = compared(records).labels
    text = _capacity_text(best, labels[best.record.key], slo) if slo else _peak_text(best, labels[best.record.key])
    if tied:
        names = ", ".join(labels[record.key] for record in tied)
        text += f" Not told apart from it by this measurement: {names}."
    return Answer(best=best.record, tied=tied, text=text + _drift_text(ok, labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A record's figure with its interval, samples/s.

    Attributes:
        record: whose.
        value: the figure.
        low: lower end.
        high: upper end.
        batches: batch means behind the interval of a peak; None where it has none.
    """

    record: Record
    value: float
    low: float
    high: float
    batches: int | None = None


def peak(record: Record) -> Ranked | None:
    """Peak samples/s of the closed loop with its 95% interval."""
    if record.peak is None or record.peak["ips"] is None:
        return None
    value, interval = record.peak["ips"], record.peak["interval"]
    if not interval:
        return Ranked(record=record, value=value, low=value, high=value)
    batches = record.peak.get("batches", _OLD_BATCHES * record.variant.get("repeats", 1))
    return Ranked(record=record, value=value, low=interval[0], high=interval[1], batches=batches)


def capacity(record: Record) -> Ranked | None:
    """Capacity under the SLO: between the highest rung that held and the lowest that did not."""
    if record.slo is None or record.slo["capacity_ips"] is None:
        return None
    low = record.slo["capacity_ips"]
    high = record.slo["next_ips"] or float("inf")
    return Ranked(record=record, value=low, low=low, high=high)


def _brackets_meet(best: Ranked, other: Ranked) -> bool:
    return other.high > best.low or other.value == best.value


def _alike(ranked: int, best: Ranked, other: Ranked) -> bool:
    """Whether two peaks are not told apart (docs/decisions/0014).

    At 3% for the whole sweep: Bonferroni over every pair of the ``ranked`` variants, since the best was picked. With
    three or more interleaved passes by the ratio pass by pass; with fewer by Welch's test, and never by less than
    one start of a variant differs from its next, which so few passes cannot see.
    """
    if best.batches is None or other.batches is None:
        return True
    risk = intervals.RISK / max(ranked * (ranked - 1) / 2, 1)
    passes, others = _passes(best), _passes(other)
    if len(passes) == len(others) >= intervals.PASSES_AS_BATCHES:
        return not intervals.paired_apart(passes, others, risk)
    if best.value <= other.value * (1 + _STARTS):
        return True
    return not intervals.apart((best.low, best.high, best.batches), (other.low, other.high, other.batches), risk)


def _passes(item: Ranked) -> list[float]:
    """Throughput of each pass; empty where the record does not say, or one had none."""
    passes = (item.record.peak.get("passes_ips") if item.record.peak else None) or []
    known = [ips for ips in passes if ips]
    return known if len(known) == len(passes) else []


def _drift_text(ok: Sequence[Record], labels: Mapping[str, str]) -> str:
    odd = [record for record in ok if drifted(record)]
    if not odd:
        return ""
    if len(odd) == len(ok):
        return " The machine drifted while all of them were measured: measure again (force=true)."
    names = ", ".join(labels[record.key] for record in odd)
    return f" Not ranked, since the machine drifted while they were measured (force=true): {names}."


def _peak_text(best: Ranked, label: str) -> str:
    text = f"Most samples/s: {label} at {best.value:,.0f}"
    busy = near(best.record, 0.8)
    tail = carried_tail([busy] if busy else [])
    if busy is not None and tail is not None:
        text += f" ({tail} {busy['latency_ms'][tail]:.3g} ms at {busy['achieved_ips']:,.0f})"
    return f"{text}. Add slo.p99_ms=LIMIT to rank by the samples/s that keep a latency; only that is searched."


def _capacity_text(best: Ranked, label: str, slo: Slo) -> str:
    found = best.record.slo
    assert found is not None  # noqa: S101 - `capacity` ranked it by its SLO; tells mypy
    confidence = found["confidence"] or 0.0
    sure = "over 99.9%" if confidence > _CERTAIN else f"{confidence:.1%}"
    held = f"{best.value:,.0f} samples/s keep {slo} ({sure} confidence{_confirmed(found)})"
    step = "" if found.get("confirmed") else "the next rung, "
    above = f"{step}{found['next_ips']:,.0f}, did not" if found["next_ips"] else "no rung failed: ask for more"
    uneven = "" if found["monotonic"] else " A rate above it held again: the curve is not monotonic."
    return f"Take {label}: {held}; {above}.{uneven}"


def _confirmed(found: SloResult) -> str:
    """How the rate was confirmed, or that it is the ladder's word alone."""
    if not found.get("confirmed"):
        return "" if "confirmed" not in found else ", judged from the rungs alone"
    last = next(
        probe
        for probe in found.get("probes", [])
        if probe["kind"] == "confirm" and probe["offered_ips"] == found["capacity_ips"]
    )
    return f", confirmed by {last['requests']:,} requests at that rate"

"""Compare two measurements, a row a variant: throughput, capacity, accuracy, memory and energy."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sweep import spec
from sweep.analysis import best_comparison, drifted, intervals, run_comparison, start_spread
from sweep.errors import ConfigError, shorten
from sweep.report.compare.capacities import capacity_changes
from sweep.report.compare.facts import FactChange, fact_changes
from sweep.report.compare.join import Pair, join, without_effort
from sweep.report.compare.rates import RateChange, equal_rates, passes_of, rate_changes
from sweep.report.compared_figures import (
    UNSTEADY_ERROR,
    is_usable,
    peak_entry,
    peak_ips,
)
from sweep.spec import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import StartSpread
    from sweep.report.results import Results
    from sweep.storage import Record

_MOST_REASON = 160  # characters
_ADVISED_REPEATS = 5
_FEW_PASSES = (
    "what starts differ by counts as often as the slope of the curve says; "
    f"repeats={_ADVISED_REPEATS} on both sides measures it"
)


class Outcome(StrEnum):
    """Name what became of a variant.

    Attributes:
        SLOWER: its throughput fell, or its latency at a rate that both were offered rose, by more than chance explains,
            all rows taken together.
        FASTER: it rose, or the latency fell, by more.
        SAME: the measurement does not tell the two apart.
        INCOMPARABLE: the two cannot be compared; the row has the reason.
        ADDED: the earlier measurement lacks it.
        REMOVED: the later measurement lacks it.
    """

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "not told apart"
    INCOMPARABLE = "cannot be compared"
    ADDED = "only in NEW"
    REMOVED = "only in OLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Hold the comparison of one variant.

    Attributes:
        label: name of the variant, which no other row has.
        old: its earlier record; None where there is none.
        new: its later record; None where there is none.
        outcome: what became of its throughput, or of its latency at equal rates.
        change: new throughput over old; None where they cannot be compared.
        reason: why they cannot, or why only a large difference shows; None where neither holds.
        comparable: both ended ``ok``, on one kind of device and under one load, or were to be compared anyway.
        lost: the earlier one ended ``ok`` and the later one did not, or is missing.
        capacity: (low, high) of the new capacity under the SLO over the old one; None where one of the two has none,
            or where the limits differ.
        rates: what became of the latency at each rate that both were offered; empty where the load gives no rates.
    """

    label: str
    old: Record | None
    new: Record | None
    outcome: Outcome
    change: run_comparison.Change | None = None
    reason: str | None = None
    comparable: bool = False
    lost: bool = False
    capacity: tuple[float, float] | None = None
    rates: tuple[RateChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Hold the comparison of two measurements.

    Attributes:
        old: name of the earlier measurement.
        new: name of the later measurement.
        facts: facts that differ.
        rows: one a variant, those that were told apart first.
        evidence: what the figures rest on, in words: how many starts, and what these are known to differ by.
        notes: what a reader should know besides, one line each.
    """

    old: str
    new: str
    facts: tuple[FactChange, ...]
    rows: tuple[Row, ...]
    evidence: str
    notes: tuple[str, ...] = ()

    def count(self, outcome: Outcome) -> int:
        """Return the number of rows with an outcome."""
        return sum(row.outcome is outcome for row in self.rows)

    def rates(self, most: int) -> tuple[list[tuple[Row, RateChange]], str]:
        """Return what a table of the figures at equal rates shows, those that were told apart first.

        Args:
            most: rows of the table.

        Returns:
            The rows, and a line on those that are left out; empty where none is.
        """
        changes = [(row, change) for row in self.rows for change in row.rates]
        changes.sort(key=lambda item: not (item[1].slower or item[1].faster))
        left = changes[most:]
        told = sum(change.slower or change.faster for _, change in left)
        more = f"and {len(left)} more figures at equal rates, {told} of them told apart" if left else ""
        return changes[:most], more

    @property
    def summary(self) -> str:
        """Return the counts in words: ``Of 12 variants: 1 slower, 11 not told apart.``."""
        counts = [f"{count} {outcome}" for outcome in Outcome if (count := self.count(outcome))]
        text = f"Of {len(self.rows)} variant{'' if len(self.rows) == 1 else 's'}: {', '.join(counts)}."
        ratios = [row.change.ratio for row in self.rows if row.change is not None]
        return f"{text} Median of the ratios: {statistics.median(ratios):.3f}." if len(ratios) > 1 else text


def compare(old: Results, new: Results, *, anyway: bool = False) -> RunComparison:
    """Compare two measurements.

    Args:
        old: the earlier one.
        new: the later one.
        anyway: compare variants of another GPU, load or network too.

    Raises:
        ConfigError: no variant of one is comparable with one of the other; the message says what differs.
    """
    pairs = join(old.records, new.records)
    both = [(pair.old, pair.new) for pair in pairs if pair.old is not None and pair.new is not None]
    obstacles = [pair.obstacle for pair in pairs if pair.obstacle is not None]
    if not both:
        raise ConfigError(_nothing_in_common(old, new))
    if len(obstacles) == len(both) and not anyway:
        raise ConfigError(f"{old.name} and {new.name} are not comparable: {obstacles[0]}; --anyway compares them")
    spreads = (old.start_spreads(exclude=new.roots), new.start_spreads(exclude=old.roots))
    refusals = [_not_alike(pair, anyway=anyway) for pair in pairs]
    alike = {
        number: (pair.old, pair.new)
        for number, pair in enumerate(pairs)
        if pair.old is not None and pair.new is not None and refusals[number] is None
    }
    measured = {number: _entries(*sides, spreads) for number, sides in alike.items() if _without_peak(*sides) is None}
    at_rates = {number: sides for number, sides in alike.items() if equal_rates(*sides)}
    tables = 2 if measured and at_rates else 1
    changes = dict(zip(measured, run_comparison.changes(list(measured.values()), tables), strict=True))
    rates = rate_changes(at_rates, spreads, tables)
    capacities = capacity_changes(alike, spreads)
    rows = [
        _row(pair, label, refusals[number], changes.get(number), rates.get(number, ()), capacities.get(number))
        for number, (pair, label) in enumerate(zip(pairs, _labels(pairs), strict=True))
    ]
    steady = [number for number in measured if _unsteady_side(*alike[number]) is None] or list(measured)
    order = [Outcome.SLOWER, Outcome.FASTER, Outcome.INCOMPARABLE, Outcome.REMOVED, Outcome.SAME, Outcome.ADDED]
    return RunComparison(
        old=old.name,
        new=new.name,
        facts=tuple(fact_changes(both)),
        rows=tuple(sorted(rows, key=lambda row: order.index(row.outcome))),
        evidence=_evidence([measured[number] for number in steady], [changes[number] for number in steady], rows),
        notes=(*_notes(old, new, obstacles, anyway=anyway), *_doubtful(old, new, pairs)),
    )


def _entries(
    old: Record, new: Record, spreads: Sequence[Mapping[str, StartSpread]]
) -> tuple[best_comparison.Entry, best_comparison.Entry]:
    """Return what the comparison takes of both.

    What starts differ by is taken from the old side where that knows it: earlier records beside a new one that got
    slower would take the slowdown for a spread.
    """
    spread = spreads[0].get(old.key) or spreads[1].get(new.key)
    return _entry(old, spread), _entry(new, spread)


def _entry(record: Record, spread: StartSpread | None) -> best_comparison.Entry:
    """Return what the comparison takes of a peak; one that is not steady counts as known to a quarter."""
    entry = peak_entry(record, spread)
    if _unsteadiness(record) is None:
        return entry
    return dataclasses.replace(entry, starts=[entry.value], within_error=UNSTEADY_ERROR)


def _labels(pairs: Sequence[Pair]) -> list[str]:
    """Return a label for each pair that no other has; how long a load is measured is in it only where it has to be."""
    records = [record for pair in pairs if (record := pair.new or pair.old) is not None]
    stored = {str(n): str(record.variant.get("label", record.key)) for n, record in enumerate(records)}
    variants = {str(n): spec.from_record(record.variant) for n, record in enumerate(records)}
    labels = spec.compare({n: without_effort(variant) for n, variant in variants.items()}, stored).labels
    if any("#" in label for label in labels.values()):
        labels = spec.compare(variants, stored).labels
    return [labels[n] for n in stored]


def _not_alike(pair: Pair, *, anyway: bool) -> str | None:
    """Return why nothing of a pair can be compared; None where it can, or where one of the two is missing."""
    if pair.old is None or pair.new is None:
        return None
    for record, name in ((pair.new, "NEW"), (pair.old, "OLD")):
        if record.status != Status.OK:
            message = f": {record.error['message']}" if record.error else ""
            return shorten(f"{name} ended {record.status}{message}", _MOST_REASON)
    return None if anyway else pair.obstacle


def _without_peak(old: Record, new: Record) -> str | None:
    """Return why the throughput of a pair cannot be compared; None where it can."""
    missing = [name for record, name in ((new, "NEW"), (old, "OLD")) if not peak_ips(record)]
    if len(missing) > 1:
        return "no closed loop, and no rate at which both have a latency with an interval"
    return f"{missing[0]} has no closed loop, whose peak is what is compared" if missing else None


def _unsteadiness(record: Record) -> str | None:
    """Return why the peak of a record shows only a large difference; None where it counts in full."""
    if record.peak is not None and not is_usable(record):
        why = record.peak.get("reason")
        return f"its peak is {record.peak['verdict']}" + (f": {why}" if why else "")
    return "the machine drifted meanwhile" if drifted(record) else None


def _unsteady_side(old: Record, new: Record) -> str | None:
    """Return which side's peak is not steady, and why; None where both are."""
    for record, name in ((new, "NEW"), (old, "OLD")):
        reason = _unsteadiness(record)
        if reason is not None:
            return f"{name}: {reason}; only half or double would be told apart"
    return None


def _row(
    pair: Pair,
    label: str,
    refusal: str | None,
    change: run_comparison.Change | None,
    rates: tuple[RateChange, ...],
    capacity: tuple[float, float] | None,
) -> Row:
    old, new = pair.old, pair.new
    lost = old is not None and old.status == Status.OK and (new is None or new.status != Status.OK)
    if old is None or new is None:
        return Row(label=label, old=old, new=new, outcome=Outcome.ADDED if old is None else Outcome.REMOVED, lost=lost)
    comparable = refusal is None
    if change is None:
        outcome, reason = Outcome.INCOMPARABLE, refusal or _without_peak(old, new)
        lost = lost or (comparable and _measured_no_more(old, new))
    else:
        reason = _unsteady_side(old, new)
        outcome = Outcome.SLOWER if change.slower else Outcome.FASTER if change.faster else Outcome.SAME
        if reason is not None and outcome is Outcome.SAME:
            outcome, change = Outcome.INCOMPARABLE, None
    if rates and outcome not in (Outcome.SLOWER, Outcome.FASTER):
        reason = None if change is None and not peak_ips(old) else reason
        outcome = _outcome_at_rates(rates)
    return Row(
        label=label,
        old=old,
        new=new,
        outcome=outcome,
        change=change,
        reason=reason,
        comparable=comparable,
        lost=lost,
        capacity=capacity,
        rates=rates,
    )


def _outcome_at_rates(rates: Sequence[RateChange]) -> Outcome:
    """Return what became of the latencies; a variant that got slower at one rate is slower."""
    if any(change.slower for change in rates):
        return Outcome.SLOWER
    return Outcome.FASTER if any(change.faster for change in rates) else Outcome.SAME


def _measured_no_more(old: Record, new: Record) -> bool:
    """Tell whether the later record lacks the figures that the earlier one was compared by."""
    if peak_ips(old) or peak_ips(new):
        return bool(peak_ips(old)) and not peak_ips(new)
    counted = [sum(point["verdict"] != Verdict.INVALID for point in record.points) for record in (old, new)]
    return counted[0] > 0 and counted[1] == 0


def _evidence(
    measured: Sequence[tuple[best_comparison.Entry, best_comparison.Entry]],
    changes: Sequence[run_comparison.Change],
    rows: Sequence[Row],
) -> str:
    """Word what the intervals rest on, and what they can tell apart."""
    parts = [_peak_evidence(measured, changes)] if measured else []
    compared = [(row, change) for row in rows for change in row.rates]
    if compared:
        least = statistics.median(item.change.high / item.change.ratio for _, item in compared) - 1
        bound = f"{least:.1%}" if least < 1 else f"a factor of {least + 1:.1f}"
        passes = min(passes_of(record) for row, _ in compared for record in (row.old, row.new) if record is not None)
        known = "the passes show what starts differ by" if passes >= intervals.PASSES_AS_BATCHES else _FEW_PASSES
        text = f"{len(compared)} figures at rates that both were offered"
        parts.append(f"{text}: half of them tell a difference of {bound} apart; {known}.")
    return " ".join(parts) or "No variant could be compared."


def _peak_evidence(
    measured: Sequence[tuple[best_comparison.Entry, best_comparison.Entry]], changes: Sequence[run_comparison.Change]
) -> str:
    """Word what the intervals of the peaks rest on."""
    least = min(change.high / change.ratio for change in changes) - 1
    bound = f"{least:.1%}" if least < 1 else f"a factor of {least + 1:.1f}"
    limit = f"differences under {bound} are not told apart"
    counts = {len(entry.starts) for pair in measured for entry in pair}
    single = [pair for pair in measured if all(len(entry.starts) == 1 for entry in pair)]
    advice = f"repeats={_ADVISED_REPEATS} on both sides measures what starts differ by."
    if len(single) < len(measured):
        number = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        text = f"{number} starts of each variant on each side; {limit}"
        verb = "has" if len(single) == 1 else "have"
        return f"{text}. {len(single)} of them {verb} one start on each side: {advice}" if single else f"{text}."
    spread = next((old.spread for old, _ in single if old.spread is not None), None)
    assumed = max(entry.assumed_cv for pair in single for entry in pair)
    known = (
        f"what starts differ by is not known, {assumed:.1%} is assumed"
        if spread is None
        else f"starts differ by {spread.cv:.1%}, says {spread.source}"
    )
    return f"One start on each side: {known}; {limit}. {advice}"


def _notes(old: Results, new: Results, obstacles: Sequence[str], *, anyway: bool) -> list[str]:
    notes = [f"{results.name}: {line}" for results in (old, new) for line in results.damaged]
    if obstacles and anyway:
        notes.append(f"compared anyway: {'; '.join(dict.fromkeys(obstacles))}")
    crowded = [sum(map(start_spread.is_crowded, results.records)) for results in (old, new)]
    if any(crowded):
        text = f"other programs kept the cores busy while {crowded[0]} variants of OLD and {crowded[1]} of NEW"
        notes.append(f"{text} were measured")
    return notes


def _doubtful(old: Results, new: Results, pairs: Sequence[Pair]) -> list[str]:
    """Word what makes a comparison say less than it seems to: one record on both sides, several of a variant."""
    lines = []
    both = [(pair.old, pair.new) for pair in pairs if pair.old is not None and pair.new is not None]
    same = sum(one == other for one, other in both)
    if same == len(both):
        lines.append("OLD and NEW are the same records: nothing can differ in them")
    elif same:
        verb, them = ("is", "it") if same == 1 else ("are", "them")
        lines.append(f"{same} of {len(both)} variants {verb} one record on both sides: nothing can differ in {them}")
    for results, side in ((old, "OLD"), (new, "NEW")):
        variants = sum((pair.old if results is old else pair.new) is not None for pair in pairs)
        if old is not new and variants < len(results):
            lines.append(f"{side} has {len(results)} records of {variants} variants: the latest of each is compared")
    return lines


def _nothing_in_common(old: Results, new: Results) -> str:
    """Word that no variant is on both sides."""
    for results in (old, new):
        if not len(results):
            damaged = f" ({len(results.damaged)} cannot be read)" if results.damaged else ""
            return f"{results.name} has no records{damaged}"
    examples = [str(results.records[0].variant.get("label", results.records[0].key)) for results in (old, new)]
    backends = [results.records[0].variant.get("backend") for results in (old, new)]
    if backends[0] != backends[1]:
        examples = [f"{label} of {backend}" for label, backend in zip(examples, backends, strict=True)]
    return (
        f"{old.name} and {new.name} have no variant in common: {examples[0]} is in one, {examples[1]} in the other; "
        "measure the same sweep under two names (name=)"
    )

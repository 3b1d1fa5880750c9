"""Rank the variants of one model by the peak of the closed loop, and word the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis import best_comparison, carried_tail, near, start_spread
from sweep.report.compared_figures import builds_of, is_usable, peak_entry, peak_ips
from sweep.report.recommendation import Answer, names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import SpreadHistory
    from sweep.storage import Record

_ALIKE = 0.02  # of the best, within which variants that are not told apart are called equal rather than noisy
_ADVISED_REPEATS = 5
_CALM = "Stop what else runs, or raise load.min_s and load.max_s"
_MOST_BAND = 0.5  # within which differences are named as not told apart; a wider one is no help to a reader


def by_peak(records: Sequence[Record], history: SpreadHistory | None, labels: Mapping[str, str]) -> Answer:
    """Rank by the peak of the closed loop (docs/decisions/0044)."""
    measured = [record for record in records if record.peak is not None and record.peak["ips"]]
    if not measured:
        return Answer(best=None, tied=(), text="No answer: no variant that ended ok has a peak.")
    usable = [record for record in measured if is_usable(record)]
    ranked = sorted(usable or measured, key=lambda record: -peak_ips(record))
    entries = [peak_entry(record, None if history is None else history.of(record.key)) for record in ranked]
    best, ratios = ranked[0], best_comparison.ratios(entries, 0)
    tied = tuple(
        record for record, ratio in zip(ranked[1:], ratios[1:], strict=True) if not (usable and ratio.told_apart)
    )
    above = [record for record in measured if usable and not is_usable(record) and peak_ips(record) > peak_ips(best)]
    decided = bool(usable) and not above and (len(ranked) == 1 or len(tied) < len(ranked) - 1)
    text = _peak_text(ranked, entries, ratios, labels, decided=decided, above=above)
    if tied and decided:
        text += f" Not told apart from it by this measurement: {names(tied, labels)}."
    unusable = names([record for record in measured if usable and not is_usable(record)], labels)
    if unusable:
        text += f" Not ranked, since their peaks are unstable or short (~): {unusable}."
    keyed = {record.key: ratio for record, ratio in zip(ranked, ratios, strict=True)} if usable else {}
    return Answer(best=best, tied=tied, text=text, decided=decided, ratios=keyed)


def _peak_text(
    ranked: Sequence[Record],
    entries: Sequence[best_comparison.Entry],
    ratios: Sequence[best_comparison.Ratio],
    labels: Mapping[str, str],
    *,
    decided: bool,
    above: Sequence[Record],
) -> str:
    """Word the first line: who is fastest, and what that is worth.

    Args:
        ranked: the variants, the fastest first.
        entries: what the comparison takes of each.
        ratios: each as a share of the fastest.
        labels: names of the variants by key.
        decided: whether the fastest is told from any other.
        above: variants that are not ranked, since their peaks are unsteady, and have a higher figure than the fastest.
    """
    best = ranked[0]
    figure = f"{labels[best.key]} at {peak_ips(best):,.0f} samples/s"
    evidence = _evidence(ranked, entries)
    if not is_usable(best):
        start = f"Too noisy to decide: every peak is unstable or short; the highest is {figure}"
        text = f"{start} ({evidence}). {_CALM}"
    elif above:
        highest = max(above, key=peak_ips)
        start = (
            f"Too noisy to decide: the highest peak, {labels[highest.key]} at {peak_ips(highest):,.0f} samples/s, is"
        )
        steady = f"Of {len(ranked)} steady variants the fastest is" if len(ranked) > 1 else "The only steady variant is"
        text = f"{start} {_unsteadiness(highest)}. {_CALM}. {steady} {figure} ({evidence})"
    elif decided:
        text = f"{'Fastest' if len(ranked) > 1 else 'Peak'}: {figure} ({evidence})"
    elif min(ratio.low for ratio in ratios) >= 1 - _ALIKE:
        widest = 1 - min(ratio.low for ratio in ratios)
        start = f"No difference: all {len(ranked)} variants are within {widest:.1%} of the fastest"
        text = f"{start}, {figure} ({evidence})"
    else:
        start = f"Too noisy to decide: none of {len(ranked)} variants is told from the fastest, {figure} ({evidence})"
        text = f"{start}. {_advice(entries, 'builds' if builds_of(best) > 1 else 'repeats')}"
    loaded = near(best, 0.8)
    tail = carried_tail([loaded] if loaded else [])
    if loaded is not None and tail is not None:
        text += f". Its {tail} is {loaded['latency_ms'][tail]:.3g} ms at {loaded['achieved_ips']:,.0f} samples/s"
    return f"{text}. Add slo.p99_ms=LIMIT to rank by the samples/s that keep a latency; only that is searched."


def _unsteadiness(record: Record) -> str:
    """Word why the peak of a record cannot win."""
    verdict, reason = (record.peak["verdict"], record.peak.get("reason")) if record.peak is not None else ("", None)
    return f"{verdict} ({reason})" if reason else verdict


def _evidence(ranked: Sequence[Record], entries: Sequence[best_comparison.Entry]) -> str:
    """Word what the figures rest on: how many starts, and what their difference is known to be."""
    counts = {len(entry.starts) for entry in entries}
    builds = {builds_of(record) for record in ranked}
    noun = "engine" if max(builds) > 1 else "start"
    each = " each" if len(entries) > 1 else ""
    if max(counts) > 1:
        number = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
        return f"{number} {noun}s{each}{_measured_spread(ranked, built=max(builds) > 1)}{_crowd(ranked)}"
    known = _known(entries) + _crowd(ranked)
    if len(entries) == 1:
        return f"one start; {known}"
    band = best_comparison.band(entries, 0)
    limit = "" if band > _MOST_BAND else f"; differences under {_percent(band)} are not told apart"
    return f"one start each; {known}{limit}"


def _measured_spread(ranked: Sequence[Record], *, built: bool) -> str:
    """Word by how much the starts, or engines, of these variants differ; "" where the records do not say."""
    peaks = [record.peak for record in ranked if record.peak is not None]
    spread = [peak.get("build_cv") if built else peak.get("start_cv") for peak in peaks]
    known = sorted(cv for cv in spread if cv is not None)
    if not known:
        return ""
    low, high = f"{known[0]:.1%}", f"{known[-1]:.1%}"
    return f", which differ by {low}" if low == high else f", which differ by {low} to {high}"


def _known(entries: Sequence[best_comparison.Entry]) -> str:
    """Word what is known of the difference between starts."""
    spread = next((entry.spread for entry in entries if entry.spread is not None), None)
    if spread is None:
        assumed = max(entry.assumed_cv for entry in entries)
        return f"what starts differ by here is not known, {_percent(assumed)} is assumed"
    return f"starts differ by {_percent(spread.cv)} here, says {spread.source}"


def _crowd(ranked: Sequence[Record]) -> str:
    """Word how much of the cores other programs used, "" where they left enough."""
    loads = [record.peak.get("cpu_load") for record in ranked if record.peak is not None]
    shares = sorted(load["other"] for load in loads if load is not None)
    if not any(map(start_spread.is_crowded, ranked)):
        return ""
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    return f"; other programs used {low if low == high else f'{low} to {high}'} of the cores meanwhile"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"  # noqa: PLR2004 - two digits


def _advice(entries: Sequence[best_comparison.Entry], key: str) -> str:
    """Word what to do where nothing is told apart."""
    most = max(len(entry.starts) for entry in entries)
    number = _ADVISED_REPEATS if most < _ADVISED_REPEATS else 2 * most
    verb = "builds" if key == "builds" else "starts"
    return f"{key}={number} {verb} each of them {number} times and measures what that changes"

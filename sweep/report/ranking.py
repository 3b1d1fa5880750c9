"""Recommend a variant of each model: the one with the highest capacity under the SLO, else with the highest peak.

Variants that the measurement cannot distinguish from the best one are ties. Models are never ranked against each other:
their samples are different work.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.analysis import accuracy_gates, best_comparison, carried_tail, drifted, intervals, near
from sweep.report.comparison import compared
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import SpreadHistory, StartSpread
    from sweep.spec import Slo
    from sweep.storage import Record, SloResult


_CERTAIN = 0.999  # confidence above which the text says "over 99.9%"
_ALIKE = 0.02  # of the best, within which variants that are not told apart are called equal rather than noisy
_ADVISED_REPEATS = 5
_CALM = "Stop what else runs, or raise load.min_s and load.max_s"
_MOST_BAND = 0.5  # within which differences are named as not told apart; a wider one is no help to a reader
_MOST_NAMES = 8  # of variants in a line
_CORRELATED_ERROR = 0.25  # assumed of a throughput whose window is too correlated for an interval, as a logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold the variant that the sweep recommends; of several models, an answer for each.

    Attributes:
        best: record of the variant with the highest figure; None when no variant has one, and of several models.
        tied: records of other variants that this measurement cannot distinguish from the best one.
        text: the recommendation; of several models, a line each.
        decided: whether the best one is told from any other, or is alone.
        overrides: words of the command line that plan the best variant alone; empty where they were not computed.
        ratios: by the record's key, the figure of each ranked variant as a share of the best one's of its model.
        models: the answers of several models, by the name of the model; empty for a single one.
    """

    best: Record | None
    tied: tuple[Record, ...]
    text: str
    decided: bool = True
    overrides: tuple[str, ...] = ()
    ratios: Mapping[str, best_comparison.Ratio] = field(default_factory=dict)
    models: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Answer, ...]:
        """Return the answer of each model: this one where there is a single model."""
        return tuple(self.models.values()) or (self,)

    @property
    def settings(self) -> str:
        """Return the overrides quoted for a shell, as ``With model=digits batch=8``; "" without any; a line a model."""
        return "\n".join(f"With {shlex.join(part.overrides)}" for part in self.parts if part.overrides)

    def mark(self, record: Record) -> str:
        """Return ``>`` for the best variant, ``=`` for one that is not told from it, and "" for any other."""
        for part in self.parts:
            if part.best is record:
                return ">" if part.decided else "="
            if any(record is item for item in part.tied):
                return "="
        return ""

    def ratio_text(self, record: Record) -> str:
        """Return the figure of `record` as a share of the best one's, as ``0.97 to 0.99``; ``-`` if it is unknown."""
        ratio = self.ratios.get(record.key)
        if ratio is None or math.isinf(ratio.high):
            return "-"
        if ratio.low == ratio.high == 1:
            return "1"
        decimals = 2 if abs(ratio.high - 1) >= 0.005 and ratio.high - ratio.low >= 0.02 else 3  # noqa: PLR2004
        return f"{ratio.low:.{decimals}f} to {ratio.high:.{decimals}f}"


def answer(records: Sequence[Record], slo: Slo | None, history: SpreadHistory | None = None) -> Answer:
    """Rank the variants of each model and recommend the best.

    Args:
        records: records of the sweep; only ``ok`` ones are ranked, and none that drifted, whose peak is ``unstable`` or
            ``short``, or whose outputs rounding alone loses, unless all are so.
        slo: latency objective; None ranks by the closed loop's peak.
        history: what starts of these variants differ by; None where nothing measured it.

    Returns:
        The recommendation; its ``best`` is None if no record can be ranked.
    """
    labels = compared(records).labels
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(_model(record), []).append(record)
    if len(models) < 2:  # noqa: PLR2004 - two is several
        return _of_model(records, slo, history, labels)
    answers = {name: _of_model(items, slo, history, labels) for name, items in models.items()}
    lines = [f"{name.partition(' ')[0]}: {part.text}" for name, part in answers.items()]
    return Answer(
        best=None,
        tied=(),
        text="\n".join(["One answer a model, for samples of different models are different work.", *lines]),
        decided=any(part.decided for part in answers.values()),
        ratios={key: ratio for part in answers.values() for key, ratio in part.ratios.items()},
        models=answers,
    )


def with_overrides(recommendation: Answer, overrides: Mapping[str, tuple[str, ...]]) -> Answer:
    """Return the answer with the words of the command line that plan its best variants, given by the records' keys."""
    if recommendation.models:
        models = {name: with_overrides(part, overrides) for name, part in recommendation.models.items()}
        return dataclasses.replace(recommendation, models=models)
    if recommendation.best is None:
        return recommendation
    return dataclasses.replace(recommendation, overrides=overrides.get(recommendation.best.key, ()))


def _model(record: Record) -> str:
    """Return what identifies the network of a record, its name first: its file and the sizes of its inputs."""
    reference = record.variant.get("model_ref")
    if not isinstance(reference, dict):  # records of the first versions, and damaged ones, name the model alone
        return str(record.variant.get("model"))
    inputs = reference.get("inputs")
    rest = [reference.get("digest"), *(inputs if isinstance(inputs, list | tuple) else ())]
    return " ".join([str(record.variant.get("model")), *(str(item) for item in rest if item)])


def _of_model(
    records: Sequence[Record], slo: Slo | None, history: SpreadHistory | None, labels: Mapping[str, str]
) -> Answer:
    """Rank the variants of one model."""
    passed = [record for record in records if record.status == "ok"]
    ok = [record for record in passed if not _is_lost(record)] or passed
    ranked = [record for record in ok if not drifted(record)] or ok
    result = _by_capacity(ranked, slo, history, labels) if slo else _by_peak(ranked, history, labels)
    if result.best is None:
        return result
    text = result.text
    lost = _names([record for record in passed if record not in ok], labels)
    if lost:
        text += f" Not ranked, since rounding alone loses their outputs (model.labels= scores them): {lost}."
    return dataclasses.replace(result, text=text + _drift_text(ok, labels))


def _is_lost(record: Record) -> bool:
    """Tell whether rounding alone loses the outputs of a variant, and no labelled samples say what that costs."""
    recipe = record.variant.get("precision_recipe") or {}
    dtype = str(recipe.get("dtype", record.variant.get("precision")))
    has_score = record.accuracy is not None and "score" in record.accuracy
    return not has_score and accuracy_gates.lost_by_rounding(dtype, record.accuracy)


def _by_peak(records: Sequence[Record], history: SpreadHistory | None, labels: Mapping[str, str]) -> Answer:
    """Rank by the peak of the closed loop (docs/decisions/0044)."""
    measured = [record for record in records if record.peak is not None and record.peak["ips"]]
    if not measured:
        return Answer(best=None, tied=(), text="No answer: no variant was measured.")
    usable = [record for record in measured if _is_usable(record)]
    ranked = sorted(usable or measured, key=lambda record: -_ips(record))
    entries = [_entry(record, history) for record in ranked]
    best, ratios = ranked[0], best_comparison.ratios(entries, 0)
    tied = tuple(
        record for record, ratio in zip(ranked[1:], ratios[1:], strict=True) if not (usable and ratio.told_apart)
    )
    above = [record for record in measured if usable and not _is_usable(record) and _ips(record) > _ips(best)]
    decided = bool(usable) and not above and (len(ranked) == 1 or len(tied) < len(ranked) - 1)
    text = _peak_text(ranked, entries, ratios, labels, decided=decided, above=above)
    if tied and decided:
        text += f" Not told apart from it by this measurement: {_names(tied, labels)}."
    unusable = _names([record for record in measured if usable and not _is_usable(record)], labels)
    if unusable:
        text += f" Not ranked, since their peaks are unstable or short (~): {unusable}."
    keyed = {record.key: ratio for record, ratio in zip(ranked, ratios, strict=True)} if usable else {}
    return Answer(best=best, tied=tied, text=text, decided=decided, ratios=keyed)


def _is_usable(record: Record) -> bool:
    return record.peak is not None and record.peak["verdict"] == Verdict.OK


def _ips(record: Record) -> float:
    return (record.peak["ips"] or 0.0) if record.peak is not None else 0.0


def _entry(record: Record, history: SpreadHistory | None) -> best_comparison.Entry:
    """Return what the comparison takes of a peak."""
    starts = _starts(record)
    interval = record.peak["interval"] if record.peak is not None else None
    within_error = intervals.log_error(interval[0], interval[1], _batches(record)) if interval else _CORRELATED_ERROR
    return best_comparison.Entry(
        value=_ips(record),
        starts=starts if len(starts) > 1 else [_ips(record)],
        within_error=within_error if len(starts) <= 1 else 0.0,
        spread=None if history is None else history.of(record.key),
    )


def _batches(record: Record) -> int:
    """Return the batch means behind the interval of a peak; records of the first version do not say."""
    batches = None if record.peak is None else record.peak.get("batches")
    return batches or intervals.BATCHES * int(record.variant.get("repeats", 1))


def _starts(record: Record) -> list[float]:
    """Return the throughput of each start, samples/s: that of each engine where several were built; [] if unknown."""
    passes = (record.peak.get("passes_ips") if record.peak else None) or []
    measured = [ips for ips in passes if ips]
    if len(measured) != len(passes):
        return []
    return best_comparison.build_means(measured, _builds(record))


def _builds(record: Record) -> int:
    """Return how many engines were built afresh for a record; 1 where the cache's served every pass."""
    return int((record.variant.get("load") or {}).get("builds") or 1)


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
    figure = f"{labels[best.key]} at {_ips(best):,.0f} samples/s"
    evidence = _evidence(ranked, entries)
    if not _is_usable(best):
        start = f"Too noisy to decide: every peak is unstable or short; the highest is {figure}"
        text = f"{start} ({evidence}). {_CALM}"
    elif above:
        highest = max(above, key=_ips)
        start = f"Too noisy to decide: the highest peak, {labels[highest.key]} at {_ips(highest):,.0f} samples/s, is"
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
        text = f"{start}. {_advice(entries, 'builds' if _builds(best) > 1 else 'repeats')}"
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
    builds = {_builds(record) for record in ranked}
    noun = "engine" if max(builds) > 1 else "start"
    each = " each" if len(entries) > 1 else ""
    if max(counts) > 1:
        number = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
        return f"{number} {noun}s{each}{_measured_spread(ranked, built=max(builds) > 1)}"
    known_spread = next((entry.spread for entry in entries if entry.spread is not None), None)
    if len(entries) == 1:
        return f"one start; {_known(known_spread)}"
    band = best_comparison.band(entries)
    limit = "" if band > _MOST_BAND else f"; differences under {_percent(band)} are not told apart"
    return f"one start each; {_known(known_spread)}{limit}"


def _measured_spread(ranked: Sequence[Record], *, built: bool) -> str:
    """Word by how much the starts, or engines, of these variants differ; "" where the records do not say."""
    peaks = [record.peak for record in ranked if record.peak is not None]
    spread = [peak.get("build_cv") if built else peak.get("start_cv") for peak in peaks]
    known = sorted(cv for cv in spread if cv is not None)
    if not known:
        return ""
    low, high = f"{known[0]:.1%}", f"{known[-1]:.1%}"
    return f", which differ by {low}" if low == high else f", which differ by {low} to {high}"


def _known(spread: StartSpread | None) -> str:
    """Word what is known of the difference between starts."""
    if spread is None:
        return f"what starts differ by here is not known, {_percent(best_comparison.UNKNOWN_CV)} is assumed"
    return f"starts differ by {_percent(spread.cv)} here, says {spread.source}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"  # noqa: PLR2004 - two digits


def _advice(entries: Sequence[best_comparison.Entry], key: str) -> str:
    """Word what to do where nothing is told apart."""
    most = max(len(entry.starts) for entry in entries)
    number = _ADVISED_REPEATS if most < _ADVISED_REPEATS else 2 * most
    verb = "builds" if key == "builds" else "starts"
    return f"{key}={number} {verb} each of them {number} times and measures what that changes"


def _by_capacity(
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
            value=_capacity(record), starts=[_capacity(record)], spread=history.of(record.key) if history else None
        )
        for record in ranked
    ]
    margin = 1 + best_comparison.band(entries) if others else 1.0
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
        text += f" Not told apart from it by this measurement: {_names(tied, labels)}."
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


def _drift_text(ok: Sequence[Record], labels: Mapping[str, str]) -> str:
    excluded = [record for record in ok if drifted(record)]
    if not excluded:
        return ""
    if len(excluded) == len(ok):
        return " The machine drifted while all of them were measured: measure again (force=true)."
    names = _names(excluded, labels)
    return f" Not ranked, since the machine drifted while they were measured (force=true): {names}."


def _names(records: Sequence[Record], labels: Mapping[str, str]) -> str:
    """Return the labels of `records` in a line; of many, the first, and how many more there are."""
    names = [labels[record.key] for record in records]
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES + 1 else ""
    return ", ".join(names[:_MOST_NAMES] if rest else names) + rest


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
    last = next(
        probe
        for probe in result.get("probes", [])
        if probe["kind"] == "confirm" and probe["offered_ips"] == result["capacity_ips"]
    )
    return f", confirmed by {last['requests']:,} requests at that rate"

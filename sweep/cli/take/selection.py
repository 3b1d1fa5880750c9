"""Choose the variants to take: those that the sweeps recommend, or those that the command line names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import start_spread
from sweep.backends import registry
from sweep.errors import ConfigError, SweepError
from sweep.report import answer, common_slo, compared, load, named_variants
from sweep.spec import Status
from sweep.storage import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.report import Answer
    from sweep.spec import Slo
    from sweep.storage import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Hold a variant to take.

    Attributes:
        record: its record.
        store: folder of its sweep.
        label: its name among the variants of its sweep.
        reason: why it is taken.
        peers: records of its sweep, itself included.
    """

    record: Record
    store: Store
    label: str
    reason: str
    peers: tuple[Record, ...]


def choose(places: Sequence[str], wanted: Sequence[str], results: Path) -> list[Choice]:
    """Return the variants to take, each once.

    Args:
        places: folders or names of sweeps.
        wanted: labels, words of labels that no other has together, keys or beginnings of keys; empty takes what each
            sweep recommends.
        results: the results folder.

    Raises:
        ConfigError: a place has no records, no variant has that name, several have, none can be recommended, or one did
            not end ok.
    """
    sweeps: dict[Path, list[Record]] = {}
    damaged: list[str] = []
    for place in places:
        loaded = load(place, results=results)
        damaged += loaded.damaged
        for record, store in loaded:
            if store is not None:
                own = sweeps.setdefault(store.root.resolve(), [])
                if all(record.key != other.key for other in own):
                    own.append(record)
    if not sweeps:
        reason = f" ({damaged[0]})" if damaged else ""
        raise ConfigError(f"{', '.join(places)}: no record of a sweep's folder can be read there{reason}")
    named = {root: _named(root, records, wanted) for root, records in sweeps.items()} if wanted else {}
    missing = [word for word in wanted if not any(word in found for found in named.values())]
    if missing:
        raise ConfigError(_unknown(missing[0], sweeps))
    choices = [
        choice
        for root, records in sweeps.items()
        for choice in ([*named[root].values()] if wanted else _recommended(root, records))
    ]
    unique = {(choice.store.root, choice.record.key): choice for choice in choices}
    for choice in unique.values():
        _check(choice)
    return list(unique.values())


def _named(root: Path, records: Sequence[Record], wanted: Sequence[str]) -> dict[str, Choice]:
    """Return the variants of a sweep that the words name, by the word."""
    labels = compared(records).labels
    choices = {}
    for word in wanted:
        matches = named_variants(records, word)
        if len(matches) > 1:
            keys = ", ".join(f"{record.key} ({labels[record.key]})" for record in matches)
            raise ConfigError(f"--variant {word}: {len(matches)} variants of {root.name} have that name: {keys}")
        if matches:
            choices[word] = _choice(root, records, matches[0], "named on the command line")
    return choices


def _recommended(root: Path, records: Sequence[Record]) -> list[Choice]:
    """Return what a sweep recommends, a variant a model."""
    slo = common_slo(records)
    ranking = answer(records, slo, start_spread.measured(Store(root), records))
    parts = [part for part in ranking.parts if part.best is not None]
    if not parts:
        raise ConfigError(f"{root.name} recommends no variant ({ranking.text}): --variant takes one that ended ok")
    return [_choice(root, records, part.best, _reason(part, part.best, slo)) for part in parts if part.best is not None]


def _reason(part: Answer, best: Record, slo: Slo | None) -> str:
    """Return why a variant is recommended, in one sentence without its full stop.

    Args:
        part: the answer of its model.
        best: the variant.
        slo: the objective that it was ranked by; None for the peak.
    """
    what = "peak" if slo is None else f"capacity under {slo}"
    figure = best.peak and best.peak["ips"] if slo is None else best.slo and best.slo["capacity_ips"]
    word = "recommended" if part.decided else "recommended among ties"
    ranked, tied = max(len(part.ratios), len(part.tied) + 1), len(part.tied)
    if ranked == 1:
        return f"{word}: the only {what} that counts, {figure or 0:,.0f} samples/s"
    apart = f", not told apart from {tied} other{'s' if tied > 1 else ''}" if tied else ""
    return f"{word}: the highest {what} of {ranked} variants, {figure or 0:,.0f} samples/s{apart}"


def _choice(root: Path, records: Sequence[Record], record: Record, reason: str) -> Choice:
    label = compared(records).labels[record.key]
    return Choice(record=record, store=Store(root), label=label, reason=reason, peers=tuple(records))


def _check(choice: Choice) -> None:
    """Refuse a variant that is not to be served, or that has no engine.

    Raises:
        ConfigError: it did not end ok, or its backend builds nothing.
    """
    record = choice.record
    name = f"{choice.label} ({record.key}) of {choice.store.root.name}"
    if record.status != Status.OK:
        error = f" at {record.error['stage']}: {record.error['message']}" if record.error else ""
        raise ConfigError(f"{name} is {record.status}{error}; it is not taken: --variant takes one that ended ok")
    backend = str(record.variant.get("backend"))
    try:
        runs_models = registry.get(backend).runs_models
    except (SweepError, KeyError) as error:
        raise ConfigError(f"{name}: this version has no backend {backend}") from error
    if not runs_models or not (record.engine or {}).get("key"):
        raise ConfigError(f"{name} has no engine to take: backend={backend} computes nothing")


def _unknown(word: str, sweeps: dict[Path, list[Record]]) -> str:
    names = [label for records in sweeps.values() for label in compared(records).labels.values()]
    near = difflib.get_close_matches(word, names, n=1)
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 9 else "")  # noqa: PLR2004 - of a line
    hint = f"did you mean {near[0]}?" if near else f"the variants are: {listed}"
    return f"--variant {word}: no variant of {', '.join(root.name for root in sweeps)} has that label or key; {hint}"

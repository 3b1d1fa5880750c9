"""Decide which rows of a comparison fail a job: ``--fail-on slower=3%,slo,accuracy,memory``."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import score
from sweep.errors import ConfigError, printable
from sweep.report.compare.capacities import slo_text
from sweep.report.compare.figures import (
    ENERGY,
    ENGINE,
    MEMORY,
    capacity_ratio_text,
    is_exact,
    memory_or_engine,
    sqnr_db,
)
from sweep.report.compare.rows import Outcome
from sweep.report.compared_figures import capacity_ips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.report.compare.figures import Figure
    from sweep.report.compare.rows import Row, RunComparison
    from sweep.storage import Record

_SUMMATION_DB = 100.0  # SQNR from which on only the order of summation shows
_ALL_PERCENT = 100
_PERCENT = "a percentage from 0 to 100, as 3%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Describe what fails a job.

    Attributes:
        kind: slower, slo, accuracy, memory or energy.
        share: share that may be lost, or added: of the throughput, the memory or the energy; of accuracy, points of
            top-1 as a share.
        db: SQNR that may be lost, dB.
    """

    kind: str
    share: float = 0.0
    db: float = 0.0


_DEFAULTS = {
    gate.kind: gate
    for gate in (
        Gate(kind="slower"),
        Gate(kind="slo"),
        Gate(kind="accuracy", share=0.005, db=3.0),
        Gate(kind="memory", share=0.05),
        Gate(kind="energy", share=0.05),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Describe one row that fails a gate.

    Attributes:
        row: the row.
        kind: the gate; ``lost`` for a variant that ended ok before and does no more, which fails every gate.
        message: what happened, with its figures.
    """

    row: Row
    kind: str
    message: str


def parse_gates(text: str) -> list[Gate]:
    """Return the gates of ``slower=3%,slo,accuracy=3dB,memory=5%,energy=5%``.

    Raises:
        ConfigError: a gate is not known, or its limit is no amount of its unit.
    """
    gates: dict[str, Gate] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        kind, has_limit, amount = word.partition("=")
        if kind not in _DEFAULTS:
            near = difflib.get_close_matches(kind, _DEFAULTS, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--fail-on {printable(word)}: no such gate{hint}; there are {', '.join(_DEFAULTS)}")
        if kind in gates and kind != "accuracy":  # whose two limits, in dB and of the score, are two words
            raise ConfigError(f"--fail-on {printable(word)}: {kind} is given twice; give it once")
        gates[kind] = _limited(gates.get(kind, _DEFAULTS[kind]), amount) if has_limit else _DEFAULTS[kind]
    if not gates:
        raise ConfigError(f"--fail-on names no gate; they are {', '.join(_DEFAULTS)}, as in slower=3%,accuracy")
    return list(gates.values())


def _limited(gate: Gate, amount: str) -> Gate:
    """Return a gate with the limit that was typed."""
    if gate.kind == "slo":
        raise ConfigError("--fail-on slo takes no limit: the limit is that of the sweep (slo.p99_ms=)")
    if gate.kind == "accuracy" and amount.endswith("dB"):
        value = _number(amount.removesuffix("dB"))
        if value is not None:
            return dataclasses.replace(gate, db=value)
    elif amount.endswith("%"):
        value = _number(amount.removesuffix("%"))
        if value is not None and value <= _ALL_PERCENT:
            return dataclasses.replace(gate, share=value / _ALL_PERCENT)
    wanted = f"{_PERCENT}, or a number of dB, as 3dB" if gate.kind == "accuracy" else _PERCENT
    raise ConfigError(f"--fail-on {gate.kind}={printable(amount)}: {gate.kind} takes {wanted}")


def _number(text: str) -> float | None:
    """Return the finite number of 0 or more that `text` holds; None if it holds none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def failures(comparison: RunComparison, gates: Sequence[Gate], *, allow_missing: bool = False) -> list[Failure]:
    """Return what fails, in the order of the rows.

    A variant that ended ok in the earlier measurement, and is missing or did not end ok in the later one, fails
    whatever the gates are: nothing could be compared.

    Args:
        comparison: the comparison.
        gates: what fails a job; none fails nothing.
        allow_missing: variants that the later measurement lacks fail nothing.
    """
    result = []
    for row in comparison.rows:
        if gates and row.lost and not (allow_missing and row.new is None):
            result.append(Failure(row=row, kind="lost", message=_lost(row)))
            continue
        for gate in gates:
            message = _CHECKS[gate.kind](row, gate)
            if message is not None:
                result.append(Failure(row=row, kind=gate.kind, message=message))
    return result


def _lost(row: Row) -> str:
    return "it was measured before and is missing now" if row.new is None else str(row.reason)


def unchecked(comparison: RunComparison, gates: Sequence[Gate]) -> list[str]:
    """Return a line for each gate that checks no variant: it would be green whatever happens.

    Args:
        comparison: the comparison.
        gates: what fails a job.
    """
    rows = [row for row in comparison.rows if row.comparable]
    return [
        f"--fail-on {gate.kind} checks nothing: no variant has {_NEEDS[gate.kind]} on both sides"
        for gate in gates
        if not any(_IS_CHECKED[gate.kind](row) for row in rows)
    ]


def _slower(row: Row, gate: Gate) -> str | None:
    change = row.change
    if row.outcome is not Outcome.SLOWER:
        return None
    if change is not None and change.slower and change.ratio <= 1 - gate.share:
        return f"{1 - change.ratio:.1%} slower (95%: {1 - change.high:.1%} to {1 - change.low:.1%})"
    worse = [item for item in row.rates if item.slower and item.loss >= gate.share]
    if not worse:
        return None
    worst = max(worse, key=lambda item: item.loss)
    others = len(worse) - 1
    more = f", and {others} more figure{'s' if others > 1 else ''}" if others else ""
    return f"{worst}{more}"


def _slo(row: Row, _: Gate) -> str | None:
    old, new = row.old, row.new
    if old is None or new is None or not row.comparable or not capacity_ips(old):
        return None
    limit = slo_text(old)
    if new.slo is None or slo_text(new) != limit:
        return None
    before = f"{capacity_ips(old):,.0f} samples/s kept {limit}"
    if not capacity_ips(new):
        return f"{before}, no rate does now"
    if row.capacity is not None and row.capacity[1] < 1:
        return f"{before}, {capacity_ips(new):,.0f} do now ({capacity_ratio_text(row.capacity)})"
    return None


def _accuracy(row: Row, gate: Gate) -> str | None:
    old, new = row.old, row.new
    if old is None or new is None or not row.comparable:
        return None
    before, after = score(old), score(new)
    if before is not None and after is not None and _scored_on(old) == _scored_on(new):
        return f"top-1 fell from {before:.2%} to {after:.2%}" if before - after > gate.share else None
    sqnr = sqnr_db(new)
    earlier = _SUMMATION_DB if is_exact(old) else sqnr_db(old)
    if earlier is None or is_exact(new):
        return None
    text = "exact" if is_exact(old) else f"{earlier:.1f} dB"
    if sqnr is None:
        return f"SQNR was {text} and is not known now{_why_unknown(new)}"
    if sqnr >= _SUMMATION_DB or min(earlier, _SUMMATION_DB) - sqnr <= gate.db:
        return None
    return f"SQNR fell from {text} to {sqnr:.1f} dB"


def _why_unknown(record: Record) -> str:
    why = None if record.accuracy is None else record.accuracy.get("unknown")
    return f" ({printable(why)})" if why else ""


def _scored_on(record: Record) -> str | None:
    return None if record.accuracy is None else record.accuracy.get("scored_on")


def _memory(row: Row, gate: Gate) -> str | None:
    return _grew(row, gate, memory_or_engine(row))


def _energy(row: Row, gate: Gate) -> str | None:
    return _grew(row, gate, ENERGY)


def _grew(row: Row, gate: Gate, figure: Figure) -> str | None:
    before, after = figure.pair(row)
    if not row.comparable or not before:
        return None
    if after is None:
        return f"it was {figure.form.format(before)} {figure.unit} and is not known now"
    if after <= before * (1 + gate.share):
        return None
    return f"{figure.text(row)} {figure.unit}, {after / before - 1:.1%} more"


def _has(*figures: Figure) -> Callable[[Row], bool]:
    """Return a test whether a row has one of these figures on both sides."""
    return lambda row: any(None not in figure.pair(row) for figure in figures)


def _has_accuracy(row: Row) -> bool:
    known = [
        record is not None and (is_exact(record) or sqnr_db(record) is not None or score(record) is not None)
        for record in (row.old, row.new)
    ]
    return all(known)


def _has_slo(row: Row) -> bool:
    old, new = row.old, row.new
    return old is not None and new is not None and bool(capacity_ips(old)) and slo_text(old) == slo_text(new)


_NEEDS = {
    "slower": "a peak that is steady, or a latency at one rate,",
    "slo": "a capacity under one SLO",
    "accuracy": "an SQNR or a score",
    "memory": "the memory or the file of its engine",
    "energy": "the energy of a sample (the counter of a GPU)",
}
_IS_CHECKED: dict[str, Callable[[Row], bool]] = {
    "slower": lambda row: row.change is not None or bool(row.rates),
    "slo": _has_slo,
    "accuracy": _has_accuracy,
    "memory": _has(MEMORY, ENGINE),
    "energy": _has(ENERGY),
}


_CHECKS: dict[str, Callable[[Row, Gate], str | None]] = {
    "slower": _slower,
    "slo": _slo,
    "accuracy": _accuracy,
    "memory": _memory,
    "energy": _energy,
}

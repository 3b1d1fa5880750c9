"""Read what a search learns from a record: a figure an objective, its error, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.report import peak_entry
from sweep.spec import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.runner.search.objectives import Objective
    from sweep.storage import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Hold what one probe or measurement showed.

    Attributes:
        key: key of the candidate.
        full: measured; False for a probe.
        scores: score of each objective: the logarithm of its figure, negative where less is better; None if unknown.
        error: standard error of the logarithm from within the start.
        cost_s: time that it took, s, its engine included.
        build_s: part of it that built the engine, s; 0 where the cache had it.
        reason: why it cannot win; None if it may.
    """

    key: str
    full: bool
    scores: tuple[float | None, ...]
    error: float
    cost_s: float
    build_s: float = 0.0
    reason: str | None = None


def of_record(
    key: str, record: Record, goals: Sequence[Objective], *, full: bool, most_p99_ms: float | None
) -> Observation:
    """Return what a record shows of the candidate ``key``."""
    scores = tuple(goal.score(record) for goal in goals)
    engine = record.engine or {}
    built = 0.0 if engine.get("cached", True) else (engine.get("build_s") or 0.0) + (engine.get("convert_s") or 0.0)
    return Observation(
        key=key,
        full=full,
        scores=scores,
        error=peak_entry(record, None).within_error if scores[0] is not None and record.peak is not None else 0.0,
        cost_s=record.wall_s or 0.0,
        build_s=built,
        reason=_reason(record, scores, goals, full=full, most_p99_ms=most_p99_ms),
    )


def _reason(
    record: Record,
    scores: Sequence[float | None],
    goals: Sequence[Objective],
    *,
    full: bool,
    most_p99_ms: float | None,
) -> str | None:
    """Return why a record cannot win; a probe is too short to break a limit of the latency or to be unsteady."""
    if record.status != Status.OK:
        message = record.error["message"] if record.error is not None else None
        return f"{record.status}: {message}" if message else str(record.status)
    missing = [goal.name for goal, score in zip(goals, scores, strict=True) if score is None]
    if missing:
        return f"its record has no {' and no '.join(missing)}"
    if not full or record.peak is None:
        return None
    if record.peak["verdict"] != Verdict.OK:
        return f"its peak is {record.peak['verdict']}"
    p99 = record.peak["latency_ms"].get("p99")
    if most_p99_ms is not None and (p99 is None or p99 > most_p99_ms):
        return "its p99 is not known" if p99 is None else f"p99 {p99:.3g} ms is above {most_p99_ms:g} ms"
    return None

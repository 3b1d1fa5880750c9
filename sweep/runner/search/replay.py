"""Replay a search on the records of a whole grid: the same decisions, without measuring.

A record stands in for a measurement as it is, and for a probe with the error of a shorter window and what starts
differ by. What a probe would have cost follows from the record: loading the engine, and its windows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from sweep.runner.search import observation as observations
from sweep.runner.search.candidates import Candidate, flat_axes, of_tables
from sweep.spec import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sweep.runner.search.objectives import Objective
    from sweep.runner.search.observation import Observation
    from sweep.runner.search.strategy import Search, Step
    from sweep.storage import Record

PROBE_WINDOW_S = 0.3  # warm-up and window of a probe
_SMALL_S = 0.1  # requests and answers around it
_LEAST_FULL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Hold a variant of a published grid.

    Attributes:
        candidate: the variant.
        full: what its measurement showed; its cost has no engine in it.
        engine_s: time of its engine, s: conversion, build, and the start of the worker.
        probe_s: time that a probe would take, s.
    """

    candidate: Candidate
    full: Observation
    engine_s: float
    probe_s: float


def published(
    records: Sequence[Record], goals: Sequence[Objective], most_p99_ms: float | None = None
) -> list[Published]:
    """Return the variants of a grid from its records; one without an engine keeps what its attempt took."""
    names = {record.key: str(record.variant.get("label")) for record in records}
    tables = {record.key: flat_axes(record.variant) for record in records}
    engines = {record.key: _engine(record) for record in records}
    candidates = {item.key: item for item in of_tables(tables, engines, names)}
    engine_s = _engine_seconds(records, engines)
    result = []
    for record in records:
        shown = observations.of_record(record.key, record, goals, full=True, most_p99_ms=most_p99_ms)
        wall_s = record.wall_s or 0.0
        built = shown.build_s
        engine = record.engine or {}
        full_s = max(wall_s - built, _LEAST_FULL_S) if record.status in {Status.OK, Status.INVALID} else wall_s
        load_s = (engine.get("load_s") or 0.0) + (engine.get("first_inference_s") or 0.0)
        result.append(
            Published(
                candidate=candidates[record.key],
                full=dataclasses.replace(shown, cost_s=full_s, build_s=0.0),
                engine_s=engine_s[engines[record.key]],
                probe_s=min(load_s + PROBE_WINDOW_S + _SMALL_S, full_s) if record.status == Status.OK else full_s,
            )
        )
    return result


def _engine(record: Record) -> str:
    """Return the engine of a record; of one that has none, that of its own axes of the engine."""
    if record.engine is not None:
        return str(record.engine["key"])
    axes = record.variant
    return f"none {axes.get('model')} {axes.get('precision')} {axes.get('batch')} {axes.get('profile')}"


def _engine_seconds(records: Sequence[Record], engines: Mapping[str, str]) -> dict[str, float]:
    """Return the time of each engine: its conversion and build, and what its first variant took beyond the others."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(engines[record.key], []).append(record)
    return {name: _engine_time_s(group) for name, group in groups.items()}


def _engine_time_s(group: Sequence[Record]) -> float:
    built = [record for record in group if record.engine is not None]
    if not built:
        return max(record.wall_s or 0.0 for record in group)
    parts = [(r.engine.get("build_s") or 0.0) + (r.engine.get("convert_s") or 0.0) for r in built if r.engine]
    return median(parts)


def run(
    search: Search,
    grid: Mapping[str, Published],
    noise: Callable[[Published, bool], float],
    on_step: Callable[[Step], None] | None = None,
) -> None:
    """Run a search to its end on a published grid.

    Args:
        search: decides.
        grid: by the key of the record.
        noise: error of the logarithm of a score, of a variant and whether it is measured rather than probed.
        on_step: called with each step.
    """
    built: set[str] = set()
    while (step := search.next()) is not None:
        if on_step is not None:
            on_step(step)
        search.tell([observe(grid[key], full=step.full, built=built, noise=noise) for key in step.keys])


def observe(item: Published, *, full: bool, built: set[str], noise: Callable[[Published, bool], float]) -> Observation:
    """Return what a probe or measurement of a published variant shows, and mark its engine as built."""
    engine = item.candidate.engine
    build_s = 0.0 if engine in built else item.engine_s
    built.add(engine)
    scores = tuple(None if score is None else score + noise(item, full) for score in item.full.scores)
    cost_s = build_s + (item.full.cost_s if full else item.probe_s)
    broken = item.full.reason is not None and item.full.scores[0] is None
    reason = item.full.reason if full or broken else None
    error = item.full.error if full else item.full.error * 1.4 + 0.005
    return dataclasses.replace(
        item.full, full=full, scores=scores, cost_s=cost_s, build_s=build_s, reason=reason, error=error
    )

"""Predict how long a plan takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.loadgen import point_count
from sweep.runner.plan import SENTINEL_LOAD, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.spec import LoadAxes

_ENGINE_S = (0.5, 10.0)  # start of a worker, conversion and build of one engine, at least and at most
_START_S = (0.3, 4.0)  # start of a worker that loads an engine of the cache
_VARIANT_S = (0.1, 2.0)  # load, accuracy and record of one variant
_ENGINE_LIKELY_S = {"onnxruntime": 2.5, "simulated": 0.5}  # the same, where a figure is asked for; else the longest
_PASS_LIKELY_S = 0.5  # load, accuracy and record around one pass, likewise
_SEARCHED = 0.9  # of slo.search_s that a search takes, as a rule
_CALM_POINTS = 3  # rungs that may need load.max_s to reach load.min_requests, on a slow model


def predicted_s(
    works: Sequence[Work],
    searches: Sequence[Work] = (),
    search_s: float = 0.0,
    walls: Mapping[str, float] | None = None,
    sentinels: int = 0,
) -> tuple[float, float]:
    """Return the shortest and longest time that the work takes, s; one figure where it is known.

    It is known where a variant has ``load.budget_s`` or was measured before. Else the shortest has every point reach
    its minimum count within ``load.min_s``, and the longest has the slow rungs run to ``load.max_s``. Simulated
    work takes no real time beyond its fixed costs.

    Args:
        works: what is measured.
        searches: work whose capacity is searched, right after it is measured or by itself.
        search_s: the time of a search (``slo.search_s``).
        walls: seconds that a work took the last time it was measured, by key, its search included.
        sentinels: runs of the sentinel (``sentinel_runs``).
    """
    last_s = walls or {}
    low = high = 0.0
    backends = {work.engine_key: work.variant.backend for work in (*works, *searches)}
    groups: dict[str, list[Work]] = {engine: [] for engine in backends}
    for work in works:
        groups[work.engine_key].append(work)
    for engine, engine_works in groups.items():
        if engine_works and all(work.key in last_s for work in engine_works):
            continue  # the first one's time has its engine in it
        backend = backends[engine]
        shortest, longest = _engine_s(backend, exact=bool(engine_works) and _is_exact(engine_works))
        builds = max((work.variant.load.builds or 1 for work in engine_works), default=1)
        low, high = low + builds * shortest, high + builds * longest
    for work in works:
        shortest, longest = (last_s[work.key],) * 2 if work.key in last_s else _work_s(work)
        low, high = low + shortest, high + longest
    for work in searches:
        if work.key not in last_s and work.variant.backend != "simulated":
            low, high = low + _SEARCHED * search_s, high + _SEARCHED * search_s
    if not sentinels:
        return low, high
    real = any(work.variant.backend != "simulated" for work in works)
    shortest, longest = _load_s(SENTINEL_LOAD) if real else (0.0, 0.0)
    return low + sentinels * (_VARIANT_S[0] + shortest), high + sentinels * (_ENGINE_S[0] + _VARIANT_S[1] + longest)


def _is_exact(works: Sequence[Work]) -> bool:
    """Return whether the load of every one of these has a budget."""
    return all(work.variant.load.budget_s is not None for work in works)


def _engine_s(backend: str, *, exact: bool) -> tuple[float, float]:
    return (_ENGINE_LIKELY_S.get(backend, _ENGINE_S[1]),) * 2 if exact else _ENGINE_S


def _work_s(work: Work) -> tuple[float, float]:
    load = work.variant.load
    if work.variant.backend == "simulated":
        return _VARIANT_S
    shortest, longest = _load_s(load)
    again = load.passes - 1
    starts = (again * _START_S[0], again * _START_S[1])  # of a process that has nothing to build
    if load.budget_s is None:
        return shortest + _VARIANT_S[0] + starts[0], longest + _VARIANT_S[1] + starts[1]
    seconds = min(load.budget_s, load.passes * point_count(load) * (load.warmup_s + load.max_s))
    return (seconds + load.passes * _PASS_LIKELY_S + starts[0],) * 2


def _load_s(load: LoadAxes) -> tuple[float, float]:
    if load.kind == "trace":  # a closed loop, then the trace, whole
        shortest = load.warmup_s + load.min_s + (load.trace_s or 0.0)
        return load.passes * shortest, load.passes * (shortest + load.max_s - load.min_s)
    points = point_count(load)
    each = load.warmup_s + load.min_s
    slow = min(points, _CALM_POINTS)
    probes = load.min_s if load.kind == "curve" else 0.0
    longest = points * each + slow * max(load.max_s - load.min_s, 0) + probes
    return load.passes * points * each, load.passes * longest

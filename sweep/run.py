"""Plan -> records: which work is left, one worker per engine group, one atomic record per variant."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from sweep import axes, facts, gpu_state, interrupts, judge, plain, samples, telemetry
from sweep.backends import registry
from sweep.cache import Claim
from sweep.crew import Crew
from sweep.errors import CacheError, RecordError
from sweep.record import Record, write_atomic
from sweep.sentinel import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.axes import JsonDict, Script
    from sweep.folder import Settings
    from sweep.gpu_state import Series
    from sweep.plan import Plan, Work
    from sweep.pool import Outcome
    from sweep.progress import Display

_FOR_GOOD = ("BuildError", "UnsupportedError")  # a library that refuses a graph does so again
Finished = Callable[[Record], None]


class Run:
    """Executes a plan.

    Args:
        plan: what to do.
        settings: where and how.
        display: what the user sees.
        finished: called with each record once it is on disk.
    """

    def __init__(self, plan: Plan, settings: Settings, display: Display, finished: Finished) -> None:
        self._plan = plan
        self._settings = settings
        self._display = display
        self._finished = finished
        self._parts = settings.store.root / "parts"
        self._crew = Crew(settings)
        self._started: dict[str, tuple[str, float]] = {}
        self._claim = Claim(settings.cache)
        self._refused: dict[
            tuple[str, Script | None], Outcome
        ] = {}  # engines that do not build, so that each is tried once
        self._entries: dict[str, str] = {}  # keys of engines in the cache, by the engine key of the plan
        self._searched: set[str] = set()
        self._gpu: telemetry.Gpu | None = None
        self._series: dict[str, dict[int, Series]] = {}
        self._again: dict[str, str] = {}
        self._watch = Watch(plan, settings, self._ask_sentinel)
        self._stretches: dict[tuple[str, int], int | None] = {}
        self._waiting: list[str] = []
        self._built_ahead: str | None = None  # engine that the sentinel built for the first variant

    def execute(self, todo: Sequence[Work], searches: Sequence[Work] = ()) -> None:
        """Measure ``todo`` and search the capacity of ``searches``; a variant that ends badly does not stop the others.

        A variant is searched right after its last pass; one that has its record already, before everything else.
        """
        for work in self._plan.works:
            if work.unsupported is not None:
                self._write(self._unsupported(work))
        if any(_on_gpu(work) for work in todo):
            self._gpu = telemetry.find(self._settings.telemetry_hz)
        self._searched = {work.key for work in searches}
        waiting = {work.key for work in todo}
        try:
            for work in searches:
                if work.key not in waiting:
                    self._search(work)
            self._measure(passes(todo, self._settings.seed))
        finally:
            self._crew.leave(at_once=True)
            self._claim.close()
            if self._gpu is not None:
                self._gpu.close()
        self._settle([work.key for work in self._plan.works])

    def _measure(self, ordered: Sequence[tuple[Work, int]]) -> None:
        """Every pass in this order; a sentinel before, between and after them where one is asked for."""
        dropped: set[str] = set()
        left = Counter(work.engine_key for work, _ in ordered)
        for work, repeat in ordered:
            if work.key not in dropped:
                if self._watch.due():
                    self._run_sentinel()
                if not self._pass(work, repeat):
                    dropped.add(work.key)
            left[work.engine_key] -= 1
            if not left[work.engine_key] and work.engine_key in self._entries:
                self._claim.release("engines", self._entries.pop(work.engine_key))
        if ordered:
            self._run_sentinel()

    def _run_sentinel(self) -> None:
        interrupts.raise_if_arrived()
        problem = self._watch.run()
        if problem:
            self._crew.leave(at_once=True)
            self._display.note(problem)
        self._settle(self._waiting)

    def _settle(self, keys: Sequence[str]) -> None:
        """Judge drift anew, now that a stretch has its end; records that wait for that are finished."""
        waiting, self._waiting = self._waiting, []
        for made in self._watch.settled(keys):
            if made.key in waiting:
                self._finished(made)

    def _pass(self, work: Work, repeat: int) -> bool:
        """Run one pass; False if the variant is over because of it."""
        interrupts.raise_if_arrived()
        self._display.variant(work.variant.label)
        start = time.perf_counter()
        if repeat == 0:
            self._clear_parts(work)
            self._started[work.key] = (_utc_now(), 0.0)
        self._stretches[work.key, repeat] = self._watch.stretch
        outcome = self._watched(work, repeat)
        began, spent = self._started[work.key]
        self._started[work.key] = (began, spent + time.perf_counter() - start)
        self._display.passed()
        if outcome.status != "ok":
            self._crew.leave(at_once=True)
            self._clear_parts(work)
            self._write(self._record(work, outcome, []))
            return False
        self._part(work, repeat).with_suffix(".json").write_text(json.dumps(outcome.result))
        if repeat == work.variant.load.repeats - 1:
            self._crew.leave(at_once=False, unless=work)
            self._assemble(work, outcome)
        return True

    def _search(self, work: Work) -> None:
        """Search the capacity at the SLO; its probes join the variant's samples, and the record is judged again.

        A search that ends badly marks the record as its error, and leaves its curve as it is.
        """
        interrupts.raise_if_arrived()
        self._display.variant(work.variant.label)
        start = time.perf_counter()
        self._clear_parts(work)
        outcome = self._ask(work, None)
        self._display.passed()
        found, path = self._settings.store.read(work.key), self._settings.store.samples_path(work.key)
        points = samples.load(path)
        if outcome.status == "ok":
            points += samples.load(self._part(work, None))
            samples.save(path, points)
        else:
            self._crew.leave(at_once=True)
            found = dataclasses.replace(found, status=outcome.status, error=outcome.error)
        found = dataclasses.replace(found, wall_s=(found.wall_s or 0.0) + time.perf_counter() - start)
        self._write(judge.summarised(found, points, self._settings.slo))
        self._clear_parts(work)

    def _watched(self, work: Work, repeat: int) -> Outcome:
        """One pass with the GPU's state beside it; once more, and the second kept, where that state spoilt it.

        A variant is given one such second pass, whatever its repeats: a GPU that throttles at every pass is then
        what there is to measure.
        """
        if self._gpu is None or not _on_gpu(work):
            return self._ask(work, repeat)
        outcome, reason = self._pass_on_gpu(self._gpu, work, repeat, None)
        if reason is None or work.key in self._again:
            return outcome
        self._again[work.key] = reason
        self._display.note(f"{work.variant.label} is measured again: {reason}")
        return self._pass_on_gpu(self._gpu, work, repeat, reason)[0]

    def _pass_on_gpu(
        self, gpu: telemetry.Gpu, work: Work, repeat: int, again: str | None
    ) -> tuple[Outcome, str | None]:
        """One pass, its samples completed with the GPU's state; and why that state spoilt it, or None."""
        with gpu.watch() as watch:
            outcome = self._ask(work, repeat)
        if outcome.status != "ok":
            return outcome, None
        self._series.setdefault(work.key, {})[repeat] = watch.series()
        return outcome, telemetry.attach(self._part(work, repeat), watch.series(), again)

    def _ask(self, work: Work, repeat: int | None) -> Outcome:
        """Have the worker do a pass; None for ``repeat`` has it search the capacity."""
        engine = (work.engine_key, work.variant.session.script)  # a script may well be what fails
        if engine in self._refused:
            return self._refused[engine]
        job = self._job(work, self._part(work, repeat))
        if repeat:
            job |= {"repeat": repeat, "rates_ips": self._ladder(work)}
        if repeat is None and self._settings.slo is not None:
            name, limit_ms = self._settings.slo
            job["search"] = {"name": name, "limit_ms": limit_ms, "search_s": self._settings.search_s}
            job["known"] = str(self._settings.store.samples_path(work.key))
        outcome = self._crew.run(work, job, self._on_event)
        if outcome.error is not None and outcome.error["stage"] == "build" and outcome.error["kind"] in _FOR_GOOD:
            self._refused[engine] = _refused(outcome)
        return outcome

    def _job(self, work: Work, path: Path) -> JsonDict:
        """What a worker is told of any measurement."""
        return {
            "variant": plain.to_plain(work.variant),
            "repeat": 0,
            "rates_ips": None,
            "cache": str(self._settings.cache),
            "cache_limit_bytes": self._settings.cache_limit_bytes,
            "min_sqnr_db": self._settings.min_sqnr_db,
            "samples": str(path),
        }

    def _ask_sentinel(self, work: Work, start: int, path: Path) -> Outcome:
        job = self._job(work, path) | {"repeat": start, "accuracy": False}
        outcome = self._crew.run(work, job, self._on_sentinel_event)
        if outcome.result and not outcome.result["engine"]["cached"]:
            self._built_ahead = outcome.result["engine"]["key"]
        return outcome

    def _on_event(self, event: JsonDict) -> None:
        if event["event"] == "note":
            self._display.note(event["text"])
        elif event["event"] == "engine":
            with contextlib.suppress(CacheError):  # the worker meets it too, and its word goes into the record
                # Held from the first pass to the last: rebuilt in between, an engine may have other kernels.
                self._claim.hold("engines", event["key"])
                self._entries[str(self._crew.engine)] = event["key"]
        else:
            self._display.stage(event["stage"], event["detail"], event["done"])

    def _on_sentinel_event(self, event: JsonDict) -> None:
        if event["event"] == "engine":
            self._on_event(event)

    def _part(self, work: Work, repeat: int | None) -> Path:
        return self._parts / f"{work.key}.{'search' if repeat is None else repeat}.npz"

    def _clear_parts(self, work: Work) -> None:
        for path in self._parts.glob(f"{work.key}.*"):
            path.unlink()

    def _ladder(self, work: Work) -> list[float]:
        first = samples.load(self._part(work, 0))
        return [(point.offered_rps or 0.0) * point.batch for point in first if point.kind not in samples.ASIDE]

    def _assemble(self, work: Work, outcome: Outcome) -> None:
        """Samples of all passes into one file, then the record that is made of them."""
        points = [
            dataclasses.replace(point, stretch=self._stretches[work.key, repeat])
            for repeat in range(work.variant.load.repeats)
            for point in samples.load(self._part(work, repeat))
        ]
        samples.save(self._settings.store.samples_path(work.key), points)
        self._keep_series(work)
        made = self._record(work, outcome, points)
        if made.status == "ok" and work.key in self._searched:
            self._settings.store.write(made)  # it stands whatever becomes of the search; said once that is over
            self._search(work)
        else:
            self._write(made)
        self._clear_parts(work)

    def _keep_series(self, work: Work) -> None:
        path = self._settings.store.telemetry_path(work.key)
        if work.key in self._series:
            gpu_state.save(path, self._series.pop(work.key))
        else:
            path.unlink(missing_ok=True)  # of an earlier measurement

    def _record(self, work: Work, outcome: Outcome, points: list[samples.PointSamples]) -> Record:
        result = outcome.result or {}
        self._keep_artifacts(result.get("engine"))
        began, wall_s = self._started[work.key]
        mismatch = result.get("mismatch")
        error: JsonDict | None = outcome.error
        if mismatch:
            error = {"stage": "realised", "kind": "Mismatch", "message": mismatch, "stderr_tail": []}
        made = Record(
            key=work.key,
            sweep=self._settings.name,
            status="invalid" if mismatch else outcome.status,
            started_at=began,
            wall_s=wall_s,
            variant=axes.flat(work.variant),
            facts=facts.of(registry.get(work.variant.backend)),
            model=result.get("model"),
            engine=self._engine_facts(result.get("engine")),
            realised=result.get("realised"),
            accuracy=result.get("accuracy"),
            error=error,
        )
        judged = judge.summarised(made, points, self._settings.slo)
        return self._watch.judged(judged, samples.stretches(points))

    def _engine_facts(self, engine: JsonDict | None) -> JsonDict | None:
        """The record's ``engine``; one that the sentinel built was built for the first variant that uses it."""
        if engine is None or engine["key"] != self._built_ahead:
            return engine
        self._built_ahead = None
        return {**engine, "cached": False}

    def _keep_artifacts(self, engine: JsonDict | None) -> None:
        """Copies of what the engine's cache entry has for people to look at; the entry itself may be evicted."""
        for name in (engine or {}).get("artifacts", ()):
            target = self._settings.store.root / name
            source = self._settings.cache / "engines" / target.parent.name / target.name
            if not target.exists() and source.exists():
                write_atomic(target, source.read_bytes())

    def _unsupported(self, work: Work) -> Record:
        """The record of a variant that cannot run here; the one on disk if it says the same."""
        error: JsonDict = {"stage": "plan", "kind": "Unsupported", "message": work.unsupported, "stderr_tail": []}
        try:
            found = self._settings.store.read(work.key)
        except RecordError:
            found = None
        if found is not None and found.error == error:
            return found
        return Record(
            key=work.key,
            sweep=self._settings.name,
            status="unsupported",
            started_at=_utc_now(),
            variant=axes.flat(work.variant),
            facts=facts.of(registry.get(work.variant.backend)),
            error=error,
        )

    def _write(self, made: Record) -> None:
        self._settings.store.write(made)
        self._display.finished(made)
        if self._watch.on:
            self._waiting.append(made.key)
        else:
            self._finished(made)


def _on_gpu(work: Work) -> bool:
    return registry.get(work.variant.backend).on_gpu


def passes(todo: Sequence[Work], seed: int) -> list[tuple[Work, int]]:
    """Every pass of every variant: the first pass in the plan's order, later ones interleaved at random.

    Groups stay together within a pass, so that an engine is loaded once a pass.
    """
    ordered: list[tuple[Work, int]] = [(work, 0) for work in todo]
    rng = random.Random(seed)  # noqa: S311 - an order, no secret
    for repeat in range(1, max((work.variant.load.repeats for work in todo), default=1)):
        groups: dict[str, list[Work]] = {}
        for work in todo:
            if work.variant.load.repeats > repeat:
                groups.setdefault(work.engine_key, []).append(work)
        shuffled = list(groups.values())
        rng.shuffle(shuffled)
        for group in shuffled:
            rng.shuffle(group)
            ordered.extend((work, repeat) for work in group)
    return ordered


def _refused(outcome: Outcome) -> Outcome:
    """The same word for every other variant of that engine."""
    error = outcome.error or {}
    message = f"{error['message']} (said of this engine once; not built again for each variant that shares it)"
    return dataclasses.replace(outcome, error={**error, "message": message})


def _utc_now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

"""Plan -> records: which work is left, one worker per engine group, one atomic record per variant."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sweep import axes, facts, interrupts, judge, plain, samples
from sweep.backends import registry
from sweep.errors import RecordError
from sweep.pool import Outcome, Worker
from sweep.record import Record
from sweep.sentinel import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.axes import JsonDict
    from sweep.folder import Settings
    from sweep.plan import Plan, Work
    from sweep.progress import Display

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
        self._worker: Worker | None = None
        self._engine: str | None = None
        self._started: dict[str, tuple[str, float]] = {}
        self._watch = Watch(plan, settings, self._ask_sentinel)
        self._stretches: dict[tuple[str, int], int | None] = {}
        self._waiting: list[str] = []
        self._built_ahead: str | None = None  # engine that the sentinel built for the first variant

    def execute(self, todo: Sequence[Work]) -> None:
        """Measure ``todo``; a variant that ends badly does not stop the others."""
        for work in self._plan.works:
            if work.unsupported is not None:
                self._write(self._unsupported(work))
        dropped: set[str] = set()
        try:
            for work, repeat in passes(todo, self._settings.seed):
                if work.key in dropped:
                    continue
                if self._watch.due():
                    self._run_sentinel()
                if not self._pass(work, repeat):
                    dropped.add(work.key)
            if todo:
                self._run_sentinel()
        finally:
            self._leave_group(at_once=True)
        self._settle([work.key for work in self._plan.works])

    def _run_sentinel(self) -> None:
        interrupts.raise_if_arrived()
        problem = self._watch.run()
        if problem:
            self._leave_group(at_once=True)
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
        outcome = self._ask(work, repeat)
        began, spent = self._started[work.key]
        self._started[work.key] = (began, spent + time.perf_counter() - start)
        self._display.passed()
        if outcome.status != "ok":
            self._leave_group(at_once=True)
            self._clear_parts(work)
            self._write(self._record(work, outcome, []))
            return False
        self._part(work, repeat).with_suffix(".json").write_text(json.dumps(outcome.result))
        if repeat == work.variant.load.repeats - 1:
            self._leave_group(at_once=False, unless=work.engine_key)
            self._assemble(work, outcome)
        return True

    def _ask(self, work: Work, repeat: int) -> Outcome:
        job = {
            "variant": plain.to_plain(work.variant),
            "repeat": repeat,
            "rates_ips": self._ladder(work) if repeat else None,
            "cache": str(self._settings.cache),
            "samples": str(self._part(work, repeat)),
        }
        return self._worker_for(work).run(job, self._on_event, self._settings.timeout_s)

    def _ask_sentinel(self, work: Work, start: int, path: Path) -> Outcome:
        job = {
            "variant": plain.to_plain(work.variant),
            "repeat": start,
            "rates_ips": None,
            "cache": str(self._settings.cache),
            "samples": str(path),
            "accuracy": False,
        }
        outcome = self._worker_for(work).run(job, lambda _event: None, self._settings.timeout_s)
        if outcome.result and not outcome.result["engine"]["cached"]:
            self._built_ahead = outcome.result["engine"]["key"]
        return outcome

    def _worker_for(self, work: Work) -> Worker:
        """The group's worker, started if this work belongs to another group than the last."""
        if self._worker is None or self._engine != work.engine_key:
            self._leave_group(at_once=False)
            log = self._settings.store.root / "logs" / f"{work.engine_key}.log"
            self._worker = Worker(log, registry.get(work.variant.backend).environment(work.variant))
            self._engine = work.engine_key
        return self._worker

    def _leave_group(self, *, at_once: bool, unless: str | None = None) -> None:
        if self._worker is None or (unless is not None and unless == self._engine):
            return
        if at_once:
            self._worker.kill()
        else:
            self._worker.close()
        self._worker = None

    def _on_event(self, event: JsonDict) -> None:
        if event["event"] == "note":
            self._display.note(event["text"])
        else:
            self._display.stage(event["stage"], event["detail"], event["done"])

    def _part(self, work: Work, repeat: int) -> Path:
        return self._parts / f"{work.key}.{repeat}.npz"

    def _clear_parts(self, work: Work) -> None:
        for path in self._parts.glob(f"{work.key}.*"):
            path.unlink()

    def _ladder(self, work: Work) -> list[float]:
        first = samples.load(self._part(work, 0))
        return [(point.offered_rps or 0.0) * point.batch for point in first if point.kind != "closed"]

    def _assemble(self, work: Work, outcome: Outcome) -> None:
        """Samples of all passes into one file, then the record that is made of them."""
        points = [
            dataclasses.replace(point, stretch=self._stretches[work.key, repeat])
            for repeat in range(work.variant.load.repeats)
            for point in samples.load(self._part(work, repeat))
        ]
        samples.save(self._settings.store.samples_path(work.key), points)
        self._write(self._record(work, outcome, points))
        self._clear_parts(work)

    def _record(self, work: Work, outcome: Outcome, points: list[samples.PointSamples]) -> Record:
        result = outcome.result or {}
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


def _utc_now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

"""What a lane asks of its workers: a pass, the search of a capacity, a run of the sentinel."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.storage.cache import Claim
from sweep.storage.store import Store
from sweep.system import serialization

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.pass_samples import Parts
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_pool import Crew
    from sweep.runner.worker_process import Outcome
    from sweep.spec import JsonDict, Script
    from sweep.spec.settings import Settings

_FOR_GOOD = ("BuildError", "UnsupportedError")  # a library that refuses a graph does so again


class Jobs:
    """Asks the crew, and remembers what holds for the whole group: engines in use, engines that do not build.

    Args:
        settings: of the sweep.
        crew: the workers.
        parts: where the samples go.
        screen: what the user sees of this lane.
    """

    def __init__(self, settings: Settings, crew: Crew, parts: Parts, screen: Screen) -> None:
        self._settings = settings
        self._crew = crew
        self._parts = parts
        self._screen = screen
        self._claim = Claim(settings.cache)
        self._refused: dict[tuple[str, Script | None], Outcome] = {}  # so that each is tried once
        self._entries: dict[str, str] = {}  # keys of engines in the cache, by the engine key of the plan
        self._built_ahead: str | None = None  # engine that the sentinel built for the first variant

    def ask(self, work: Work, repeat: int | None) -> Outcome:
        """Have the worker do a pass; None for ``repeat`` has it search the capacity."""
        engine = (work.engine_key, work.variant.session.script)  # a script may well be what fails
        if engine in self._refused:
            return self._refused[engine]
        job = self._job(work, self._parts.path(work, repeat))
        if repeat:
            job |= {"repeat": repeat, "rates_ips": self._parts.rates_ips(work)}
        if repeat is None and self._settings.slo is not None:
            name, limit_ms = self._settings.slo
            job["search"] = {"name": name, "limit_ms": limit_ms, "search_s": self._settings.search_s}
            job["known"] = str(Store(self._settings.root).samples_path(work.key))
        outcome = self._crew.run(work, job, self._on_event)
        if outcome.error is not None and outcome.error["stage"] == "build" and outcome.error["kind"] in _FOR_GOOD:
            self._refused[engine] = _refused(outcome)
        return outcome

    def ask_sentinel(self, work: Work, start: int, path: Path) -> Outcome:
        """Have the worker run the sentinel; its samples go to ``path``."""
        job = self._job(work, path) | {"repeat": start, "accuracy": False}
        outcome = self._crew.run(work, job, self._on_sentinel_event)
        if outcome.result and not outcome.result["engine"]["cached"]:
            self._built_ahead = outcome.result["engine"]["key"]
        return outcome

    def credited(self, outcome: Outcome) -> Outcome:
        """The outcome as the record holds it: an engine that the sentinel built was built for its first variant."""
        engine = (outcome.result or {}).get("engine")
        if outcome.result is None or engine is None or engine["key"] != self._built_ahead:
            return outcome
        self._built_ahead = None
        return dataclasses.replace(outcome, result={**outcome.result, "engine": {**engine, "cached": False}})

    def release(self, work: Work) -> None:
        """No pass of the engine is left: it may be evicted."""
        if work.engine_key in self._entries:
            self._claim.release("engines", self._entries.pop(work.engine_key))

    def close(self) -> None:
        """Let go of every engine."""
        self._claim.close()

    def _job(self, work: Work, path: Path) -> JsonDict:
        """What a worker is told of any measurement."""
        return {
            "variant": serialization.to_plain(work.variant),
            "repeat": 0,
            "rates_ips": None,
            "cache": str(self._settings.cache),
            "cache_limit_bytes": self._settings.cache_limit_bytes,
            "gates": serialization.to_plain(self._settings.gates),
            "samples": str(path),
            "limits_s": self._settings.limits_s,
        }

    def _on_event(self, event: JsonDict) -> None:
        if event["event"] == "note":
            self._screen.note(event["text"])
        elif event["event"] == "engine":
            with contextlib.suppress(CacheError):  # the worker meets it too, and its word goes into the record
                # Held from the first pass to the last: rebuilt in between, an engine may have other kernels.
                self._claim.hold("engines", event["key"])
                self._entries[str(self._crew.engine)] = event["key"]
        else:
            self._screen.stage(event["stage"], event["detail"], event["done"])

    def _on_sentinel_event(self, event: JsonDict) -> None:
        if event["event"] == "engine":
            self._on_event(event)


def _refused(outcome: Outcome) -> Outcome:
    """The same word for every other variant of that engine."""
    error = outcome.error or {}
    message = f"{error['message']} (said of this engine once; not built again for each variant that shares it)"
    return dataclasses.replace(outcome, error={**error, "message": message})

"""Send the requests of a device runner to its workers: a pass, the search of a capacity, a run of the sentinel."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from typing import TYPE_CHECKING

import msgspec

from sweep.errors import CacheError
from sweep.loadgen import SearchRequest
from sweep.runner import messages
from sweep.runner.worker_pool import built_now
from sweep.storage import Store
from sweep.storage.cache import Pins, eviction

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.pass_samples import PassSamples
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_pool import WorkerPool
    from sweep.runner.worker_process import Outcome
    from sweep.spec import Script, Settings

_PERMANENT = ("BuildError", "UnsupportedError")  # a library that refuses a graph does so again


class JobClient:
    """Send requests, and remember what holds for the whole group: engines in use, engines that do not build.

    Args:
        settings: settings of the sweep.
        pool: the workers.
        samples: where the samples of passes go.
        screen: shows what the workers tell.
    """

    def __init__(self, settings: Settings, pool: WorkerPool, samples: PassSamples, screen: Screen) -> None:
        self._settings = settings
        self._pool = pool
        self._samples = samples
        self._screen = screen
        self._pins = Pins(settings.cache)
        self._refused: dict[tuple[str, Script | None], Outcome] = {}  # so that each is tried once
        self._entries: dict[str, set[str]] = {}  # keys of engines in the cache, by the engine key of the plan
        self._built_afresh: set[str] = set()  # those of them that ``builds=`` made
        self._measured: set[str] = set()  # keys of the variants that had a pass
        self._token = secrets.token_hex(8)
        self._built_ahead: str | None = None  # engine that the sentinel built for the first variant

    def run_pass(self, work: Work, repeat: int) -> Outcome:
        """Have the workers do one pass."""
        request = self._request(work, self._samples.path(work, repeat))
        request = msgspec.structs.replace(request, build=self._build(work, repeat))
        self._measured.add(work.key)
        if repeat:
            request = msgspec.structs.replace(request, repeat=repeat, rates_ips=self._samples.rates_ips(work))
        return self._run(work, request, fresh=work.variant.load.passes > 1)

    def run_build(self, work: Work) -> Outcome:
        """Have a worker build the engine of `work` into the cache, unless it is there."""
        request = self._request(work, self._samples.path(work, 0))
        return self._run(work, msgspec.structs.replace(request, only_build=True, accuracy=False))

    def run_search(self, work: Work) -> Outcome:
        """Have the workers search the capacity at the SLO of the settings."""
        request = self._request(work, self._samples.path(work, None))
        if work.key in self._measured:  # by this device runner, so that its last engine is still there
            build = self._build(work, work.variant.load.passes - 1)
            request = msgspec.structs.replace(request, build=build)
        if self._settings.slo is not None:
            request = msgspec.structs.replace(
                request,
                search=SearchRequest(slo=self._settings.slo, search_s=self._settings.search_s or 0.0),
                earlier_samples=Store(self._settings.root).samples_path(work.key),
            )
        return self._run(work, request)

    def run_layers(self, work: Work, device: str | None) -> Outcome:
        """Have the workers profile the layers of the engine of `work`; the profile is on disk where this ends well.

        Args:
            work: the variant, measured.
            device: name of the GPU or CPU.
        """
        request = self._request(work, self._samples.path(work, None))
        build = self._build(work, work.variant.load.passes - 1) if work.key in self._measured else None
        path = Store(self._settings.root).layers_path(work.key)
        layers = messages.LayersRequest(path=path, key=work.key, label=work.label, device=device)
        return self._run(work, msgspec.structs.replace(request, build=build, layers=layers, accuracy=False))

    def run_sentinel(self, work: Work, start: int, path: Path) -> Outcome:
        """Have new workers run the sentinel, which shows what starts differ by; its samples go to `path`."""
        request = msgspec.structs.replace(self._request(work, path), repeat=start, accuracy=False)
        outcome = self._pool.run(work, request, self._on_sentinel_event, fresh=True)
        if outcome.result is not None and not outcome.result.engine["cached"]:
            self._built_ahead = outcome.result.engine["key"]
        return outcome

    def credited(self, outcome: Outcome) -> Outcome:
        """Return the outcome as the record holds it: what the sentinel built was built for its first variant."""
        if outcome.result is not None and outcome.result.engine["key"] in self._built_afresh:
            return dataclasses.replace(outcome, result=built_now(outcome.result))
        if outcome.result is None or outcome.result.engine["key"] != self._built_ahead:
            return outcome
        self._built_ahead = None
        return dataclasses.replace(outcome, result=built_now(outcome.result))

    def release(self, work: Work) -> None:
        """Unpin the engines of `work`, which no pass needs any more, and remove those that were built afresh for it."""
        for key in self._entries.pop(work.engine_key, ()):
            self._pins.release("engines", key)
            if key in self._built_afresh:
                eviction.remove(self._settings.cache, "engines", key)
                self._built_afresh.discard(key)

    def close(self) -> None:
        """Unpin every engine."""
        self._pins.close()

    def _build(self, work: Work, repeat: int) -> str | None:
        """Return the name of the engine that a pass starts, of this run of the sweep alone; None for the cache's."""
        number = work.variant.load.build_of(repeat)
        return None if number is None else f"{self._token}-{number}"

    def _run(self, work: Work, request: messages.Request, *, fresh: bool = False) -> Outcome:
        engine = (work.engine_key, work.variant.session.script)  # a script may well be what fails
        if engine in self._refused:
            return self._refused[engine]
        outcome = self._pool.run(work, request, self._on_event, fresh=fresh)
        if outcome.result is not None and request.build is not None:
            self._built_afresh.add(outcome.result.engine["key"])
        if outcome.error is not None and outcome.error["stage"] == "build" and outcome.error.get("kind") in _PERMANENT:
            self._refused[engine] = _refused(outcome)
        return outcome

    def _request(self, work: Work, path: Path) -> messages.Request:
        """Return what any request for `work` says, its samples going to `path`."""
        return messages.Request(
            variant=work.variant,
            cache=self._settings.cache,
            cache_limit_bytes=self._settings.cache_limit_bytes,
            gates=self._settings.gates,
            samples=path,
            limits_s=self._settings.limits_s,
            accuracy=not self._settings.probe,
        )

    def _on_event(self, event: messages.AnyEvent) -> None:
        match event:
            case messages.Note():
                self._screen.note(event.text)
            case messages.Engine():
                with contextlib.suppress(CacheError):  # the worker meets it too, and its message goes into the record
                    # Pinned from the first pass to the last: rebuilt in between, an engine may have other kernels.
                    self._pins.add("engines", event.key)
                    self._entries.setdefault(str(self._pool.engine), set()).add(event.key)
            case messages.Stage():
                self._screen.stage(event.stage, event.detail, event.done)

    def _on_sentinel_event(self, event: messages.AnyEvent) -> None:
        if isinstance(event, messages.Engine):
            self._on_event(event)


def _refused(outcome: Outcome) -> Outcome:
    """Return the same outcome for every other variant of that engine."""
    error = outcome.error
    if error is None:
        return outcome
    message = f"{error['message']} (said of this engine once; not built again for each variant that shares it)"
    return dataclasses.replace(outcome, error={**error, "message": message})

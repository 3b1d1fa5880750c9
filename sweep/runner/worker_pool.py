"""Keep the worker processes that measure the variants of one engine, for as long as that engine is measured."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from typing import TYPE_CHECKING

import msgspec

from sweep import spec
from sweep.backends import registry
from sweep.errors import MpsError
from sweep.runner.client_group import ClientGroup
from sweep.runner.worker_process import Outcome, Worker
from sweep.spec import Status
from sweep.system import Mps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sweep.runner.messages import Request, Result
    from sweep.runner.plan import Work
    from sweep.runner.worker_process import OnEvent
    from sweep.spec import Neighbour, Settings, Variant
    from sweep.storage import ErrorInfo

_numbers = itertools.count().__next__  # of the pools of this process; atomic under the GIL


class WorkerPool:
    """Keep the children of one engine group: a process a client, started when the first request needs them.

    They live over the variants of the group that have the same clients, variables in their environment and SM count.

    Args:
        settings: settings of the sweep: where the logs go, and how long a worker may be silent.
        environment: variables for every child, such as the GPU it may see.
        cores: logical CPUs that its children run on; None leaves them all.

    Attributes:
        engine: engine key of the group, of the last one once it is left; None before the first.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str] | None = None, cores: Iterable[int] | None = None
    ) -> None:
        self._settings = settings
        # A worker that is killed removes nothing. What is left here goes with its pool, or with the next start.
        self._scratch = settings.root.absolute() / "parts" / f"tmp{_numbers()}"
        self._variables = {**(environment or {}), "TMPDIR": str(self._scratch)}
        self._cores = cores
        self._mps = Mps(settings.mps_pipe_directory, self._variables.get("CUDA_VISIBLE_DEVICES"))
        self._clients: ClientGroup | None = None
        # Environment of each client, SMs, and networks beside this one, of the group.
        self._needs: tuple[list[dict[str, str]], int | None, tuple[Neighbour, ...] | None] | None = None
        self._ready: set[str] = set()  # engines (``_engine``) that are known to be in the cache
        self._fresh: set[str] = set()  # those of them that were built for a variant that is still to be measured
        self.engine: str | None = None

    def run(self, work: Work, request: Request, on_event: OnEvent, *, fresh: bool = False) -> Outcome:
        """Run `request` for `work` on the workers of its engine; `fresh` ends those at hand and starts new ones.

        Several clients, or one under a share, find the engine in the cache: one worker alone, on the whole GPU unless
        ``mps_build`` gives it a share, builds it first. So only one builds, and every variant of the group has its
        kernels.
        """
        if work.engine_key != self.engine:
            self.end(at_once=False)
            self.engine = work.engine_key
        elif fresh:
            self.end(at_once=False)
        try:
            if _shares(work) and _engine(work, request) not in self._ready:
                build_outcome = self._build(work, request, on_event)
                if build_outcome.status != "ok":
                    return build_outcome
            outcome = self._clients_for(work).run(request, on_event, self._settings.timeout_s)
        except MpsError as error:
            start: ErrorInfo = {"stage": "start", "kind": "MpsError", "message": str(error), "stderr_tail": []}
            return Outcome(status=Status.FAILED, error=start)
        return self._credited(_engine(work, request), outcome)

    def _build(self, work: Work, request: Request, on_event: OnEvent) -> Outcome:
        """Build the engine into the cache by one worker, and end that."""
        self.end(at_once=False)
        self._scratch.mkdir(parents=True, exist_ok=True)
        builder = Worker(self._log(work), self._environment(work.variant, work.variant.engine.mps_build), self._cores)
        try:
            outcome = builder.run(msgspec.structs.replace(request, only_build=True), on_event, self._settings.timeout_s)
        except BaseException:
            builder.kill()
            raise
        builder.close()
        if outcome.result is not None:
            self._ready.add(_engine(work, request))
            if not outcome.result.engine["cached"]:
                self._fresh.add(_engine(work, request))
        return outcome

    def _credited(self, engine: str, outcome: Outcome) -> Outcome:
        """Return the outcome; an engine that the builder built for this variant was not found in the cache."""
        if outcome.result is None:
            return outcome
        self._ready.add(engine)
        if engine not in self._fresh:
            return outcome
        self._fresh.remove(engine)
        return dataclasses.replace(outcome, result=built_now(outcome.result))

    def _clients_for(self, work: Work) -> ClientGroup:
        """Return the workers that this variant needs, started if those at hand are others."""
        session = work.variant.session
        # A process that held a green context gives the whole GPU no more (docs/decisions/0022).
        count = session.processes
        members = [work.variant if session.beside is None else spec.member(work.variant, n) for n in range(count)]
        environments = [self._environment(each, each.session.mps) for each in members]
        needs = (environments, session.sm_count, session.beside)
        if self._clients is None or self._needs != needs:
            self.end(at_once=False)
            self._scratch.mkdir(parents=True, exist_ok=True)
            logs = [self._log(work, None if count == 1 else number) for number in range(count)]
            workers = [Worker(log, variables, self._cores) for log, variables in zip(logs, needs[0], strict=True)]
            self._clients = ClientGroup(workers, _names(work))
            self._needs = needs
        return self._clients

    def _environment(self, variant: Variant, share: int | None) -> dict[str, str]:
        """Return the variables of a worker with `share` per cent of the GPU; None for all of it, without MPS."""
        backend = registry.get(variant.backend)
        mps_variables = self._mps.environment(share) if backend.on_gpu else {}
        return {**backend.environment(variant), **self._variables, **mps_variables}

    def _log(self, work: Work, client: int | None = None) -> Path:
        name = work.engine_key if client is None else f"{work.engine_key}-client{client + 1}"
        return self._settings.root / "logs" / f"{name}.log"

    def end(self, *, at_once: bool) -> None:
        """End the children; `at_once` kills them."""
        if self._clients is not None:
            self._clients.end(at_once=at_once)
        self._clients = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def close(self) -> None:
        """End the children at once, and the MPS daemon if it is ours."""
        self.end(at_once=True)
        self._mps.close()


def built_now(result: Result) -> Result:
    """Return the result of a pass as that of the one for which the engine was built."""
    return msgspec.structs.replace(result, engine={**result.engine, "cached": False})


def _engine(work: Work, request: Request) -> str:
    """Return what identifies the engine of a request: its engine key, and which build it is of several."""
    others = [spec.engine_key(other) for other in spec.members_of(work.variant)[1:]]
    return " ".join([work.engine_key, *others, *([] if request.build is None else [request.build])])


def _names(work: Work) -> list[str] | None:
    """Return the name of each network of `work` that has a process; None for clients of one network."""
    beside = work.variant.session.beside
    if beside is None or work.variant.session.processes == 1:
        return None
    return [f"{work.variant.onnx.model.name}", *(f"{other.name} (beside it)" for other in beside)]


def _shares(work: Work) -> bool:
    """Return whether the workers of `work` are not alone on the whole device."""
    session = work.variant.session
    return session.clients > 1 or session.mps is not None or session.beside is not None

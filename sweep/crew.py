"""The worker processes that measure the variants of one engine, for as long as that is the engine in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.pool import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sweep.axes import JsonDict
    from sweep.folder import Settings
    from sweep.plan import Work
    from sweep.pool import Outcome


class Crew:
    """The child of one engine group; started when its first job comes, ended when another group's does.

    Args:
        settings: where the logs go, and how long a worker may be silent.
        environment: variables for every child, such as the GPU it may see.
        cores: logical CPUs that its children run on; None leaves them all.

    Attributes:
        engine: engine key of the group, of the last one once it is left; None before the first.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str] | None = None, cores: Iterable[int] | None = None
    ) -> None:
        self._settings = settings
        self._environment = environment or {}
        self._cores = cores
        self._worker: Worker | None = None
        self.engine: str | None = None

    def run(self, work: Work, job: JsonDict, on_event: Callable[[JsonDict], None]) -> Outcome:
        """Have the group's worker do ``job`` (``sweep.worker``) for ``work``."""
        return self._worker_for(work).run(job, on_event, self._settings.timeout_s)

    def _worker_for(self, work: Work) -> Worker:
        """The group's worker, started if this work belongs to another group than the last."""
        if self._worker is None or self.engine != work.engine_key:
            self.leave(at_once=False)
            log = self._settings.store.root / "logs" / f"{work.engine_key}.log"
            variables = {**registry.get(work.variant.backend).environment(work.variant), **self._environment}
            self._worker = Worker(log, variables, self._cores)
            self.engine = work.engine_key
        return self._worker

    def leave(self, *, at_once: bool, unless: Work | None = None) -> None:
        """End the child; ``at_once`` kills it. Nothing is done where it is that of ``unless``."""
        if self._worker is None or (unless is not None and unless.engine_key == self.engine):
            return
        if at_once:
            self._worker.kill()
        else:
            self._worker.close()
        self._worker = None

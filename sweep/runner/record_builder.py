"""Build the record of a variant from the outcome of its passes."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, cast

from sweep import spec
from sweep.analysis import memory, mismatch_error, record_summary
from sweep.backends import registry
from sweep.errors import RecordError
from sweep.runner import oom_pruning, recipe_file
from sweep.spec import Status
from sweep.storage import Record, Store
from sweep.system import environment, regular_files, write_atomic

if TYPE_CHECKING:
    from sweep.runner.plan import Work
    from sweep.runner.worker_process import Outcome
    from sweep.spec import Settings
    from sweep.storage import EngineInfo, ErrorInfo, Facts, samples


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Hold when the work on a variant began, and the time that it took so far.

    Attributes:
        started_at: UTC, ISO 8601.
        wall_s: seconds of all its passes.
    """

    started_at: str
    wall_s: float = 0.0

    def plus(self, seconds: float) -> Timing:
        """Return this with one more pass."""
        return dataclasses.replace(self, wall_s=self.wall_s + seconds)


def measured(
    work: Work,
    outcome: Outcome,
    points: list[samples.PointSamples],
    timing: Timing,
    settings: Settings,
    uuid: str | None = None,
) -> Record:
    """Build the record of a variant that was tried, whatever came of it.

    Args:
        work: the variant.
        outcome: outcome of its last pass.
        points: the samples of all its passes; empty where it did not come to the end.
        timing: when, and for how long.
        settings: settings of the sweep.
        uuid: UUID of the GPU that it was tried on.
    """
    result = outcome.result
    error, status, measured_facts = outcome.error, outcome.status, {}
    if result is not None:
        measured_facts = {name: getattr(result, name) for name in ("model", "engine", "realised", "accuracy")}
        _keep_artifacts(result.engine, settings)
        if "node_search" in result.engine:
            recipe_file.write(work.variant, result.engine["node_search"], settings)
        if result.mismatch is not None:
            status, error = Status.INVALID, mismatch_error(result.mismatch, result.gate)
    record = Record(
        key=work.key,
        sweep=settings.name,
        status=status,
        started_at=timing.started_at,
        wall_s=timing.wall_s,
        variant=spec.flat(work.variant),
        facts=_facts(work, uuid),
        error=error,
        **measured_facts,
    )
    return _limited(record_summary.summarise(record, points, settings.slo), settings)


def _limited(record: Record, settings: Settings) -> Record:
    """Return the record as the limits of the sweep have it."""
    fault = memory.fault(record, settings.limits) if record.status == Status.OK else None
    if fault is None:
        return record
    return dataclasses.replace(record, status=Status.INVALID, error=mismatch_error(fault.message, fault.gate))


def unsupported(work: Work, settings: Settings) -> Record:
    """Build the record of a variant that cannot run here."""
    return _untried(work, settings, Status.UNSUPPORTED, "Unsupported", work.unsupported or "")


def pruned(work: Work, cause: oom_pruning.Exhausted, settings: Settings) -> Record:
    """Build the record of a variant that is not tried, since one that needs no more memory ran out of it."""
    message = f"not tried: {cause.label} ran out of memory, and this needs no less (prune=false tries it)"
    return _untried(work, settings, Status.OOM, oom_pruning.KIND, message)


def _untried(work: Work, settings: Settings, status: Status, kind: str, message: str) -> Record:
    """Build a record from the plan alone; return the one on disk if it says the same."""
    error: ErrorInfo = {"stage": "plan", "kind": kind, "message": message, "stderr_tail": []}
    try:
        earlier = Store(settings.root).read(work.key)
    except RecordError:
        earlier = None
    if earlier is not None and earlier.error == error:
        return earlier
    return Record(
        key=work.key,
        sweep=settings.name,
        status=status,
        started_at=utc_now(),
        variant=spec.flat(work.variant),
        facts=_facts(work),
        error=error,
    )


def _facts(work: Work, uuid: str | None = None) -> Facts:
    """Return what a comparison must agree on, of the GPU `uuid` if one is named."""
    # ``system`` knows no record, so its facts come untyped; reading the record back checks them.
    return cast("Facts", environment.collect_facts(registry.get(work.variant.backend).facts(), uuid))


def _keep_artifacts(engine: EngineInfo, settings: Settings) -> None:
    """Copy what the engine's cache entry has for people to look at; the entry itself may be evicted."""
    for name in engine.get("artifacts", ()):
        target = settings.root / name
        source = settings.cache / "engines" / target.parent.name / target.name
        if not target.exists() and source.exists():
            write_atomic(target, regular_files.read_bytes(source, follow=False))


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

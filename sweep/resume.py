"""What is left to do: which records stand, and which are measured again."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from sweep import capacity, facts, samples
from sweep.backends import registry
from sweep.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.folder import Settings
    from sweep.plan import Plan, Work

RETRIED = ("failed", "oom", "timeout", "crashed")  # measured again on the next start


def left(plan: Plan, settings: Settings) -> tuple[list[Work], list[str]]:
    """The runnable work without a record that stands, and notes on records that were looked at."""
    todo, notes = [], []
    for work in plan.runnable:
        found, note = _standing(work, settings)
        if note:
            notes.append(note)
        if not found:
            todo.append(work)
    return todo, notes


def searches(plan: Plan, settings: Settings, todo: Sequence[Work]) -> list[Work]:
    """The work whose capacity is to be searched: all of ``todo``, and what stands without a search for this SLO."""
    if settings.slo is None or settings.search_s is None:
        return []
    waiting = {work.key for work in todo}
    return [
        work
        for work in plan.runnable
        if work.variant.load.kind == "curve"
        and work.variant.load.batch_wait_ms is None  # a queue that gathers is judged by its ladder: no prediction
        and (work.key in waiting or _unsearched(work, settings, settings.slo))
    ]


def walls(todo: Sequence[Work], settings: Settings) -> dict[str, float]:
    """Seconds that each work took the last time, where it was measured before and is measured again (``force``)."""
    found = {}
    for work in todo:
        try:
            record = settings.store.read(work.key)
        except RecordError:
            continue
        if record.status == "ok" and record.wall_s is not None:
            found[work.key] = record.wall_s
    return found


def _unsearched(work: Work, settings: Settings, slo: tuple[str, float]) -> bool:
    try:
        if settings.store.read(work.key).status != "ok":
            return False
        return not samples.asked(settings.store.samples_path(work.key), capacity.tag(*slo))
    except RecordError:
        return False


def _standing(work: Work, settings: Settings) -> tuple[bool, str | None]:
    """Whether the variant's record stands, and what the user should know about it."""
    if settings.force or not settings.store.record_path(work.key).exists():
        return False, None
    try:
        found = settings.store.read(work.key)
        if found.status in RETRIED or found.status == "unsupported":
            return False, None
    except RecordError as error:
        return False, f"{work.variant.label} is measured again: {error}"
    if not zipfile.is_zipfile(settings.store.samples_path(work.key)):  # looks at its end only
        return False, f"{work.variant.label} is measured again: its samples are gone or damaged"
    changed = facts.differing(found.facts, facts.of(registry.get(work.variant.backend)))
    if changed:
        names = ", ".join(f"{name} was {found.facts[name]}" for name in changed)
        return True, f"{work.variant.label} is kept from an earlier run where {names} (force=true measures again)"
    return True, None


def forget_parts(settings: Settings) -> None:
    """Throw away the passes of variants that an earlier start left unfinished."""
    shutil.rmtree(settings.store.root / "parts", ignore_errors=True)

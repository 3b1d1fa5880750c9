"""Decide which records stay valid, and which variants are measured again."""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.errors import NewerRecordError, RecordError
from sweep.runner.oom_pruning import KIND, Pruning
from sweep.storage import Index, Store, samples_file
from sweep.system import command_line, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.runner.plan import Plan, Work
    from sweep.spec import Settings, Slo

_WITH_SAMPLES = ("ok", "invalid")
_MOST_CHANGES = 3  # changes of the machine that one line names


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """Describe the work that a start has to do.

    Attributes:
        todo: runnable work without a valid record.
        notes: lines for the user about the records that were looked at.
        pruning: variants that are recorded as out of memory, which rule out variants that need more.
    """

    todo: list[Work]
    notes: list[str]
    pruning: Pruning


def remaining(plan: Plan, settings: Settings, *, keep_index: bool = False) -> Remaining:
    """Return the work of the plan that is not done yet.

    Args:
        plan: plan of the sweep.
        settings: settings of the sweep.
        keep_index: write the index of the records, so that the next start need not read them.

    Raises:
        NewerRecordError: a newer version wrote the record of one of the variants.
        RecordError: a folder is in the place of a record or its samples.
    """
    result = Remaining(todo=[], notes=[], pruning=Pruning())
    index = Index(Store(settings.root))
    _refuse_unwritable(plan, index, settings)
    check = _RecordCheck(settings, index)
    for work in plan.runnable:
        valid, note = check.of(work)
        if note:
            result.notes.append(note)
        if not valid:
            result.todo.append(work)
        elif settings.prune and index.entry(work.key).status == "oom":
            result.pruning.ran_out(work.variant, check.gpu(work))
    result.notes.extend(check.kept_note())
    if keep_index:
        index.save(())
    return result


def keep_index(plan: Plan, settings: Settings) -> None:
    """Write the index of the records, for the next start."""
    Index(Store(settings.root)).save(work.key for work in plan.works)


def searches(plan: Plan, settings: Settings, todo: Sequence[Work]) -> list[Work]:
    """Return the work whose capacity is to be searched: all of `todo`, and records without a search for this SLO."""
    if settings.slo is None or settings.search_s is None:
        return []
    todo_keys = {work.key for work in todo}
    return [
        work
        for work in plan.runnable
        if work.variant.load.kind == "curve"
        and work.variant.load.batch_wait_ms is None  # a queue that gathers is judged by its ladder: no prediction
        and (work.key in todo_keys or _unsearched(work, settings, settings.slo))
    ]


def walls(todo: Sequence[Work], settings: Settings) -> dict[str, float]:
    """Return the seconds that each work took the last time, where it is measured again (``force``)."""
    seconds = {}
    store = Store(settings.root)
    recorded = set(store.record_keys())
    for work in todo:
        if work.key not in recorded:
            continue
        try:
            record = store.read(work.key)
        except RecordError:
            continue
        if record.status == "ok" and record.wall_s is not None:
            seconds[work.key] = record.wall_s
    return seconds


def _unsearched(work: Work, settings: Settings, slo: Slo) -> bool:
    """Return whether a record lacks the search for this SLO.

    The samples of a search are written before the record is. A sweep that was killed in between has them without their
    result: the record's own result for this SLO has no probes.
    """
    try:
        record = Store(settings.root).read(work.key)
        if record.status != "ok":
            return False
        if not samples_file.was_measured_for(Store(settings.root).samples_path(work.key), slo.tag):
            return True
    except RecordError:
        return False
    result = record.slo
    if result is None or result.get("probes") != []:
        return False
    return result["limit_ms"] == slo.limit_ms and math.isclose(result["percentile"], 100 * slo.share)


def _refuse_folder(path: Path) -> None:
    """Refuse a folder in place of a file that this sweep would write once it has measured."""
    if path.is_dir():
        raise RecordError(f"{path} is a folder, and this sweep writes a file of that name there: remove the folder")


def _refuse_unwritable(plan: Plan, index: Index, settings: Settings) -> None:
    """Refuse to start where this sweep would write over the record of a newer version, or could write none."""
    for work in plan.works:
        if work.key not in index:
            continue
        try:
            index.entry(work.key)
        except NewerRecordError as error:
            raise NewerRecordError(f"{error}, or measure into another folder: results=FOLDER") from error
        except RecordError:  # damaged: measured again, with a note
            _refuse_folder(Store(settings.root).record_path(work.key))


class _RecordCheck:
    """Decide which records stay valid.

    Args:
        settings: settings of the sweep.
        index: index of its records.
    """

    def __init__(self, settings: Settings, index: Index) -> None:
        self._settings = settings
        self._index = index
        self._changes: dict[tuple[int, str], str] = {}
        self._outdated: dict[str, list[str]] = {}

    def of(self, work: Work) -> tuple[bool, str | None]:
        """Return whether the variant's record stays valid, and a note for the user about it."""
        if self._settings.force or work.key not in self._index:
            return False, None
        try:
            entry = self._index.entry(work.key)
        except RecordError as error:
            return False, f"{work.label} is measured again: {error}"
        if entry.status in self._settings.retry or entry.status == "unsupported" or entry.kind == KIND:
            return False, None
        if entry.status in _WITH_SAMPLES and not entry.has_samples:
            _refuse_folder(Store(self._settings.root).samples_path(work.key))
            return False, f"{work.label} is measured again: its samples are gone or damaged"
        changed = self._changed(entry.facts, work.variant.backend)
        if changed:
            self._outdated.setdefault(changed, []).append(work.label)
        return True, None

    def kept_note(self) -> list[str]:
        """Return a line on the records that stay valid although the machine has changed; none where it has not.

        The line says once how many there are, what changed, and how to measure them anew.
        """
        if not self._outdated:
            return []
        name, results = self._settings.name, self._settings.results
        number = next(n for n in itertools.count(2) if not (results / f"{name}-{n}").exists())
        folder = command_line.results_words(results)
        words = ("compare", name, f"{name}-{number}", *(("--results", *folder) if folder else ()))
        remedy = (
            f"name={name}-{number} measures them beside, for `{command_line.format_command(*words)}`; force=true "
            "measures them again and replaces the records"
        )
        kept = _variants([label for labels in self._outdated.values() for label in labels])
        return [f"{kept} kept from an earlier run, not measured again, although {self._changes_text()}: {remedy}"]

    def _changes_text(self) -> str:
        """Word what changed; where records are of several machines, of each how many it holds for."""
        if len(self._outdated) == 1:
            return next(iter(self._outdated))
        groups = sorted(self._outdated.items(), key=lambda item: -len(item[1]))
        texts = [
            f"{changed} ({labels[0] if len(labels) == 1 else f'{len(labels)} of them'})"
            for changed, labels in groups[:_MOST_CHANGES]
        ]
        left = sum(len(labels) for _, labels in groups[_MOST_CHANGES:])
        return "; ".join(texts) + (f"; and other changes for {left} more" if left else "")

    def gpu(self, work: Work) -> str | None:
        """Return the GPU model of a record; None for one that ran on the host."""
        if not registry.get(work.variant.backend).on_gpu:
            return None
        model = self._index.facts[self._index.entry(work.key).facts].get("gpu")
        return None if model is None else str(model)

    def _changed(self, number: int, backend: str) -> str:
        """Return how facts of a record differ from those of today, the same for all records that share them."""
        if (number, backend) not in self._changes:
            facts = self._index.facts[number]
            today = environment.collect_facts(registry.get(backend).facts())
            names = environment.differing(facts, today)
            self._changes[number, backend] = ", ".join(
                f"{name} was {facts[name]} and is {today[name]}" for name in names
            )
        return self._changes[number, backend]


def _variants(labels: Sequence[str]) -> str:
    """Word how many variants there are, as the subject of a sentence; a single one by its name."""
    return f"{labels[0]} is" if len(labels) == 1 else f"{len(labels)} variants are"


def forget_parts(settings: Settings) -> None:
    """Remove the passes of variants that a start left unfinished, and their folder."""
    shutil.rmtree(settings.root / "parts", ignore_errors=True)

"""Make the records of one device runner, write them, and pass them on once no verdict of theirs is open."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.analysis import record_summary
from sweep.backends import registry
from sweep.runner import layer_summary, record_builder
from sweep.runner.record_builder import Timing
from sweep.spec import Status
from sweep.storage import Store, samples, samples_file
from sweep.system import Stopwatch, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.runner.drift_sentinel import Sentinel
    from sweep.runner.oom_pruning import Exhausted
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.work_queue import Sweep
    from sweep.runner.worker_process import Outcome
    from sweep.storage import EngineStart, Record


PROFILED = frozenset({Status.OK, Status.INVALID})  # statuses of records whose engine can be loaded


class RecordFinisher:
    """Make and write the records of one device runner.

    Args:
        sweep: what is shared with other device runners; hears of each record that is finished.
        screen: shows each record that is written.
        sentinel: judges drift.
        uuid: UUID of the GPU that is measured on.

    Attributes:
        unsettled: keys of the records whose drift is not judged yet.
    """

    def __init__(self, sweep: Sweep, screen: Screen, sentinel: Sentinel, uuid: str | None) -> None:
        self._sweep = sweep
        self._settings = sweep.settings
        self._store = Store(sweep.settings.root)
        self._screen = screen
        self._sentinel = sentinel
        self._uuid = uuid
        self._timing: dict[str, Timing] = {}
        self._starts: dict[str, list[EngineStart]] = {}
        self._unshown: dict[str, Record] = {}  # records that wait for the profile of their layers
        self.unsettled: list[str] = []

    def begin(self, work: Work) -> None:
        """Begin the first pass of a variant."""
        self._starts[work.key] = []
        self._timing[work.key] = Timing(started_at=record_builder.utc_now())

    def add_start(self, work: Work, repeat: int, outcome: Outcome) -> None:
        """Keep what a pass of a variant started, for its record."""
        if outcome.result is not None:
            engine = outcome.result.engine
            self._starts[work.key].append(
                {
                    "build": work.variant.load.build_of(repeat),
                    "fresh": work.variant.load.passes > 1,
                    "plan_digest": engine.get("plan_digest"),
                    "build_s": engine.get("build_s"),
                    "load_s": engine.get("load_s"),
                }
            )

    @contextmanager
    def timed(self, work: Work) -> Iterator[None]:
        """Add the time that is spent within to that of the variant."""
        watch = Stopwatch()
        yield
        self._timing[work.key] = self._timing[work.key].plus(watch.seconds())

    def write(self, record: Record) -> None:
        """Write and show a record; it is finished once its drift is judged.

        One whose layers are to be profiled is shown after that (``show_profiled``).
        """
        self._store.write(record)
        if record.key in self._sweep.profiled and record.status in PROFILED:
            self._unshown[record.key] = record
        else:
            self._show(record)

    def awaits_layers(self, work: Work) -> bool:
        """Return whether the record of `work` is written, and waits for the profile of its layers to be shown."""
        return work.key in self._unshown

    def show_profiled(self, work: Work) -> None:
        """Show the record of a variant whose layers were profiled, or could not be."""
        self._show(self._unshown.pop(work.key))

    def add_layers(self, work: Work) -> None:
        """Add the summary of the layer profile of `work` to its record, which stands whatever becomes of that."""
        path = self._store.layers_path(work.key)
        try:
            record = layer_summary.with_summary(self._store.read(work.key), path)
        except Exception as error:  # noqa: BLE001 - a sweep of hours does not end with the analysis of one profile
            self._screen.note(f"{work.label}: its layers are profiled, and cannot be summarised: {one_line(error)}")
            return
        self._store.write(record)
        if work.key in self._unshown:
            self._unshown[work.key] = record

    def _show(self, record: Record) -> None:
        self._screen.finished(record)
        if self._sentinel.on:
            self.unsettled.append(record.key)
        else:
            self._sweep.finished(record)

    def write_pruned(self, work: Work, cause: Exhausted) -> None:
        """Write the record of a variant that is not tried."""
        self.write(record_builder.pruned(work, cause, self._settings))

    def write_failed(self, work: Work, outcome: Outcome) -> None:
        """Write the record of a variant whose pass ended badly."""
        self.write(self._record(work, outcome, []))

    def write_measured(self, work: Work, outcome: Outcome, points: list[samples.PointSamples]) -> bool:
        """Write the record that is made of the samples of all passes.

        Returns:
            Whether the variant's capacity is to be searched now: its record stands whatever becomes of the search, and
            is shown once that is over.
        """
        record = self._record(work, outcome, points)
        if record.status == "ok" and work.key in self._sweep.searched:
            self._store.write(record)
            return True
        self.write(record)
        return False

    def write_searched(self, work: Work, outcome: Outcome, probes: list[samples.PointSamples], seconds: float) -> None:
        """Write the record of a variant whose capacity was searched.

        The probes join the variant's samples, and the record is judged again. A search that ended badly marks the
        record as its error, and leaves its curve as it is.

        Args:
            work: the variant.
            outcome: outcome of the search.
            probes: samples of the search; empty if it failed.
            seconds: duration of the search, s.
        """
        path = self._store.samples_path(work.key)
        record, points = self._store.read(work.key), samples_file.load(path)
        if outcome.status == "ok":
            points += probes
            samples_file.save(path, points)
        else:
            record = dataclasses.replace(record, status=outcome.status, error=outcome.error)
        record = dataclasses.replace(record, wall_s=(record.wall_s or 0.0) + seconds)
        self.write(record_summary.summarise(record, points, self._settings.slo))

    def settle(self) -> None:
        """Judge the drift of the records that wait for it by the sentinel's last run."""
        keys, self.unsettled = self.unsettled, []
        for record in self._sentinel.settle(keys):
            self._sweep.finished(record)

    def _record(self, work: Work, outcome: Outcome, points: list[samples.PointSamples]) -> Record:
        uuid = self._uuid if registry.get(work.variant.backend).on_gpu else None
        record = record_builder.measured(work, outcome, points, self._timing[work.key], self._settings, uuid)
        if record.engine is not None and self._starts.get(work.key):
            record = dataclasses.replace(record, engine={**record.engine, "starts": self._starts[work.key]})
        return self._sentinel.judge(record, samples.sentinel_intervals(points))

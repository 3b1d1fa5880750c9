"""One device: which pass of which variant comes next on it, and what becomes of it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import TYPE_CHECKING

from sweep.analysis import record_summary
from sweep.backends import registry
from sweep.runner import plan, record_builder
from sweep.runner.drift_sentinel import Watch
from sweep.runner.job_client import Jobs
from sweep.runner.monitored_pass import Watched
from sweep.runner.pass_samples import Parts
from sweep.runner.record_builder import Timing
from sweep.runner.worker_pool import Crew
from sweep.storage import samples, samples_file
from sweep.storage.store import Store
from sweep.system import environment, signals
from sweep.system.device_lock import Turn
from sweep.system.gpu_memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.work_queue import Group, Groups, Sweep
    from sweep.runner.worker_process import Outcome
    from sweep.storage.record import Record
    from sweep.system.devices import Device

_TURN_S = 60.0  # after which a device is given to whoever waits for it, even within a group


class Lane:
    """Measures groups on one device, one after the other, in the thread that runs it.

    Args:
        device: what it measures on.
        number: of the lane; -1 where it is the only one.
        sweep: what it shares with other lanes.
        screen: what the user sees of it.

    Attributes:
        taken: what it took to measure.
        waiting: keys of its records whose drift is not judged yet.
    """

    def __init__(self, device: Device, number: int, sweep: Sweep, screen: Screen) -> None:
        settings = sweep.settings
        self._device = device
        self._sweep = sweep
        self._settings = settings
        self._screen = screen
        self._parts = Parts(Store(settings.root))
        self._crew = Crew(settings, environment=device.environment, cores=device.cores)
        self._jobs = Jobs(settings, self._crew, self._parts, screen)
        self._gpu = Watched(settings, self._parts, screen, device.uuid)
        self._memory = Memory(device.uuid, screen.note)
        place = None if number < 0 else (number, device.uuid or "")
        self._watch = Watch(sweep.sentinel, settings, self._jobs.ask_sentinel, place)
        self._turn: Turn | None = None
        self._used = False  # whether anything ran since the turn was taken
        self._said: set[str] = set()
        self._timing: dict[str, Timing] = {}
        self._left: Counter[str] = Counter()
        self._dropped: set[str] = set()
        self.taken: list[Work] = []
        self.waiting: list[str] = []

    def run(self, groups: Groups) -> None:
        """Take groups while there are any, then do the later passes of what was taken.

        Raises:
            BusyError: somebody else kept the device for longer than the user would wait.
            KeyboardInterrupt: stop now.
        """
        try:
            while not self._ending() and (coming := groups.peek()) is not None:
                self._hold(coming.first)
                group = groups.take()
                if group is not None:
                    self.taken += group.works
                    self._first_passes(group)
            self._through([item for item in plan.passes(self.taken, self._settings.seed) if item[1] > 0])
            if self.taken and not self._ending():
                self._run_sentinel()
        finally:
            self._crew.close()
            if self._turn is not None:
                self._turn.leave()
            self._jobs.close()
            self._gpu.close()

    def _first_passes(self, group: Group) -> None:
        for work in group.works:
            self._left[work.engine_key] += work.variant.load.repeats
        for work in group.searches:
            if not self._ending():
                self._search(work)
        self._through([(work, 0) for work in group.works])

    def _ending(self) -> bool:
        return signals.arrived() or self._sweep.halted()

    def _through(self, ordered: Sequence[tuple[Work, int]]) -> None:
        """These passes in this order. An interrupt ends it once the variant in hand has all of its passes."""
        for work, repeat in ordered:
            if self._ending():
                return
            self._step(work, repeat)
            if self._ending():
                for later in range(repeat + 1, work.variant.load.repeats):
                    self._step(work, later)
                return

    def _step(self, work: Work, repeat: int) -> None:
        """A pass, unless the variant is over; a sentinel before it where one is due."""
        if work.key not in self._dropped:
            if self._watch.due():
                self._run_sentinel()
            if not self._pass(work, repeat):
                self._dropped.add(work.key)
        self._left[work.engine_key] -= 1
        if not self._left[work.engine_key]:
            self._jobs.release(work)

    def _run_sentinel(self) -> None:
        if self._watch.work is not None:
            signals.raise_if_now()
            self._hold(self._watch.work)
        problem = self._watch.run()
        if problem:
            self._end_crew()
            self._screen.note(problem)
        waiting, self.waiting = self.waiting, []
        for made in self._watch.settled(waiting):
            self._sweep.finished(made)

    def _pass(self, work: Work, repeat: int) -> bool:
        """Run one pass; False if the variant is over because of it."""
        signals.raise_if_now()
        self._screen.variant(work.variant.label)
        cause = None if repeat else self._sweep.pruning.cause(work.variant, self._kind(work))
        if cause is not None:
            self._screen.passed()
            self._write(record_builder.pruned(work, cause, self._settings))
            return False
        self._hold(work)
        start = time.perf_counter()
        if repeat == 0:
            self._parts.clear(work)
            self._timing[work.key] = Timing(began=record_builder.utc_now())
        self._parts.begin(work, repeat, self._watch.stretch)
        measure = self._gpu.measure if _on_gpu(work) else _alone
        outcome = measure(work, repeat, self._jobs.ask)
        self._used = True
        self._timing[work.key] = self._timing[work.key].plus(time.perf_counter() - start)
        self._screen.passed()
        if outcome.status != "ok":
            self._over(work, outcome)
            return False
        if repeat == work.variant.load.repeats - 1:
            self._assemble(work, outcome)
        return True

    def _over(self, work: Work, outcome: Outcome) -> None:
        """A pass ended badly: a fresh worker for the next one, and the variant's record."""
        self._end_crew()
        self._parts.clear(work)
        if outcome.status == "oom" and self._settings.prune:
            self._sweep.pruning.ran_out(work.variant, self._kind(work))
        self._write(self._record(work, outcome, []))

    def _assemble(self, work: Work, outcome: Outcome) -> None:
        """Samples of all passes into one file, then the record that is made of them."""
        points = self._parts.gathered(work)
        samples_file.save(Store(self._settings.root).samples_path(work.key), points)
        self._gpu.keep(work)
        made = self._record(work, outcome, points)
        if made.status == "ok" and work.key in self._sweep.searched:
            Store(self._settings.root).write(made)  # it stands whatever becomes of the search; said once that is over
            self._search(work)
        else:
            self._write(made)
        self._parts.clear(work)

    def _search(self, work: Work) -> None:
        """Search the capacity at the SLO; its probes join the variant's samples, and the record is judged again.

        A search that ends badly marks the record as its error, and leaves its curve as it is.
        """
        signals.raise_if_now()
        self._screen.variant(work.variant.label)
        self._hold(work)
        start = time.perf_counter()
        self._parts.clear(work)
        outcome = self._jobs.ask(work, None)
        self._used = True
        self._screen.passed()
        found, path = Store(self._settings.root).read(work.key), Store(self._settings.root).samples_path(work.key)
        points = samples_file.load(path)
        if outcome.status == "ok":
            points += samples_file.load(self._parts.path(work, None))
            samples_file.save(path, points)
        else:
            self._end_crew()
            found = dataclasses.replace(found, status=outcome.status, error=outcome.error)
        found = dataclasses.replace(found, wall_s=(found.wall_s or 0.0) + time.perf_counter() - start)
        self._write(record_summary.summarised(found, points, self._settings.slo))
        self._parts.clear(work)

    def _record(self, work: Work, outcome: Outcome, points: list[samples.PointSamples]) -> Record:
        uuid = self._device.uuid if _on_gpu(work) else None
        credited = self._jobs.credited(outcome)
        made = record_builder.measured(work, credited, points, self._timing[work.key], self._settings, uuid)
        return self._watch.judged(made, samples.stretches(points))

    def _write(self, made: Record) -> None:
        Store(self._settings.root).write(made)
        self._screen.finished(made)
        if self._watch.on:
            self.waiting.append(made.key)
        else:
            self._sweep.finished(made)

    def _end_crew(self) -> None:
        """Kill the worker, and see what it held on the GPU free again."""
        self._crew.leave(at_once=True)
        self._memory.wait()

    def _hold(self, work: Work) -> None:
        """Have the device that this work needs, and no other. Who waits for it gets it between two groups, or turns.

        Raises:
            BusyError: as ``Turn.take``.
        """
        name = _locked(work, self._device)
        if name == (self._turn.name if self._turn is not None else None) and not self._due(work):
            return
        self._crew.leave(at_once=False)
        if self._turn is not None:
            self._turn.leave()
        self._turn = None
        if name is not None:
            turn = Turn(name, self._settings.wait_s, self._say_waiting)
            turn.take()
            self._turn = turn
        self._used = False
        self._memory.mark()

    def _due(self, work: Work) -> bool:
        """Whether to let somebody else have the device before this work."""
        if self._turn is None or not self._used:
            return False
        if self._crew.engine == work.engine_key and self._turn.held_s < _TURN_S:
            return False
        return not self._ending() and self._turn.wanted()

    def _say_waiting(self, text: str) -> None:
        self._screen.stage("waiting for", self._device.shown or "the device", 0.0)
        if text not in self._said:  # two sweeps that take turns need not say so every time
            self._said.add(text)
            self._screen.note(text)

    def _kind(self, work: Work) -> str | None:
        """The GPU model whose memory the work needs; None for the host's."""
        return environment.gpu(self._device.uuid)["gpu"] if _on_gpu(work) else None


def _on_gpu(work: Work) -> bool:
    return registry.get(work.variant.backend).on_gpu


def _locked(work: Work, device: Device) -> str | None:
    """The name of what the work has to have for itself; None where it computes nothing."""
    backend = registry.get(work.variant.backend)
    if backend.on_gpu:
        return f"gpu-{device.uuid or 'any'}"
    return "cpu" if backend.runs_models else None


def _alone(work: Work, repeat: int, ask: Callable[[Work, int | None], Outcome]) -> Outcome:
    return ask(work, repeat)

"""Measure on one device: which pass of which variant comes next on it, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.backends import registry
from sweep.runner import plan
from sweep.runner.device_access import DeviceAccess
from sweep.runner.drift_sentinel import Sentinel
from sweep.runner.job_client import JobClient
from sweep.runner.monitored_pass import PassMonitor
from sweep.runner.pass_order import PassOrder
from sweep.runner.pass_samples import PassSamples
from sweep.runner.record_finisher import RecordFinisher
from sweep.runner.worker_pool import WorkerPool
from sweep.storage import Store
from sweep.system import Memory, Stopwatch, environment, signals

if TYPE_CHECKING:
    from sweep.runner.plan import Work
    from sweep.runner.progress import Screen
    from sweep.runner.work_queue import Group, Groups, Sweep
    from sweep.runner.worker_process import Outcome
    from sweep.system import Device


class DeviceRunner:
    """Measure groups on one device, one after the other, in the thread that runs it.

    Args:
        device: what it measures on.
        number: number of the device runner; -1 where it is the only one.
        sweep: what it shares with others.
        screen: what the user sees of it.

    Attributes:
        works: the work that it took from the queue.
    """

    def __init__(self, device: Device, number: int, sweep: Sweep, screen: Screen) -> None:
        settings = sweep.settings
        self._device = device
        self._sweep = sweep
        self._settings = settings
        self._screen = screen
        self._samples = PassSamples(Store(settings.root))
        self._pool = WorkerPool(settings, environment=device.environment, cores=device.cores)
        self._jobs = JobClient(settings, self._pool, self._samples, screen)
        self._monitor = PassMonitor(settings, self._samples, screen, device.uuid)
        self._memory = Memory(device.uuid, screen.note)
        self._access = DeviceAccess(device, settings, screen, self._pool, self._memory)
        place = None if number < 0 else (number, device.uuid or "")
        self._sentinel = Sentinel(sweep.sentinel, settings, self._jobs.run_sentinel, place)
        self._records = RecordFinisher(sweep, screen, self._sentinel, device.uuid)
        self._order = PassOrder(self._ending)
        self.works: list[Work] = []

    @property
    def unsettled(self) -> list[str]:
        """Return the keys of its records whose drift is not judged yet."""
        return self._records.unsettled

    def run(self, groups: Groups) -> None:
        """Take groups while there are any, then do the later passes of the work that was taken.

        Raises:
            BusyError: another process kept the device for longer than the user would wait.
            KeyboardInterrupt: stop now.
        """
        try:
            while not self._ending() and (coming := groups.peek()) is not None:
                self._access.acquire(coming.first, self._ending)
                group = groups.take()
                if group is not None:
                    self.works += group.works
                    self._run_group(group)
            later = [item for item in plan.passes(self.works, self._settings.seed) if item[1] > 0]
            for work, repeat in self._order.through(later):
                self._step(work, repeat)
            if self.works and not self._ending():
                self._run_sentinel()
        finally:
            self._pool.close()
            self._access.release()
            self._jobs.close()
            self._monitor.close()

    def _run_group(self, group: Group) -> None:
        """Run the searches of a group, and the first passes."""
        self._order.add(group.works)
        for work in group.searches:
            if not self._ending():
                self._search(work)
        for work in group.profiles:
            if not self._ending():
                self._profile_layers(work)
        for work, repeat in self._order.through((work, 0) for work in group.works):
            self._step(work, repeat)

    def _ending(self) -> bool:
        return signals.arrived() or self._sweep.halted()

    def _step(self, work: Work, repeat: int) -> None:
        """Run a pass, unless the variant is over; the sentinel before it where one is due."""
        if not self._order.is_dropped(work):
            if self._sentinel.due():
                self._run_sentinel()
            if not self._run_pass(work, repeat):
                self._order.drop(work)
        if self._order.finish(work):
            self._jobs.release(work)

    def _run_sentinel(self) -> None:
        if self._sentinel.work is not None:
            signals.raise_if_now()
            self._access.acquire(self._sentinel.work, self._ending)
        problem = self._sentinel.run()
        if problem:
            self._kill_workers()
            self._screen.note(problem)
        self._records.settle()

    def _run_pass(self, work: Work, repeat: int) -> bool:
        """Run one pass; return whether the variant goes on."""
        signals.raise_if_now()
        self._screen.variant(work.label)
        cause = None if repeat else self._sweep.pruning.cause(work.variant, self._gpu_model(work))
        if cause is not None:
            self._screen.passed()
            self._records.write_pruned(work, cause)
            return False
        self._access.acquire(work, self._ending)
        if repeat == 0:
            self._samples.clear(work)
            self._records.begin(work)
        self._samples.begin(work, repeat, self._sentinel.interval)
        with self._records.timed(work):
            outcome = self._monitor.measure(work, repeat, self._jobs.run_pass)
        self._access.mark_used()
        self._screen.passed()
        if outcome.status != "ok":
            self._fail(work, outcome)
            return False
        self._records.add_start(work, repeat, outcome)
        if repeat == work.variant.load.passes - 1:
            self._finish(work, outcome)
        return True

    def _fail(self, work: Work, outcome: Outcome) -> None:
        """End a variant whose pass ended badly: new workers for the next one, and the variant's record."""
        self._kill_workers()
        self._samples.clear(work)
        if outcome.status == "oom" and self._settings.prune:
            self._sweep.pruning.ran_out(work.variant, self._gpu_model(work))
        self._records.write_failed(work, self._jobs.credited(outcome))

    def _finish(self, work: Work, outcome: Outcome) -> None:
        """End a variant that has all of its passes."""
        points = self._samples.save(work)
        self._monitor.save(work)
        Store(self._settings.root).layers_path(work.key).unlink(missing_ok=True)  # of an earlier measurement
        if self._records.write_measured(work, self._jobs.credited(outcome), points):
            self._search(work)
        self._samples.clear(work)
        if self._records.awaits_layers(work):
            try:
                self._profile_layers(work)
            finally:
                self._records.show_profiled(work)

    def _search(self, work: Work) -> None:
        """Search the capacity at the SLO."""
        signals.raise_if_now()
        self._screen.variant(work.label)
        self._access.acquire(work, self._ending)
        watch = Stopwatch()
        self._samples.clear(work)
        outcome = self._jobs.run_search(work)
        self._access.mark_used()
        self._screen.passed()
        if outcome.status != "ok":
            self._kill_workers()
        probes = self._samples.load(work, None) if outcome.status == "ok" else []
        self._records.write_searched(work, outcome, probes, watch.seconds())
        self._samples.clear(work)

    def _profile_layers(self, work: Work) -> None:
        """Profile the layers of an engine, now that nothing of its variant is left to be measured.

        The record stands whatever becomes of the profile. On a GPU the worker ends with it: what a profiler leaves in
        a process is in no later measurement.
        """
        signals.raise_if_now()
        self._screen.variant(work.label)
        self._access.acquire(work, self._ending)
        on_gpu = _on_gpu(work)
        device = environment.gpu(self._device.uuid)["gpu"] if on_gpu else environment.machine()["cpu"]
        outcome = self._jobs.run_layers(work, device)
        self._access.mark_used()
        self._screen.passed()
        if outcome.status != "ok":
            self._kill_workers()
            reason = outcome.error["message"] if outcome.error else outcome.status
            self._screen.note(f"{work.label}: its layers are not profiled: {reason}")
            return
        self._records.add_layers(work)
        if on_gpu:
            self._pool.end(at_once=False)

    def _kill_workers(self) -> None:
        """Kill the workers, and wait until the GPU's memory that they held is free again."""
        self._pool.end(at_once=True)
        self._memory.wait()

    def _gpu_model(self, work: Work) -> str | None:
        """Return the GPU model whose memory `work` needs; None for the host's."""
        return environment.gpu(self._device.uuid)["gpu"] if _on_gpu(work) else None


def _on_gpu(work: Work) -> bool:
    return registry.get(work.variant.backend).on_gpu

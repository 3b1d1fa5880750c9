"""Execute a plan: hand its groups to device runners, and settle the verdicts that they leave open."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from sweep.analysis import drift
from sweep.backends import registry
from sweep.errors import BusyError
from sweep.runner import drift_sentinel, plan, record_builder
from sweep.runner.device_runner import DeviceRunner
from sweep.runner.oom_pruning import Pruning
from sweep.runner.work_queue import Group, Queue, Sweep, grouped
from sweep.storage import Store
from sweep.system import devices as machine
from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.runner.plan import Plan, Work
    from sweep.runner.progress import Display
    from sweep.spec import Settings
    from sweep.storage import Record
    from sweep.system import Device

_POLL_S = 0.2


class Run:
    """Execute a plan.

    Args:
        work_plan: what to do.
        settings: settings of the sweep.
        display: what the user sees.
        finished: called with each record once it is on disk; never while anything is measured.
        devices: the GPUs, a device runner each; None finds those that the settings ask for.
        pruning: what ran out of memory at an earlier start.
    """

    def __init__(
        self,
        work_plan: Plan,
        settings: Settings,
        display: Display,
        finished: Callable[[Record], None],
        devices: Sequence[Device] | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        self._plan = work_plan
        self._settings = settings
        self._display = display
        self._finished = finished
        self._devices = devices
        self._pruning = pruning or Pruning()
        self._profiled: frozenset[str] = frozenset()

    def execute(self, todo: Sequence[Work], searches: Sequence[Work] = (), profiles: Sequence[Work] = ()) -> None:
        """Measure ``todo``, search the capacity of ``searches``, and profile the layers of ``profiles``.

        A variant that ends badly does not stop the others.

        A variant is searched right after its last pass; one that has its record already, before its group.

        Raises:
            BusyError: another process kept a device for longer than the user would wait.
            KeyboardInterrupt: an interrupt arrived; the variant that was measured has its record, unless it said to
                stop now.
        """
        for work in self._plan.works:
            if work.unsupported is not None:
                record = record_builder.unsupported(work, self._settings)
                Store(self._settings.root).write(record)
                self._display.finished(record)
                self._finished(record)
        groups = grouped(plan.round_order(todo, self._settings.seed, 0), searches, profiles)
        self._profiled = frozenset(work.key for work in profiles)
        with signals.patient(self._note_patience):
            unsettled = self._measure(groups, frozenset(work.key for work in searches))
        self._settle(unsettled)

    def _measure(self, groups: Sequence[Group], searched: frozenset[str]) -> list[str]:
        """Measure every group on some device; return the keys of the records whose drift is open."""
        devices = self._devices
        if devices is None:
            devices = machine.find_devices(self._settings.gpus) if any(map(_on_gpu, groups)) else (machine.Device(),)
        if len(devices) == 1:
            return self._run_on(devices, groups, searched)
        gpu_groups = [group for group in groups if _on_gpu(group)]
        cpu_groups = [group for group in groups if not _on_gpu(group)]  # cores: not while GPUs are measured
        unsettled = self._run_on(devices, gpu_groups, searched)
        return unsettled + self._run_on((machine.Device(),), cpu_groups, searched)

    def _run_on(self, devices: Sequence[Device], groups: Sequence[Group], searched: frozenset[str]) -> list[str]:
        """Run these groups on these devices: in this thread for one, in a thread each for several."""
        queue = Queue(groups)
        if len(devices) == 1:
            sweep = self._sweep(queue, searched, self._plan.sentinel, self._finished)
            runners = [DeviceRunner(devices[0], -1, sweep, self._display)]
            runners[0].run(queue)
        else:
            records: list[Record] = []
            sweep = self._sweep(queue, searched, self._first_on_gpu(), records.append)
            runners = [
                DeviceRunner(device, number, sweep, self._display.device_line(device.shown))
                for number, device in enumerate(devices)
            ]
            try:
                side_by_side(runners, queue)
            finally:
                for record in records:  # publishing beside a measurement would disturb it
                    self._finished(record)
        return [key for runner in runners for key in runner.unsettled]

    def _first_on_gpu(self) -> Work | None:
        """Return the sentinel of device runners side by side: the same variant on each."""
        if self._plan.sentinel is None:
            return None
        return next(plan.sentinel_of(work) for work in self._plan.runnable if _uses_gpu(work))

    def _sweep(
        self, queue: Queue, searched: frozenset[str], sentinel_work: Work | None, finished: Callable[[Record], None]
    ) -> Sweep:
        return Sweep(
            settings=self._settings,
            searched=searched,
            sentinel=sentinel_work,
            pruning=self._pruning,
            finished=finished,
            halted=queue.halted,
            profiled=self._profiled,
        )

    def _settle(self, unsettled: Sequence[str]) -> None:
        """Judge drift again, now that every sentinel interval has its end; records that wait for that are finished."""
        levels = drift.levels(Store(self._settings.root))
        keys = [work.key for work in self._plan.works] if levels else unsettled
        for record in drift_sentinel.settle(Store(self._settings.root), keys, levels):
            if record.key in unsettled:
                self._finished(record)

    def _note_patience(self) -> None:
        self._display.note("stopping after this variant; Ctrl-C again stops now")


def side_by_side(runners: Sequence[DeviceRunner], queue: Queue) -> None:
    """Run each device runner in a thread of its own; raise what the first of them raised, once all have ended.

    A device that stays busy costs its own runner alone, as long as the others do all of the work.
    """
    failures: list[tuple[DeviceRunner, BaseException]] = []

    def work(runner: DeviceRunner) -> None:
        try:
            runner.run(queue)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append((runner, error))
            if not isinstance(error, BusyError):
                queue.halt()

    threads = [threading.Thread(target=work, args=(runner,), name=f"device {n}") for n, runner in enumerate(runners)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_POLL_S)  # a signal is handled in between
    finally:
        for (
            thread
        ) in threads:  # an interrupt that says now: each device runner sees it within a second, and ends its workers
            with contextlib.suppress(KeyboardInterrupt):
                thread.join()
    fatal = [error for _, error in failures if not isinstance(error, BusyError)]
    blocking = [error for runner, error in failures if runner.works or len(queue)]
    for error in (*fatal, *blocking):
        raise error


def _on_gpu(group: Group) -> bool:
    return _uses_gpu(group.first)


def _uses_gpu(work: Work) -> bool:
    return registry.get(work.variant.backend).on_gpu

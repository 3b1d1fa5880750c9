"""Build the engines of a plan into the cache, and measure nothing (``build_only=true``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.runner.device_access import DeviceAccess
from sweep.runner.job_client import JobClient
from sweep.runner.pass_samples import PassSamples
from sweep.runner.work_queue import grouped
from sweep.runner.worker_pool import WorkerPool
from sweep.storage import Store
from sweep.system import Memory, Stopwatch, signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.runner.plan import Plan, Work
    from sweep.runner.progress import Screen
    from sweep.runner.worker_process import Outcome
    from sweep.spec import Settings
    from sweep.system import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuild:
    """Describe how the build of one engine ended.

    Attributes:
        works: the variants that share the engine, in the plan's order.
        outcome: of the request to build it; its result names the engine in the cache.
        wall_s: duration with the start of the process and the conversion of the graph, s.
    """

    works: tuple[Work, ...]
    outcome: Outcome
    wall_s: float


def build(work_plan: Plan, settings: Settings, screen: Screen, device: Device) -> Iterator[EngineBuild]:
    """Build every engine that the runnable variants of a plan need, one after the other; yield each once it ended.

    An engine that is in the cache already is not built again. One that does not build does not stop the others.

    Args:
        work_plan: the plan.
        settings: settings of the sweep.
        screen: shows the stages of each build.
        device: to build on; its lock is held meanwhile, because builders time kernels.

    Raises:
        BusyError: another process kept the device for longer than the user would wait.
        KeyboardInterrupt: an interrupt arrived; the engines that were built stay in the cache.
    """
    pool = WorkerPool(settings, environment=device.environment, cores=device.cores)
    jobs = JobClient(settings, pool, PassSamples(Store(settings.root)), screen)
    memory = Memory(device.uuid, screen.note)
    access = DeviceAccess(device, settings, screen, pool, memory)
    try:
        for group in grouped(work_plan.runnable):
            if signals.arrived():
                raise KeyboardInterrupt
            screen.variant(group.first.label)
            access.acquire(group.first, signals.arrived)
            watch = Stopwatch()
            outcome = jobs.run_build(group.first)
            access.mark_used()
            screen.passed()
            if outcome.status != "ok":
                pool.end(at_once=True)
                memory.wait()
            yield EngineBuild(works=group.works, outcome=outcome, wall_s=watch.seconds())
    finally:
        pool.close()
        access.release()
        jobs.close()

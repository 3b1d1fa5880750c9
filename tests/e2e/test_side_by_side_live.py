"""Networks side by side for real: alone and beside another on one core, in processes and in one, and what ends them."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import factories
import passes
import psutil
import pytest

import sweep
from sweep.report import html
from sweep.runner import messages
from sweep.runner.client_group import ClientGroup
from sweep.runner.worker_process import Worker
from sweep.spec import LoadAxes, side_by_side
from sweep.storage import Store, samples_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Cli

    from sweep.runner.worker_process import Outcome
    from sweep.spec import Variant

pytestmark = pytest.mark.e2e

CLOSED = LoadAxes(kind="closed", depth=1, warmup_s=0.05, min_s=0.4, min_requests=50, max_s=3.0)
ALONE = factories.variant("mlp", load=CLOSED)
OTHER = factories.variant("tiny_cnn", load=CLOSED)
NAMES = ("mlp", "tiny_cnn-fp32-b1 (beside it)")


class Processes:
    """Two workers on one core.

    Args:
        folder: where they work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        core = [min(os.sched_getaffinity(0))]
        self.workers = [Worker(folder / f"{number}.log", cores=core) for number in range(2)]

    def run(self, variant: Variant, count: int, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Measure on the first `count` workers; `meanwhile` is called 0.2 s after the first point began."""
        timers: list[threading.Timer] = []

        def on_event(event: messages.AnyEvent) -> None:
            if meanwhile and isinstance(event, messages.Stage) and event.stage == "measure" and not timers:
                timers.append(threading.Timer(0.2, meanwhile))
                timers[0].start()

        group = ClientGroup(self.workers[:count], NAMES if count > 1 else None)
        return group.run(passes.request(variant, self.folder, accuracy=False), on_event, 60)

    def rate(self) -> float:
        """Return the throughput of the pass that was just measured."""
        (point,) = samples_file.load(self.folder / "s.npz")
        return sweep.analysis.window_ips(point) or 0.0


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    ClientGroup(made.workers).end(at_once=True)


@pytest.mark.alone
def test_a_network_is_slower_beside_another_that_ran_in_all_of_its_windows_and_dies_with_it(
    processes: Processes,
) -> None:
    assert processes.run(ALONE, 1).status == "ok"
    alone = processes.rate()
    for sharing, count in (("streams", 1), ("processes", 2)):
        outcome = processes.run(side_by_side.beside(ALONE, [OTHER], sharing), count)
        assert outcome.status == "ok", outcome.error
        assert outcome.result
        assert outcome.result.realised
        assert processes.rate() < 0.8 * alone, "the core is shared"
        (other,) = outcome.result.realised["beside"]
        (window,) = other["windows"]
        assert (other["name"], other["mismatch"]) == ("tiny_cnn-fp32-b1", None)
        assert window["overlap"] == 1.0
        assert window["requests"] >= 20
    assert sorted(path.name for path in processes.folder.glob("s.npz*")) == ["s.npz"]

    load = dataclasses.replace(CLOSED, min_s=20.0, max_s=20.0)
    start, dead = time.monotonic(), processes.workers[1].pid
    beside = side_by_side.beside(dataclasses.replace(ALONE, load=load), [OTHER], "processes")
    outcome = processes.run(beside, 2, lambda: os.kill(dead, signal.SIGKILL))
    assert outcome.status == "crashed"
    assert outcome.error
    assert outcome.error["message"].startswith("tiny_cnn-fp32-b1 (beside it): the worker was killed by SIGKILL")
    assert time.monotonic() - start < 15, "nobody waits for the end of the window"
    assert not any(
        psutil.pid_exists(worker.pid) and psutil.Process(worker.pid).status() != psutil.STATUS_ZOMBIE
        for worker in processes.workers
    )


def test_scripted_interference_is_found_to_the_last_digit(cli: Cli) -> None:
    """`mlp` slows others by half, `tiny_cnn` threefold; under shares each takes 100 / share times as long."""
    script = "backend.script.service_us:90,backend.script.sample_us:10"
    done = cli.run(
        "backend=simulated",
        f"together=[{{model:mlp,{script},backend.script.slows:1.5,slo:{{p99_ms:0.25}}}},"
        f"{{model:tiny_cnn,{script},backend.script.slows:3,slo:{{p99_ms:0.25}}}}]",
        "sharing=streams,mps:50/50,mps:80/20",
        *("load=closed", "load.depth=1", "load.warmup_s=0.02", "load.min_s=0.1", "name=t"),
    )
    assert done.returncode == 0, done.stderr
    assert "beside mlp" in done.stdout
    assert "> mps:50/50: goodput 10,000 samples/s: mlp 5,000 (p99 <= 0.25 ms), tiny_cnn 5,000" in done.stdout
    assert (
        "Of 3 ways to share, sharing=mps:50/50 keeps every SLO of mlp and tiny_cnn at the most goodput" in done.stdout
    )
    frame = sweep.frame("t", results=cli.results)
    beside = frame[frame["sharing"].notna()].set_index(["model", "sharing"])
    expected = {
        ("mlp", "streams"): 3.0,
        ("tiny_cnn", "streams"): 1.5,
        ("mlp", "mps:50/50"): 2.0,
        ("tiny_cnn", "mps:50/50"): 2.0,
        ("mlp", "mps:80/20"): 1.25,
        ("tiny_cnn", "mps:20/80"): 5.0,
    }
    assert beside["slowdown_throughput"].to_dict() == pytest.approx(expected, rel=1e-3)
    assert beside["slowdown_p99"].to_dict() == pytest.approx(expected, rel=1e-3)
    assert frame["slowdown_p99"].isna().sum() == 2, "those alone"
    records = list(Store(cli.results / "t").readable())
    windows = [window for record in records for each in record.realised.get("beside", ()) for window in each["windows"]]
    assert len(windows) == 6
    assert all(window["overlap"] == 1.0 for window in windows)
    page = html.context("t", records)["side_by_side"]
    assert [matrix["fairness"] for matrix in page["matrices"]] == ["0.90", "1.00", "0.74"]
    assert {cell["heat"] for matrix in page["matrices"] for row in matrix["rows"] for cell in row["cells"]} == {
        *(None, 1.0, 0.25, 0.5, 0.12),
    }

"""Several clients for real: processes that share this machine's cores, meet, are stopped and killed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import passes
import psutil
import pytest
from conftest import QUICK, Cli

from sweep import models
from sweep.analysis import fairness, measured_window
from sweep.cli import commands
from sweep.runner import messages
from sweep.runner.client_group import ClientGroup
from sweep.runner.worker_process import Worker
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.storage import samples, samples_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sweep.runner.worker_process import Outcome

pytestmark = pytest.mark.e2e

CONSTANT = LoadAxes(kind="constant", rates_ips=(400.0,), warmup_s=0.2, min_s=1.5, min_requests=500, max_s=5.0)
CLOSED = LoadAxes(kind="closed", depth=1, warmup_s=0.1, min_s=0.5, min_requests=100, max_s=5.0)


def job(folder: Path, load: LoadAxes, clients: int = 2) -> messages.Request:
    made = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(
            model=ModelRef(name="mlp", revision=models.zoo.entry("mlp").revision),
            precision=Precision(name="fp32", dtype="fp32"),
        ),
        engine=EngineAxes(batch=1),
        session=SessionAxes(clients=clients),
        load=load,
    )
    return passes.request(made, folder)


class Clients:
    """Two workers of one client group.

    Args:
        folder: where they work.

    Attributes:
        pids: of the clients.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        workers = [Worker(folder / f"{number}.log") for number in range(2)]
        self.pids = [worker.pid for worker in workers]
        self.group = ClientGroup(workers)

    def run(self, load: LoadAxes, meanwhile: Callable[[], None] = lambda: None, timeout_s: float = 60) -> Outcome:
        """Measure; ``meanwhile`` is called half a second after the point began."""
        threads: list[threading.Timer] = []

        def on_event(event: messages.AnyEvent) -> None:
            if isinstance(event, messages.Stage) and event.stage == "measure" and not threads:
                threads.append(threading.Timer(0.5, meanwhile))
                threads[0].start()

        outcome = self.group.run(job(self._folder, load), on_event, timeout_s)
        for thread in threads:
            thread.join()
        return outcome

    def measured(self) -> samples.PointSamples:
        (point,) = samples_file.load(self._folder / "s.npz")
        return point


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def clients(folder: Path) -> Iterator[Clients]:
    """Those of the tests that leave them alive."""
    made = Clients(folder)
    yield made
    made.group.end(at_once=False)
    assert not any(psutil.pid_exists(pid) for pid in made.pids)


@pytest.fixture
def doomed(folder: Path) -> Iterator[Clients]:
    """Clients of a test's own: one of them ends badly, and then none may be left."""
    made = Clients(folder)
    yield made
    made.group.end(at_once=True)
    assert not any(psutil.pid_exists(pid) for pid in made.pids)


def stopped(pid: int, seconds: float, times: int = 1) -> Callable[[], None]:
    """Stops the process for so long, every so often."""

    def stop() -> None:
        for _ in range(times):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
            time.sleep(seconds)

    return stop


def skews_ms(point: samples.PointSamples, clients: int) -> list[float]:
    """Of each stretch of a closed loop: from the first request of one client to the first of the last one."""
    order = np.argsort(point.issued_ns)
    issued, client = point.issued_ns[order], point.client[order]
    edges = [0, *(np.flatnonzero(np.diff(issued) > 15e6) + 1), len(issued)]  # they agree on starts 20 ms ahead
    firsts = [
        [issued[begin:end][client[begin:end] == number][:1] for number in range(clients)]
        for begin, end in itertools.pairwise(edges)
    ]
    return [float(np.ptp(np.concatenate(first))) / 1e6 for first in firsts if all(map(len, first))]


@pytest.mark.alone
def test_clients_start_together_split_the_load_and_leave_nothing_behind(clients: Clients, folder: Path) -> None:
    outcome = clients.run(CLOSED)
    assert outcome.status == "ok", outcome.error
    assert outcome.result
    assert len(outcome.result.realised["clients"]) == 2
    assert outcome.result.accuracy["note"] == "the worst of 2 clients"
    assert np.median(skews_ms(clients.measured(), 2)) < 12, "each by itself, stretches would begin tens of ms apart"
    assert clients.run(CONSTANT).status == "ok"
    point = clients.measured()
    assert [int((point.client == number).sum()) for number in (0, 1)] == [340, 340]
    assert point.offered_rps == 400.0
    each = fairness.shared([point])["clients"]
    assert sum(item["achieved_ips"] for item in each) == pytest.approx(measured_window.window_ips(point))
    assert sorted(path.name for path in folder.glob("s.npz*")) == ["s.npz"]


@pytest.mark.alone
def test_a_client_that_stands_still_for_a_while_shows(clients: Clients) -> None:
    assert clients.run(CONSTANT, stopped(clients.pids[1], 0.2)).status == "ok"
    point = clients.measured()
    own = [point.latency_ms[point.client[point.measured] == number] for number in (0, 1)]
    assert own[1].max() > 190
    assert np.count_nonzero(own[1] > 20) >= 30, "what arrived meanwhile (200 a second for 0.2 s) waited, and counts"
    assert np.count_nonzero(own[0] > 20) < np.count_nonzero(own[1] > 20) / 2


@pytest.mark.alone
def test_a_closed_loop_counts_the_window_of_all_with_the_pauses_of_one_in_it(clients: Clients) -> None:
    load = dataclasses.replace(CLOSED, warmup_s=0.1, min_s=1.5, max_s=1.5)
    assert clients.run(load, stopped(clients.pids[1], 0.2, times=8)).status == "ok"
    point = clients.measured()
    start, end = measured_window.window(point)
    assert end - start > 1e9
    shared = fairness.shared([point])
    first, second = (item["achieved_ips"] for item in shared["clients"])
    assert second < 0.8 * first
    assert first + second == pytest.approx(measured_window.window_ips(point))
    assert shared["fairness"]["jain"] < 0.99


@pytest.mark.fault
def test_death_of_one_client_ends_the_variant_with_its_name_and_no_other_waits(doomed: Clients) -> None:
    start = time.monotonic()
    outcome = doomed.run(CONSTANT, lambda: os.kill(doomed.pids[1], signal.SIGKILL))
    assert outcome.status == "crashed"
    assert outcome.error
    assert outcome.error["message"].startswith("client 2 of 2: the worker was killed by SIGKILL")
    assert outcome.error["stage"] == "measure"
    assert time.monotonic() - start < 20


@pytest.mark.fault
def test_a_client_that_hangs_ends_the_variant_with_its_name(doomed: Clients) -> None:
    outcome = doomed.run(CONSTANT, lambda: os.kill(doomed.pids[0], signal.SIGSTOP), timeout_s=4)
    assert outcome.status == "timeout"
    assert outcome.error
    assert outcome.error["message"].startswith("client 1 of 2: nothing was heard from the worker for 4 s")


@pytest.mark.fault
def test_an_error_of_one_client_is_told_with_its_name(doomed: Clients, folder: Path) -> None:
    load = dataclasses.replace(CONSTANT, kind="trace", trace=str(folder / "gone.csv"))
    outcome = doomed.run(load)
    assert outcome.status == "failed"
    assert outcome.error
    assert outcome.error["message"].startswith(("client 1 of 2: load.trace=", "client 2 of 2: load.trace="))
    assert outcome.error["kind"] == "LoadError"


def test_a_sweep_over_clients_builds_once_keeps_totals_and_each_client_and_its_bytes(cli: Cli) -> None:
    words = ("backend=onnxruntime", "model=mlp", "clients=2,1", "slo.p99_ms=50", "slo.search_s=2")
    done = cli.run("-m", *words, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    (store,) = cli.stores()
    alone, shared = sorted(cli.records(), key=lambda made: made.variant["clients"])
    assert (alone.status, shared.status) == ("ok", "ok")
    assert "clients" not in alone.peak
    assert "clients" not in alone.realised
    parts = [shared.peak, *shared.points]
    assert [len(part["clients"]) for part in parts] == [2] * 3
    for part in shared.points:
        assert sum(item["achieved_ips"] for item in part["clients"]) == pytest.approx(part["achieved_ips"])
        assert sum(item["requests"] for item in part["clients"]) == part["requests"]
    assert (shared.engine["cached"], alone.engine["cached"]) == (False, True)
    assert shared.engine["key"] == alone.engine["key"]
    assert [item["sm_count"] for item in shared.realised["clients"]] == [None, None]
    assert shared.slo["probes"]
    assert all(point.client is not None for point in samples_file.load(store.samples_path(shared.key)))
    assert commands.main(["recompute", str(store.root)]) == 0
    assert not list((store.root / "parts").glob("*"))
    logs = sorted(path.name.partition("-")[2] for path in (store.root / "logs").iterdir())
    assert logs == ["", "client1.log", "client2.log"]

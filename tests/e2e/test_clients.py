"""Several clients for real: processes that share this machine's cores, meet, are stopped and killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from conftest import QUICK, Cli

from sweep import fairness, models, plain, restat, samples, summary
from sweep.axes import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.party import Party
from sweep.pool import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sweep.axes import JsonDict
    from sweep.pool import Outcome

pytestmark = pytest.mark.e2e

CONSTANT = LoadAxes(kind="constant", rates_ips=(400.0,), warmup_s=0.2, min_s=1.5, min_requests=500, max_s=5.0)
CLOSED = LoadAxes(kind="closed", depth=1, warmup_s=0.1, min_s=0.5, min_requests=100, max_s=5.0)


def job(folder: Path, load: LoadAxes, clients: int = 2) -> JsonDict:
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
    paths = {"cache": str(folder / "cache"), "samples": str(folder / "s.npz")}
    return {"variant": plain.to_plain(made), "repeat": 0, "rates_ips": None, **paths}


class Clients:
    """Two workers; the engine is in the cache already.

    Attributes:
        pids: of the clients.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        workers = [Worker(folder / f"{number}.log") for number in range(2)]
        self.pids = [worker.pid for worker in workers]
        self.party = Party(workers)
        self.done = self.party.run(job(folder, dataclasses.replace(CLOSED, min_s=0.05)), lambda _: None, 120)

    def run(self, load: LoadAxes, meanwhile: Callable[[], None] = lambda: None, timeout_s: float = 60) -> Outcome:
        """Measure; ``meanwhile`` is called half a second after the first point began."""
        threads = []

        def on_event(event: JsonDict) -> None:
            if event["event"] == "stage" and event["stage"] == "measure" and not threads:
                threads.append(threading.Timer(0.5, meanwhile))
                threads[0].start()

        return self.party.run(job(self._folder, load), on_event, timeout_s)

    def measured(self) -> samples.PointSamples:
        (point,) = samples.load(self._folder / "s.npz")
        return point


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    made = Clients(tmp_path)
    assert made.done.status == "ok", made.done.error
    yield made
    made.party.leave(at_once=True)
    assert not any(psutil.pid_exists(pid) for pid in made.pids)


def test_clients_start_together_split_the_load_and_leave_nothing_behind(clients: Clients, tmp_path: Path) -> None:
    outcome = clients.run(CLOSED)
    assert outcome.status == "ok", outcome.error
    assert len(outcome.result["realised"]["clients"]) == 2
    assert outcome.result["accuracy"]["note"] == "the worst of 2 clients"
    point = clients.measured()
    last_warm = max(point.issued_ns[point.warmup & (point.issued_ns < point.issued_ns[point.measured].min())])
    starts = [int(point.issued_ns[(point.client == number) & (point.issued_ns > last_warm)].min()) for number in (0, 1)]
    assert abs(starts[0] - starts[1]) < 10e6, "the measured windows begin 10 ms apart"
    assert clients.run(CONSTANT).status == "ok"
    point = clients.measured()
    assert [int((point.client == number).sum()) for number in (0, 1)] == [340, 340]
    assert point.offered_rps == 400.0
    each = fairness.shared([point])["clients"]
    assert sum(item["achieved_ips"] for item in each) == pytest.approx(summary.window_ips(point))
    assert sorted(path.name for path in tmp_path.glob("s.npz*")) == ["s.npz"]


def test_a_client_that_stands_still_for_a_while_shows(clients: Clients) -> None:
    assert clients.run(CONSTANT, pause_of(clients.pids[1], 0.2)).status == "ok"
    point = clients.measured()
    slowest = [float(point.latency_ms[point.client[point.measured] == number].max()) for number in (0, 1)]
    assert slowest[1] > 190
    late = np.count_nonzero(point.latency_ms[point.client[point.measured] == 1] > 20)
    assert late >= 30, "all that arrived meanwhile (200 a second for 0.2 s) waited, and that counts"
    assert slowest[0] < slowest[1] - 50


def test_a_closed_loop_counts_the_window_of_all_with_the_pause_in_it(clients: Clients) -> None:
    assert (
        clients.run(dataclasses.replace(CLOSED, warmup_s=0.1, min_s=2.0), pause_of(clients.pids[1], 0.8)).status == "ok"
    )
    point = clients.measured()
    start, end = summary.window(point)
    assert end - start > 1.5e9
    (first, second) = fairness.shared([point])["clients"]
    assert second["achieved_ips"] < 0.8 * first["achieved_ips"]
    assert fairness.unfair(fairness.shared([point]))


def pause_of(pid: int, seconds: float) -> Callable[[], None]:
    def pause() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    return pause


@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_one_client_ends_the_variant_with_its_name_and_no_other_waits(clients: Clients, victim: int) -> None:
    start = time.monotonic()
    outcome = clients.run(CONSTANT, lambda: os.kill(clients.pids[victim], signal.SIGKILL))
    assert outcome.status == "crashed"
    assert outcome.error["message"].startswith(f"client {victim + 1} of 2: the worker was killed by SIGKILL")
    assert outcome.error["stage"] == "measure"
    assert time.monotonic() - start < 20


def test_a_client_that_hangs_ends_the_variant_with_its_name(clients: Clients) -> None:
    outcome = clients.run(CONSTANT, lambda: os.kill(clients.pids[1], signal.SIGSTOP), timeout_s=4)
    assert outcome.status == "timeout"
    assert outcome.error["message"].startswith("client 2 of 2: nothing was heard from the worker for 4 s")


def test_an_error_of_one_client_is_told_once_with_its_name(tmp_path: Path) -> None:
    """Client 2 cannot read the model: its own word, and the other does not wait for it."""
    made = Clients(tmp_path)
    asked = job(tmp_path, CONSTANT)
    asked["variant"]["load"]["kind"] = "trace"
    asked["variant"]["load"]["trace"] = str(tmp_path / "gone.csv")
    outcome = made.party.run(asked, lambda _: None, 60)
    made.party.leave(at_once=True)
    assert outcome.status == "failed"
    assert outcome.error["message"].startswith(("client 1 of 2: load.trace=", "client 2 of 2: load.trace="))
    assert outcome.error["kind"] == "LoadError"


def test_a_sweep_over_clients_keeps_totals_each_client_and_its_bytes(cli: Cli) -> None:
    done = cli.run("-m", "backend=onnxruntime", "model=mlp", "clients=1,2", "load.points=3", *QUICK[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    (store,) = cli.stores()
    alone, shared = sorted(cli.records(), key=lambda made: made.variant["clients"])
    assert "clients" not in alone.peak
    assert "clients" not in alone.realised
    assert [len(part["clients"]) for part in (shared.peak, *shared.points)] == [2] * (1 + len(shared.points))
    for part in shared.points:
        assert sum(item["achieved_ips"] for item in part["clients"]) == pytest.approx(part["achieved_ips"])
    assert shared.engine["key"] == alone.engine["key"]
    assert shared.engine["cached"]
    assert [item["sm_count"] for item in shared.realised["clients"]] == [None, None]
    assert restat.main([str(store.root)]) == 0
    assert not list((store.root / "parts").glob("*"))
    names = {path.name for path in (store.root / "logs").iterdir()}
    assert {name.partition("-")[2] for name in names} == {"", "client1.log", "client2.log"} or len(names) == 3


def test_one_worker_builds_before_the_clients_start(cli: Cli) -> None:
    words = ("backend=onnxruntime", "model=mlp", "clients=2", "load=closed", "load.min_s=0.1", "load.warmup_s=0.05")
    done = cli.run(*words, "slo.p99_ms=50", "repeats=2")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = cli.records()
    assert made.status == "ok"
    assert made.engine["cached"] is False
    assert len(made.peak["passes_ips"]) == 2


def test_the_capacity_of_two_clients_is_searched_and_confirmed(cli: Cli) -> None:
    words = ("backend=onnxruntime", "model=mlp", "clients=2", "load.points=3", *QUICK[1:])
    done = cli.run(*words, "slo.p99_ms=20", "slo.search_s=4")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = cli.records()
    assert made.slo["probes"]
    (store,) = cli.stores()
    assert all(point.client is not None for point in samples.load(store.samples_path(made.key)))
    assert restat.main([str(store.root)]) == 0

"""A real MLflow server that is slow, answers 500s, or is killed in mid-publish; and one over PostgreSQL that dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow_store
import psutil
import pytest
import require
from mlflow_ui import SERVER_DB, mlflow_server
from postgres import Postgres, missing_postgres
from proxy import Behaviour, proxy
from records import point

from sweep.errors import TrackingError
from sweep.report.mlflow import Publisher
from sweep.report.mlflow.live import Publishing
from sweep.spec.settings import Settings, Tracking
from sweep.storage.record import Record
from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

COUNT = 16
LIMIT_S = 20.0
HALF = 50  # requests: more than half of those that the records take, eight at a time


def a_record(number: int) -> Record:
    return Record(
        key=f"k{number:02}",
        sweep="s",
        status="ok",
        started_at=f"2026-01-01T00:00:{number:02}.000+00:00",
        wall_s=1.0,
        variant={"label": f"v{number}", "batch": number, "backend": "simulated"},
        points=[point(10.0 * number, {"p50": 1.0})] * 3,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "s")
    for number in range(COUNT):
        made.write(a_record(number))
    return made


def records(store: Store) -> list[Record]:
    return list(store.readable())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_db: bytes) -> Path:
    made = tmp_path_factory.mktemp("server")
    (made / SERVER_DB).write_bytes(empty_db)
    return made


@pytest.fixture(scope="module")
def upstream(folder: Path) -> Iterator[str]:
    """A server of this module's own: the last test kills it."""
    with mlflow_server(folder) as url:
        yield url


def whole(uri: str, experiment: str) -> None:
    """Every record is there once, and finished."""
    client = mlflow_store.client(uri)
    found = client.get_experiment_by_name(experiment)
    assert found
    assert found.artifact_location.startswith("mlflow-artifacts:"), "a server chooses its own place"
    runs = client.search_runs([found.experiment_id])
    assert sorted(run.data.tags.get("sweep.key", "the sweep") for run in runs) == [
        *(f"k{number:02}" for number in range(COUNT)),
        "the sweep",
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_slow_server_gets_every_record(upstream: str, store: Store) -> None:
    with proxy(Behaviour(upstream, delay_s=0.05)) as url:
        assert Publisher(url, "slow", "s").publish(records(store), store).sent == COUNT
    whole(upstream, "slow")


def test_a_sweep_does_not_wait_again_for_a_server_that_was_slow(
    upstream: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between variants it is asked once; the rest goes at the end."""
    monkeypatch.setattr("sweep.report.mlflow.live._SLOW_S", 0.2)
    monkeypatch.setattr("sweep.report.mlflow.live._EVERY_S", 0.0)
    behaviour = Behaviour(upstream, delay_s=0.05)
    with proxy(behaviour) as url:
        settings = Settings(name=store.root.name, results=store.root.parent)
        publishing = Publishing(Tracking(uri=url, experiment="patient"), settings)
        publishing.finished(a_record(0))
        asked = behaviour.seen
        assert asked > 0
        for number in range(1, COUNT):
            publishing.finished(a_record(number))
        assert behaviour.seen == asked
        assert url in publishing.conclude(records(store))
    whole(upstream, "patient")


def test_500s_in_mid_publish_are_one_line_and_the_next_publish_completes(upstream: str, store: Store) -> None:
    behaviour = Behaviour(upstream, broken_after=HALF)
    with proxy(behaviour) as url:
        breaks_off(url, "broken", store)
        behaviour.broken_after = None
        completes(url, "broken", store)


def breaks_off(url: str, experiment: str, store: Store) -> None:
    """Publishing ends in one line, in time."""
    began = time.monotonic()
    with pytest.raises(TrackingError, match="they are safe on disk, publishing again sends them") as caught:
        Publisher(url, experiment, "s").publish(records(store), store)
    assert time.monotonic() - began < LIMIT_S
    assert "\n" not in str(caught.value)


def completes(url: str, experiment: str, store: Store) -> None:
    """The next publish fills up the same runs, and one more changes nothing."""
    sent = Publisher(url, experiment, "s").publish(records(store), store).sent
    assert 0 < sent < COUNT
    whole(url, experiment)
    assert Publisher(url, experiment, "s").publish(records(store), store).sent == 0


def server_group(url: str) -> int:
    """The process group of the server that listens there."""
    port = url.rpartition(":")[2]
    found = [process for process in psutil.Process().children() if port in process.cmdline()]
    assert len(found) == 1
    return found[0].pid


def test_a_server_killed_in_mid_publish_loses_nothing(upstream: str, folder: Path, store: Store) -> None:
    def kill(number: int) -> None:
        if number == HALF:
            os.killpg(server_group(upstream), signal.SIGKILL)

    behaviour = Behaviour(upstream, at=kill)
    with proxy(behaviour) as url:
        breaks_off(url, "killed", store)
        with mlflow_server(folder) as behaviour.target:
            completes(url, "killed", store)


def test_a_postgresql_that_crashes_in_mid_publish_loses_nothing(tmp_path: Path, store: Store) -> None:
    reason = missing_postgres()
    if reason is not None:
        require.missing("postgres", reason)
    made = tempfile.TemporaryDirectory(prefix="pg")  # pytest's own folders are closed to other users
    postgres = Postgres(Path(made.name))
    postgres.start()
    try:
        (tmp_path / "mlflow").mkdir()
        with mlflow_server(tmp_path / "mlflow", store=postgres.uri) as upstream:

            def crash(number: int) -> None:
                if number == HALF:
                    postgres.stop("immediate")

            with proxy(Behaviour(upstream, at=crash)) as url:
                breaks_off(url, "pg", store)
                postgres.start()
                completes(url, "pg", store)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may lie where it crashed
            postgres.stop("fast")
        made.cleanup()

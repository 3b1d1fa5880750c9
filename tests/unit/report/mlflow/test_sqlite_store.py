"""MLflow's sqlite store: made whole or not at all, replaced if it was left half made, and never a user's file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING

import mlflow_store
import pytest

from sweep.errors import ConfigError, TrackingBusyError, TrackingError
from sweep.report.mlflow import Publisher, client, default_uri, live, reachable, sqlite_store, without_password
from sweep.spec.settings import Settings, Tracking
from sweep.storage.record import Record
from sweep.storage.store import Store
from sweep.system import atomic_files, file_locks, lock_owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.fault

RECORD = Record(key="k", sweep="night", status="ok", started_at="2026-01-05T10:00:00+00:00", variant={"label": "a"})
EARLIER = "451aebb31d03"  # a revision of MLflow's schema; the next ones create what a whole store has already


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, empty_db: bytes) -> None:
    """Creating a store takes MLflow seconds: it is a copy of one that MLflow made."""
    for name, value in (client.ENVIRONMENT | client.SQLITE_ENVIRONMENT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "_make_store", lambda path: path.write_bytes(empty_db))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = Store(tmp_path / "night")
    folder.write(RECORD)
    return folder


def publish(store: Store) -> tuple[int, tuple[str, ...]]:
    outcome = Publisher(default_uri(store.root.parent), "sweep", "night").publish([RECORD], store)
    return outcome.sent, outcome.notes


def run_count(path: Path) -> int:
    return query(path, "SELECT count(*) FROM runs")


def query(path: Path, *commands: str) -> int:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        return [database.execute(command).fetchone() for command in commands][-1][0]


def half_made(path: Path, empty_db: bytes, *commands: str) -> None:
    """Write the store of a process that was killed while it made the table ``spans`` (MLflow's 38th step of 60)."""
    path.write_bytes(empty_db)
    query(
        path,
        *commands,
        "DROP TABLE webhooks",
        f"UPDATE alembic_version SET version_num = '{EARLIER}'",  # noqa: S608 - a constant
        "SELECT count(*) FROM spans",
    )


def names(folder: Path) -> list[str]:
    """Return what lies beside the store, except its lock and the sweep."""
    return sorted({path.name for path in folder.iterdir()} - {".mlflow.db.lock", "night", "mlartifacts"})


@pytest.mark.usefixtures("make")
def test_a_half_made_store_that_mlflow_cannot_open_is_replaced(store: Store, empty_db: bytes) -> None:
    path = store.root.parent / "mlflow.db"
    half_made(path, empty_db)
    with pytest.raises(Exception, match="already exists"):
        mlflow_store.client(default_uri(store.root.parent)).search_experiments()
    half_made(path, empty_db)
    sent, notes = publish(store)
    assert (sent, run_count(path), names(path.parent)) == (1, 2, ["mlflow.db"])
    assert notes == (f"MLflow's store {path} was half made and held nothing: a new one replaces it",)
    assert publish(store) == (0, ())


@pytest.mark.usefixtures("make")
def test_a_half_made_store_with_runs_is_moved_aside_and_named(store: Store, empty_db: bytes) -> None:
    path = store.root.parent / "mlflow.db"
    half_made(path, empty_db, "INSERT INTO runs (run_uuid) VALUES ('of a user')")
    (path.parent / "mlflow.db-journal").write_bytes(b"")  # would be played back into the new store
    sent, (note,) = publish(store)
    new, aside, journal = (path.parent / name for name in names(path.parent))
    assert (
        note
        == f"MLflow's store {path} was half made and cannot be opened: a new one replaces it, the old one is {aside}"
    )
    assert (new, journal) == (path, aside.with_name(f"{aside.name}-journal"))
    assert (sent, run_count(path), run_count(aside)) == (1, 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = 'of a newer MLflow'; INSERT INTO runs (run_uuid) VALUES ('u')",
        "CREATE TABLE customers (name TEXT); DROP TABLE webhooks",
    ],
)
def test_a_store_of_another_version_or_program_is_left_alone(tmp_path: Path, empty_db: bytes, change: str) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_db)
    query(path, *change.split(";"), "SELECT 1")
    before = path.read_bytes()
    assert sqlite_store.replace_half_made(path, lambda new: new.write_bytes(empty_db)) is None
    assert path.read_bytes() == before
    assert names(tmp_path) == ["mlflow.db"]


def link(path: Path) -> None:
    (path.parent / "precious").write_bytes(b"SQLite format 3\0 of the user")
    path.symlink_to(path.parent / "precious")


FAULTS = {
    "is a link": link,
    "is a link,": lambda path: path.symlink_to(path.parent / "nothing"),
    "Is a directory": lambda path: path.mkdir(),
    "is a pipe": os.mkfifo,
    "not a database": lambda path: path.write_text("notes of mine"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_store_is_one_line_with_the_command_and_is_left_alone(store: Store, fault: str) -> None:
    path = store.root.parent / "mlflow.db"
    FAULTS[fault](path)
    before = {entry: entry.lstat().st_mtime_ns for entry in path.parent.iterdir()}
    publishing = live.Publishing(Tracking(), Settings(name="night", results=path.parent))
    publishing.finished(RECORD)
    line = publishing.conclude([RECORD])
    assert f"{path} {fault}" in line or (f"{path} file is {fault}" in line)
    assert "sweep publish" in line
    assert line.count("\n") == 0
    assert {entry: entry.lstat().st_mtime_ns for entry in path.parent.iterdir()} == before


class Panic(BaseException):
    """What a library in Rust raises."""


@pytest.mark.usefixtures("make")
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        Panic(),
        sqlite3.OperationalError("database is locked"),
        KeyError("run"),
        RecursionError(),
        OSError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_that_mlflow_raises_ends_a_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def raise_it(_: str) -> None:
        raise error

    monkeypatch.setattr(client, "_client", raise_it)
    publishing = live.Publishing(Tracking(), Settings(name="night", results=store.root.parent))
    publishing.finished(RECORD)
    line = publishing.conclude([RECORD])
    assert type(error).__name__ in line or str(error) in line
    assert "sweep publish" in line
    assert line.count("\n") == 0
    assert Store(store.root).record_keys() == ["k"]


def test_an_interrupt_is_no_error_of_mlflow() -> None:
    with pytest.raises(KeyboardInterrupt), client.explained("http://lab"):
        raise KeyboardInterrupt


def test_the_errors_of_a_migration_are_converted() -> None:
    from alembic.util import CommandError

    with pytest.raises(TrackingError, match="Can't locate revision"), client.explained("sqlite:////x.db"):
        raise CommandError("Can't locate revision identified by 'a'")


def test_a_process_killed_while_it_makes_a_store_leaves_none_and_the_next_removes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"

    def half(new: Path) -> None:
        query(new, "CREATE TABLE runs (a)", "SELECT 1")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        sqlite_store.create_if_missing(path, half, is_locked=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (leftover,) = names(tmp_path)
    assert leftover.startswith(f".mlflow.db.{lock_owner.host_part()}-{child}-")
    other_host = tmp_path / ".mlflow.db.other-1-abcdefgh"
    other_host.mkdir()
    path.touch()  # sqlite leaves an empty file first
    sqlite_store.create_if_missing(path, lambda new: query(new, "CREATE TABLE whole (a)", "SELECT 1"), is_locked=True)
    assert query(path, "SELECT count(*) FROM whole") == 0
    assert names(tmp_path) == [other_host.name, "mlflow.db"], "another host may be at work"


@pytest.mark.parametrize("locks", [True, False])
def test_of_two_that_make_a_store_at_once_one_store_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, locks: bool
) -> None:
    """With locks the second waits for the first; without, the first that is ready gives its store the name."""
    path = tmp_path / "mlflow.db"
    meet = threading.Barrier(2, timeout=0.3 if locks else 30)
    made: list[int] = []

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if not locks:
        monkeypatch.setattr(fcntl, "flock", flock)

    def make(new: Path, number: int) -> None:
        made.append(number)
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait()
        query(new, f"CREATE TABLE of_{number} (a)", "SELECT 1")

    def start(number: int) -> None:
        with sqlite_store.locked(path, 30) as is_locked:
            assert is_locked is locks
            sqlite_store.create_if_missing(path, lambda new: make(new, number), is_locked=is_locked)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == (1 if locks else 2)
    assert query(path, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'of_%'") == 1
    assert names(tmp_path) == ["mlflow.db"]


def test_a_disk_that_fills_while_a_store_is_made_leaves_nothing_new(tmp_path: Path, empty_db: bytes) -> None:
    def full(new: Path) -> None:
        query(new, "CREATE TABLE runs (a)", "SELECT 1")
        raise sqlite3.OperationalError("database or disk is full")

    path = tmp_path / "mlflow.db"
    with pytest.raises(OSError, match="disk is full"):
        sqlite_store.create_if_missing(path, full, is_locked=True)
    assert names(tmp_path) == []
    half_made(path, empty_db)
    before = path.read_bytes()
    with pytest.raises(OSError, match="disk is full"):
        sqlite_store.replace_half_made(path, full)
    assert path.read_bytes() == before


@pytest.fixture
def busy_store(store: Store) -> Iterator[Path]:
    """Another process publishes to the store."""
    path = store.root.parent / "mlflow.db"
    descriptor = file_locks.acquire(path.with_name(".mlflow.db.lock"))
    yield path
    os.close(descriptor)


@pytest.mark.usefixtures("make")
def test_what_a_busy_store_did_not_take_goes_with_the_next_records(
    busy_store: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_WAIT_S", "_EVERY_S", "LOCK_TIMEOUT_S"):
        monkeypatch.setattr(live, name, 0.0)
    publishing = live.Publishing(Tracking(), Settings(name="night", results=busy_store.parent))
    publishing.finished(RECORD)
    line = publishing.conclude([RECORD])
    assert f"process {os.getpid()} on {os.uname().nodename} since " in line, "names the holder and its host"
    assert "sweep publish" in line
    assert not busy_store.exists()
    with pytest.raises(TrackingBusyError):
        Publisher(default_uri(busy_store.parent), "sweep", "night").publish([RECORD], store, wait_s=0)
    monkeypatch.setattr(sqlite_store, "locked", lambda *_: contextlib.nullcontext(enter_result=True))
    publishing.finished(RECORD)
    assert re.match(r"MLflow   http://127.0.0.1:\d+/#/experiments/1/", publishing.conclude([RECORD]))
    assert run_count(busy_store) == 2


@pytest.mark.parametrize("uri", ["http://[::1", "http://me:hunter2@[::1", "http://lab:99999", "http://lab\0", "::", ""])
def test_a_tracking_uri_that_does_not_parse_is_a_line(tmp_path: Path, uri: str) -> None:
    reason = reachable(uri, 1.0)
    assert reason is not None
    assert "\n" not in reason
    assert "hunter2" not in without_password(uri)
    line = live.Publishing(Tracking(uri=uri), Settings(name="s", results=tmp_path)).conclude([RECORD])
    assert "sweep publish" in line


def test_a_results_folder_with_a_question_mark_writes_no_store_elsewhere(tmp_path: Path) -> None:
    results = tmp_path / "a?x#y%20"
    with pytest.raises(ConfigError, match="cannot lie below a folder with"):
        live.Publishing(Tracking(), Settings(name="s", results=results))
    assert names(tmp_path) == []


def test_a_name_that_sqlite_cannot_open_fails_at_once(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["d" * 200] * 3, "mlflow.db")
    with pytest.raises(OSError, match="unable to open database file"):
        sqlite_store.create_if_missing(path, lambda _: pytest.fail("MLflow tries for 100 s"), is_locked=True)
    assert not any(atomic_files.is_of_other_host(name) for name in names(path.parent))

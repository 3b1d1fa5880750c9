"""Servers that are dead, silent or no MLflow: one line with the way out, and less than 10 s lost."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sweep.cli.commands import main
from sweep.errors import ConfigError, TrackingError
from sweep.report.mlflow import Publisher, Publishing, default_uri, reachable, resolve_uri, sqlite_path
from sweep.spec import Tracking
from sweep.spec.settings import Settings
from sweep.storage.record import Record
from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.fault

LIMIT_S = 10.0


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Accepts connections (the kernel does) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dies_after_health() -> Iterator[str]:
    """Healthy when asked, then silent: what a server that hangs in the middle of a publish looks like."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/health":
                over.wait(60.0)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results" / "night")
    made.write(RECORD)
    return made


RECORD = Record(key="k", sweep="night", status="ok", started_at="2026-01-05T10:00:00+00:00", variant={"label": "a"})


def refusal(uri: str, store: Store) -> str:
    import mlflow.tracking  # noqa: F401 - seconds on a busy machine, and no part of what a server costs

    began = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        Publisher(uri, "sweep", "night").publish([RECORD], store)
    assert time.monotonic() - began < LIMIT_S
    assert "\n" not in str(caught.value)
    assert "they are safe on disk, publishing again sends them" in str(caught.value)
    return str(caught.value)


def test_a_dead_port(dead_url: str, store: Store) -> None:
    assert "Connection refused" in refusal(dead_url, store)


def test_a_black_hole(black_hole: str, store: Store) -> None:
    assert "no answer within 3 s" in refusal(black_hole, store)


def test_a_server_that_falls_silent_after_the_health_check(dies_after_health: str, store: Store) -> None:
    import mlflow  # noqa: F401 - its seconds are not the server's

    assert reachable(dies_after_health) is None
    assert "imed out" in refusal(dies_after_health, store)


def test_the_command_says_one_line_and_exits_1(
    black_hole: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(store.root.parent), "--uri", black_hole]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_is_not_mlflow(tmp_path: Path, store: Store) -> None:
    def handler(*args: object) -> http.server.SimpleHTTPRequestHandler:
        return http.server.SimpleHTTPRequestHandler(*args, directory=str(tmp_path))  # type: ignore[arg-type]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert "is not MLflow" in refusal(f"http://127.0.0.1:{server.server_address[1]}", store)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns"])
def test_a_folder_as_store_is_refused_with_what_to_use(uri: str, store: Store) -> None:
    assert "set tracking.uri to sqlite:///" in refusal(uri, store)


def test_a_damaged_database(store: Store) -> None:
    (store.root.parent / "mlflow.db").write_bytes(b"this is no database, though it is long enough to be one" * 40)
    assert "not a database" in refusal(default_uri(store.root.parent), store)


def test_a_password_is_never_printed(store: Store) -> None:
    assert "hunter2" not in refusal("http://me:hunter2@127.0.0.1:1/x", store)


def test_the_uri_asked_for_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
    assert resolve_uri(None, tmp_path) == "http://lab:5000"
    assert resolve_uri("http://mine", tmp_path) == "http://mine"


def test_a_question_mark_in_the_results_path_makes_no_store_beside_it(tmp_path: Path, monkeypatch) -> None:
    """In the URI of a database it ends the path: the store of ``a?b`` was a file ``a``."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("a#b", "a%20b", "a b"):
        assert sqlite_path(resolve_uri(None, tmp_path / name)) == tmp_path / name / "mlflow.db"
    with pytest.raises(ConfigError, match=r"a\?b: MLflow's store cannot lie below .* or tracking=none"):
        resolve_uri(None, tmp_path / "a?b")
    settings = Settings(name="s", results=tmp_path / "a?b")
    with pytest.raises(ConfigError, match="tracking=none"):
        Publishing(Tracking(), settings)
    assert "not asked for" in Publishing(Tracking(enabled=False), settings).conclude([])
    assert resolve_uri("http://lab:5000", tmp_path / "a?b") == "http://lab:5000"


def test_nothing_to_publish_touches_no_server(black_hole: str, store: Store) -> None:
    done = Publisher(black_hole, "sweep", "night").publish([], store)
    assert (done.url, done.sent) == (None, 0)


def test_a_folder_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    assert reachable(default_uri(tmp_path / "not" / "yet")) is None


def test_the_package_comes_without_mlflow() -> None:
    code = "import sys, sweep.report.mlflow; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

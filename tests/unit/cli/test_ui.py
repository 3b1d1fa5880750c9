"""``sweep ui``: what it starts, and when it refuses to."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from sweep.cli import commands
from sweep.report.mlflow.pages_address import UiAddress, ui_address
from sweep.system import command_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder with a store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlflow.db").touch()
    return tmp_path / "results"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def refusal(capsys, *words: str) -> str:
    assert commands.main(["ui", *words]) == 2
    line: str = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_it_becomes_a_server_over_the_store_of_the_results(results: Path, free_port: int, monkeypatch, capsys) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append((words, environment)))
    commands.main(["ui", str(results), "--port", str(free_port)])
    ((words, environment),) = started
    assert words[:4] == [sys.executable, "-m", "mlflow", "server"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given["--backend-store-uri"] == f"sqlite:///{results}/mlflow.db"
    assert (given["--host"], given["--port"]) == ("127.0.0.1", str(free_port))
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    store = f"sqlite:///{results}/mlflow.db"
    assert ui_address(store) == UiAddress(url=f"http://127.0.0.1:{free_port}"), "links open at the port that is served"
    assert f"served already: open http://127.0.0.1:{free_port}, or name another --port" in refusal(capsys, str(results))


def test_without_a_port_the_next_free_one_is_served_and_linked(results: Path, monkeypatch) -> None:
    store = f"sqlite:///{results}/mlflow.db"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("sweep.report.mlflow.pages_address.PORT", taken.getsockname()[1])
        linked = ui_address(store)
        assert linked.port
        assert linked.port > taken.getsockname()[1]
        assert linked.words == ["--port", str(linked.port)]
        started: list[list[str]] = []
        monkeypatch.setattr(os, "execve", lambda _, words, __: started.append(words))
        commands.main(["ui", str(results)])
    assert started[0][-3] == str(linked.port)
    assert ui_address(store) == UiAddress(url=linked.url)


def test_without_published_records_it_says_how_to_publish(results: Path, capsys) -> None:
    (results / "mlflow.db").unlink()
    line = refusal(capsys, str(results))
    publish = command_line.format_command("publish", str(results))
    assert f"mlflow.db is not there: nothing has been published; run `{publish}`" in line


def test_a_store_that_is_a_server_needs_no_second_one(results: Path, capsys) -> None:
    line = refusal(capsys, str(results), "--uri", "http://me:hunter2@mlflow.example:5000")
    assert "open http://mlflow.example:5000" in line
    assert "hunter2" not in line


def test_a_taken_port_and_a_port_that_is_none(results: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve at 127.0.0.1:{port}: Address already in use" in refusal(
            capsys, str(results), "--port", str(port)
        )
    assert "--port 70000: give 1 to 65535" in refusal(capsys, str(results), "--port", "70000")
    assert "--port: x is not an integer of 1 or more" in refusal(capsys, str(results), "--port", "x")

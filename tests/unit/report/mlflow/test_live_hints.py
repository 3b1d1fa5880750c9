"""The last line of a sweep: which command publishes its records or serves them, for this store and this folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweep.report.mlflow import live
from sweep.spec.settings import Settings, Tracking
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def conclusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return the last line of a sweep of no records in ``results``, run from ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def line(results: str = "results", **tracking: object) -> str:
        settings = Settings(name="s", results=Path(results).resolve())
        return live.Publishing(Tracking(**tracking), settings).conclude([])

    return line


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, []),
        ({"results": "my results"}, ["{here}/my results"]),
        ({"experiment": "night"}, ["--experiment", "night"]),
        ({"uri": "http://me:hunter2@mlflow.example"}, ["--uri", "http://mlflow.example"]),
    ],
)
def test_what_publishes_later(conclusion: Callable[..., str], asked: dict[str, str], words: list[str]) -> None:
    spelled = command_line.format_command("publish", *(word.format(here=Path.cwd()) for word in words))
    assert conclusion(enabled=False, **asked) == f"MLflow   not asked for; `{spelled}` sends the records"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, []),
        ({"results": "other"}, ["{here}/other"]),
        ({"uri": "sqlite:////tmp/elsewhere.db"}, ["--uri", "sqlite:////tmp/elsewhere.db"]),
        ({"experiment": "night"}, []),
    ],
)
def test_what_serves_the_pages(conclusion: Callable[..., str], asked: dict[str, str], words: list[str]) -> None:
    spelled = command_line.format_command("ui", *(word.format(here=Path.cwd()) for word in words))
    assert re.search(rf"  \(once `{re.escape(spelled)}( --port \d+)?` runs\)$", conclusion(**asked))

"""Whole commands against a results folder of their own, and one real MLflow server for the session."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from forked_command import ForkedCommand, run_forked
from mlflow_ui import SERVER_DB, mlflow_server
from python_path import python_path

from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sweep.storage.record import Record

QUICK = (
    "load=quick",
    "load.warmup_s=0.02",
    "load.min_s=0.1",
    "load.min_requests=64",
    "load.max_s=0.5",  # a crowded machine is never steady, and warm-up may last as long
    "load.fractions=[0.3,0.6]",
)
CLOSED = ("load=closed", "load.warmup_s=0.02", "load.min_s=0.1", "load.min_requests=9", "load.max_s=0.5")


@dataclass(frozen=True)
class Cli:
    """`python -m sweep` with results in a folder of its own.

    Attributes:
        results: that folder.
    """

    results: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "sweep", *words, f"results={self.results}"]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": python_path(), "COLUMNS": "200"}

    def run(
        self, *words: str, timeout: float = 200, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; nothing is published unless the words say so.

        It is a fork of a process that has its imports, so variables that this machine's loader reads need ``fresh``;
        those on PYTHONPATH reach the workers, which are processes of their own either way.
        """
        if not any(word.startswith("tracking") for word in words):
            words = (*words, "tracking=none")
        if not fresh:
            words = (*words, f"results={self.results}")
            return run_forked(words, self.environment() | environment, self.results.parent, timeout)
        return subprocess.run(
            self.command(*words),
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.results.parent,
            check=False,
        )

    def start(self, *words: str, fresh: bool = False) -> ForkedCommand | subprocess.Popen[str]:
        """Start in a session of its own, as a shell would; `fresh` is for what meets the start of Python itself."""
        if not fresh:
            words = (*words, "tracking=none", f"results={self.results}")
            return ForkedCommand(words, self.environment(), self.results.parent)
        return subprocess.Popen(
            self.command(*words, "tracking=none"),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.results.parent,
            start_new_session=True,
        )

    def stores(self) -> list[Store]:
        return [Store(path.parent) for path in sorted(self.results.glob("*/records"))]

    def records(self) -> list[Record]:
        """Every record of every sweep; all must be readable."""
        return [store.read(key) for store in self.stores() for key in store.record_keys()]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "results")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_db: bytes) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / SERVER_DB).write_bytes(empty_db)
    with mlflow_server(folder) as url:
        yield url

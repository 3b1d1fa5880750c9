"""Gives every test session locks of its own and a garbage collector that does not walk the imported libraries."""

from __future__ import annotations

import gc
import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

settings.register_profile("busy machine", deadline=None)  # a neighbour's load slows the first example most
settings.load_profile("busy machine")

gc.set_threshold(100_000, 20, 20)  # composing a command makes so many objects that collections took a fifth of its time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin on the cores that other tests need

_LOCKS = tempfile.TemporaryDirectory(prefix="sweep-locks-")  # that of the machine is for measurements
os.environ["SWEEP_LOCK_DIR"] = _LOCKS.name


@pytest.fixture(scope="session")
def empty_db(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sqlite file of an MLflow store without runs."""
    from mlflow_store import empty_store

    return empty_store(tmp_path_factory.getbasetemp())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each process of a parallel run begin with its share of the long tests, whole files of them.

    Processes start with equal parts of the list and take over tests from each other at the end: that evens out short
    tests, and left one process alone with a row of long ones. Files that use the MLflow server of the session, which
    takes nine seconds of a core, go to one process.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    is_short = [item.path.is_relative_to(config.rootpath / "tests" / "unit") for item in items]
    short = [item for item, is_one in zip(items, is_short, strict=True) if is_one]
    at_server = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}
    files: dict[Path | None, list[pytest.Item]] = {}
    for item, is_one in zip(items, is_short, strict=True):
        if not is_one:
            files.setdefault(None if item.path in at_server else item.path, []).append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, file in enumerate(files.values()):
        parts[number % processes].extend(file)
    size = -(-len(items) // processes)
    for part in parts:
        missing = max(size - len(part), 0)
        part.extend(short[:missing])
        del short[:missing]
    items[:] = [item for part in parts for item in part] + short


def pytest_collection_finish() -> None:
    """Take what the collection imported out of the collector's view, which would walk it in every full collection."""
    gc.collect()
    gc.freeze()

"""Gives every test session locks of its own and a garbage collector that does not walk the imported libraries."""

from __future__ import annotations

import gc
import os
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)  # a neighbour's load slows the first example most
settings.load_profile("busy machine")

_LOCKS = tempfile.TemporaryDirectory(prefix="sweep-locks-")  # that of the machine is for measurements
os.environ["SWEEP_LOCK_DIR"] = _LOCKS.name


@pytest.fixture(scope="session")
def empty_db(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sqlite file of an MLflow store without runs."""
    from mlflow_store import empty_store

    return empty_store(tmp_path_factory.getbasetemp())


def pytest_collection_finish() -> None:
    """Take what the collection imported out of the collector's view.

    The load generator collects before each timed window, which is quick in a worker and took 0.1 s here: half of what
    many tests cost.
    """
    _freeze()


def pytest_runtest_teardown() -> None:
    """Freeze again after a test of code that unfreezes."""
    if gc.get_freeze_count() == 0:
        _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()

"""An MLflow store that has its tables; MLflow takes seconds to make them, so a whole test run makes them once."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from sweep.report.mlflow import default_uri

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient


def client(uri: str) -> MlflowClient:
    """Return a client of the store at `uri`; MLflow takes 1.5 s to import, which a collection does without."""
    from mlflow import MlflowClient

    return MlflowClient(uri)


def empty_store(session_folder: Path) -> bytes:
    """Return the sqlite file of a store without runs.

    Args:
        session_folder: the base of pytest's temporary folders; that of an xdist worker lies in the run's.
    """
    folder = session_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else session_folder
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "mlflow"
        if not made.exists():
            scratch = folder / "mlflow.new"
            scratch.mkdir()
            client(default_uri(scratch)).search_experiments()
            scratch.rename(made)
        return (made / "mlflow.db").read_bytes()

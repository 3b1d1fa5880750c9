"""Connect to MLflow: import it late, limit its output and its retries, and report its errors in one line."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from sweep.errors import TrackingError, shorten
from sweep.report.mlflow.store_uri import is_http, reachable, sqlite_path, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# Values that the user has set stay. A call that hangs costs two times 4 s and at most 1 s between, whereas MLflow's
# own defaults wait for 245 s. No usage data is sent to MLflow's developers, and stdout belongs to this program.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LOG_LEVELS = {  # these loggers report every table that is created at the first start, and every retry
    "mlflow.store.db.utils": logging.WARNING,
    "mlflow.tracking": logging.WARNING,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}
MAX_REASON = 200  # characters of an error that are printed


def failure(uri: str, reason: str) -> TrackingError:
    """Create the error that tells the user, in one line, why records could not be sent.

    Args:
        uri: tracking URI; a password in it is left out.
        reason: message of MLflow or of the network; its first line is used.
    """
    first_line = (reason.strip().splitlines() or ["no reason given"])[0]
    reason = shorten(first_line.rpartition("Caused by ")[2], MAX_REASON)
    store = without_password(uri)
    return TrackingError(
        f"records not sent to MLflow at {store}: {reason}; they are safe on disk, publishing again sends them"
    )


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, after a check that the store can be written to.

    Raises:
        TrackingError: the store cannot be reached.
    """
    problem = reachable(uri)
    if problem is not None:
        raise failure(uri, problem)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    with explained(uri):
        from mlflow import MlflowClient

        return MlflowClient(uri)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Convert what MLflow, its database or the network raise inside the block into a ``TrackingError``.

    Raises:
        TrackingError: MLflow cannot be imported, or one of them raised an error.
    """
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise failure(uri, f"mlflow cannot be imported ({error})") from error
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise failure(uri, str(error) or type(error).__name__) from error


def open_experiment(client: MlflowClient, uri: str, name: str, artifacts: Path | None) -> Experiment:
    """Return the experiment named `name`, and create it if there is none.

    Args:
        client: client of the store.
        uri: tracking URI of the store.
        name: name of the experiment.
        artifacts: folder for the artifacts of a new experiment in a local store; None gives a sqlite store the folder
            ``mlartifacts`` beside its file. A server chooses its own place: it may be another machine.

    Raises:
        TrackingError: the experiment was deleted in MLflow, or could not be created.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        folder = None if is_http(uri) else artifacts or _artifact_folder(uri)
        # If another publisher was quicker, its experiment is read below; any other error shows there.
        with contextlib.suppress(MlflowException):
            client.create_experiment(name, artifact_location=folder.resolve().as_uri() if folder else None)
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise failure(uri, f"experiment {name!r} could not be created")
    if experiment.lifecycle_stage != "active":
        raise failure(uri, f"experiment {name!r} is deleted there; restore it, or name another (tracking.experiment)")
    return experiment


def _artifact_folder(uri: str) -> Path | None:
    file = sqlite_path(uri)
    return file.parent / "mlartifacts" if file else None

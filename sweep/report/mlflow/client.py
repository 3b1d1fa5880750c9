"""The connection: mlflow imported late and kept quiet, its patience cut short, its errors in one line."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from sweep.errors import TrackingError
from sweep.report.mlflow.store_uri import is_http, reachable, sqlite_path, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# What the user has set stays. A call that hangs costs two times 4 s and at most 1 s between, where MLflow's
# own defaults wait for 245 s. Nothing is sent to MLflow's makers, and stdout is ours.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LOUDEST = {  # they tell of every table made at the first start, and of every retry
    "mlflow.store.db.utils": logging.WARNING,
    "mlflow.tracking": logging.WARNING,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}
MAX_REASON = 200  # characters of an error that are printed


def failure(uri: str, reason: str) -> TrackingError:
    """The one line that a user reads when records could not be sent."""
    line = (reason.strip().splitlines() or ["no reason given"])[0].rpartition("Caused by ")[2][:MAX_REASON]
    where = without_password(uri)
    return TrackingError(
        f"records not sent to MLflow at {where}: {line}; they are safe on disk, publishing again sends them"
    )


def connect(uri: str) -> MlflowClient:
    """A client of a store that was found alive first.

    Raises:
        TrackingError: it cannot be reached.
    """
    dead = reachable(uri)
    if dead is not None:
        raise failure(uri, dead)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, level in LOUDEST.items():
        logging.getLogger(name).setLevel(level)
    with explained(uri):
        from mlflow import MlflowClient

        return MlflowClient(uri)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns what MLflow, its database or the network raise inside into one ``TrackingError``.

    Raises:
        TrackingError: something did.
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
    """The experiment of that name, made if there is none.

    Args:
        client: connected to ``uri``.
        uri: the tracking URI.
        name: of the experiment.
        artifacts: folder for the artifacts of a new one; None leaves a server its own choice and
            gives a sqlite store the folder ``mlartifacts`` beside its file.

    Raises:
        TrackingError: it was deleted in MLflow.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        folder = artifacts or _beside(uri)
        with contextlib.suppress(MlflowException):  # another publisher was quicker: taken below, or a true error there
            client.create_experiment(name, artifact_location=folder.resolve().as_uri() if folder else None)
        found = client.get_experiment_by_name(name)
    if found is None:
        raise failure(uri, f"experiment {name!r} could not be created")
    if found.lifecycle_stage != "active":
        raise failure(uri, f"experiment {name!r} is deleted there; restore it, or name another (tracking.experiment)")
    return found


def _beside(uri: str) -> Path | None:
    file = None if is_http(uri) else sqlite_path(uri)
    return file.parent / "mlartifacts" if file else None

"""Connect to MLflow: import it late, limit its output and its retries, and report its errors in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from typing import TYPE_CHECKING

from sweep.errors import TrackingBusyError, TrackingError, shorten
from sweep.report.mlflow import sqlite_store
from sweep.report.mlflow.store_uri import is_http, reachable, sqlite_path, without_password
from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

# Values that the user has set stay. A call that hangs costs two times 4 s and at most 1 s between, whereas MLflow's
# own defaults wait for 245 s. No usage data is sent to MLflow's developers, and stdout belongs to this program.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Of sqlite stores: a connection that is kept would go on writing into a store that was moved aside.
SQLITE_ENVIRONMENT = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}
LOG_LEVELS = {  # these loggers report every table that is created, every retry, and errors that are told in one line
    "mlflow.store": logging.CRITICAL,
    "mlflow.tracking": logging.WARNING,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
    "mlflow.utils.requirements_utils": logging.ERROR,  # a model that was measured elsewhere needs other versions
}
PAGE = 1000  # runs per page of a search
MAX_REASON = 200  # characters of an error that are printed


LOCK_TIMEOUT_S = 120.0  # longest wait for another publisher of the same store, which may be making it


def search_all(client: MlflowClient, experiment_ids: Collection[str], query: str) -> list[Run]:
    """Return every run of some experiments that a filter finds, page after page."""
    runs: list[Run] = []
    token: str | None = None
    while experiment_ids:
        page = client.search_runs(list(experiment_ids), query, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    return runs


def failure(uri: str, reason: str, kind: type[TrackingError] = TrackingError) -> TrackingError:
    """Create the error that tells the user, in one line, why records could not be sent.

    Args:
        uri: tracking URI; a password in it is left out.
        reason: message of MLflow or of the network; its first line is used.
        kind: class of the error.
    """
    first_line = (reason.strip().splitlines() or ["no reason given"])[0]
    reason = shorten(first_line.rpartition("Caused by ")[2], MAX_REASON)
    store = without_password(uri)
    return kind(f"records not sent to MLflow at {store}: {reason}; they are safe on disk, publishing again sends them")


@contextlib.contextmanager
def connected(uri: str, wait_s: float, notify: Callable[[str], None]) -> Iterator[MlflowClient]:
    """Connect to the store within the context; errors of MLflow inside it become a ``TrackingError``.

    A sqlite store is locked meanwhile, made whole if it is missing, and replaced if it was left half made.

    Args:
        uri: tracking URI of the store.
        wait_s: longest wait for another process that publishes to the same sqlite store, s.
        notify: called with one line if a store was replaced.

    Raises:
        TrackingBusyError: another process publishes to it for longer.
        TrackingError: the store cannot be reached or written to, or refuses what it gets.
    """
    problem = reachable(uri)
    if problem is not None:
        raise failure(uri, problem)
    path = sqlite_path(uri)
    for name, value in (ENVIRONMENT if path is None else ENVIRONMENT | SQLITE_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    # Warnings of their own code: no user can act on them.
    warnings.filterwarnings("ignore", module=r"(alembic|mlflow|sqlalchemy)\b")
    with (
        explained(uri),
        contextlib.nullcontext(enter_result=False) if path is None else sqlite_store.locked(path, wait_s) as locked,
    ):
        yield _client(uri) if path is None else _sqlite_client(uri, path, notify, is_locked=locked)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _make_store(path: Path) -> None:
    _client(f"sqlite:///{path}").get_experiment("0")


def _sqlite_client(uri: str, path: Path, notify: Callable[[str], None], *, is_locked: bool) -> MlflowClient:
    """Return a client of the sqlite store at `path`, which is replaced if it is half made and the caller locks it."""
    sqlite_store.create_if_missing(path, _make_store, is_locked=is_locked)
    try:
        client = _client(uri)
        client.get_experiment("0")  # any request shows whether the tables are there
    except Exception:
        note = sqlite_store.replace_half_made(path, _make_store) if is_locked else None
        if note is None:
            raise
        notify(note)
        return _client(uri)
    return client


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Convert whatever MLflow, its database or the network raise inside the block into a ``TrackingError``.

    That includes what is no ``Exception``, as MLflow's code may end the process (``SystemExit``), or a library of Rust
    may panic; an interrupt passes.

    Raises:
        TrackingError: MLflow cannot be imported, or anything was raised.
    """
    try:
        yield
    except TrackingBusyError as error:
        raise failure(uri, str(error), TrackingBusyError) from error
    except (TrackingError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # the records are safe on disk, and a sweep goes on without MLflow
        signals.raise_if_now()  # a library met the interrupt inside its own code, and raised something else
        text = str(error).strip()
        name = type(error).__name__
        raise failure(uri, text if len(text.split()) > 1 else f"{name}: {text}" if text else name) from error


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

"""Read records back from MLflow: the file `record.json` that each variant's run has."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError, RecordError, TrackingError, printable
from sweep.report.mlflow.client import LOCK_TIMEOUT_S, connected, search_all
from sweep.report.mlflow.runs import KEY, KIND, NAME, PARENT
from sweep.report.mlflow.saved_view import quoted
from sweep.report.mlflow.store_uri import sqlite_path, without_password
from sweep.storage import record_file
from sweep.system import regular_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from sweep.storage import Record

RECORD = "record.json"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RECORD_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


def read_records(uri: str, selector: str) -> list[Record]:
    """Read the records of an experiment, of one sweep in it, or of one run.

    Args:
        uri: MLflow's store.
        selector: ``EXPERIMENT``, ``EXPERIMENT/SWEEP``, or the id of the run of a sweep or of a variant.

    Raises:
        ConfigError: nothing there has a record.
        TrackingError: the store cannot be reached or refuses.
    """
    file = sqlite_path(uri)
    if file is not None and not file.exists():  # a client would create it
        hint = "`sweep publish` makes one, --uri names another"
        raise ConfigError(f"mlflow:{selector}: there is no MLflow store at {file}; {hint}")
    try:
        with connected(uri, LOCK_TIMEOUT_S, _ignore) as client, tempfile.TemporaryDirectory() as scratch:
            files = [_download(client, run, Path(scratch)) for run in _runs(client, selector)]
    except TrackingError as error:  # it is worded for who sends records
        reason = str(error).removeprefix("records not sent to MLflow at ").partition("; they are safe on disk")[0]
        raise TrackingError(f"mlflow:{selector}: no records read from {reason}") from error
    if not files:
        place = without_password(uri)
        raise ConfigError(f"mlflow:{selector}: no runs with records in {place}; `sweep publish` sends them there")
    return [_record(run_id, key, content) for run_id, key, content in files]


def _ignore(_: str) -> None:
    """Take a line about a store that was replaced: one that is only read was there before."""


def _runs(client: MlflowClient, selector: str) -> list[Run]:
    """Return the runs of variants that `selector` names."""
    if _RUN_ID.fullmatch(selector):
        run = client.get_run(selector)
        if run.data.tags.get(KIND) == "variant":
            return [run]
        return search_all(client, [run.info.experiment_id], f"tags.`{PARENT}` = {quoted(selector)}")
    name, _, sweep = selector.partition("/")
    experiment = client.get_experiment_by_name(selector) or client.get_experiment_by_name(name)
    if experiment is None:
        return []
    of_sweep = f" and tags.`{NAME}` = {quoted(sweep)}" if sweep and experiment.name == name else ""
    return search_all(client, [experiment.experiment_id], f"tags.`{KIND}` = 'variant'{of_sweep}")


def _download(client: MlflowClient, run: Run, scratch: Path) -> tuple[str, str, bytes]:
    """Return the id of a run, the key of its record, and the bytes of its file."""
    run_id = str(run.info.run_id)
    folder = scratch / run_id
    folder.mkdir()
    path = Path(client.download_artifacts(run_id, RECORD, str(folder)))
    return run_id, run.data.tags.get(KEY, ""), regular_files.read_bytes(path, follow=False)


def _record(run_id: str, key: str, content: bytes) -> Record:
    """Return the record of a run's file."""
    if not _RECORD_KEY.fullmatch(key):
        raise ConfigError(f"mlflow run {run_id} has no key of a record: it was not published by `sweep`")
    try:
        return record_file.of_raw(Path(f"{key}.json"), json.loads(content))
    except (RecordError, ValueError, RecursionError) as error:
        reason = str(error).partition("; the same sweep")[0]
        raise ConfigError(f"mlflow run {run_id}: {printable(reason)}") from error

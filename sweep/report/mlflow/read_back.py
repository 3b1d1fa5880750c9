"""Read records back from MLflow: the file `record.json` that each variant's run has."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError, RecordError, printable
from sweep.report.mlflow.client import connected
from sweep.report.mlflow.runs import KEY, KIND, NAME, PAGE, PARENT
from sweep.report.mlflow.saved_view import quoted
from sweep.report.mlflow.store_uri import sqlite_path, without_password
from sweep.storage import record_file
from sweep.system import regular_files, write_atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from sweep.storage import Record

RECORD = "record.json"
_WAIT_S = 30.0  # longest wait for a sweep that publishes to the same store
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
    notes: list[str] = []  # of a store that was left half made: it has no runs, which the error below says
    with connected(uri, _WAIT_S, notes.append) as client, tempfile.TemporaryDirectory() as scratch:
        records = [_record(client, run, Path(scratch)) for run in _runs(client, selector)]
    if not records:
        place = without_password(uri)
        raise ConfigError(f"mlflow:{selector}: no runs with records in {place}; `sweep publish` sends them there")
    return records


def _runs(client: MlflowClient, selector: str) -> list[Run]:
    """Return the runs of variants that `selector` names."""
    if _RUN_ID.fullmatch(selector):
        run = client.get_run(selector)
        if run.data.tags.get(KIND) == "variant":
            return [run]
        return _search(client, run.info.experiment_id, f"tags.`{PARENT}` = {quoted(selector)}")
    name, _, sweep = selector.partition("/")
    experiment = client.get_experiment_by_name(selector) or client.get_experiment_by_name(name)
    if experiment is None:
        return []
    of_sweep = f" and tags.`{NAME}` = {quoted(sweep)}" if sweep and experiment.name == name else ""
    return _search(client, experiment.experiment_id, f"tags.`{KIND}` = 'variant'{of_sweep}")


def _search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _record(client: MlflowClient, run: Run, scratch: Path) -> Record:
    """Download and read the record of a run."""
    key = run.data.tags.get(KEY, "")
    if not _RECORD_KEY.fullmatch(key):
        raise ConfigError(f"mlflow run {run.info.run_id} has no key of a record: it was not published by `sweep`")
    folder = scratch / run.info.run_id
    folder.mkdir()
    path = Path(client.download_artifacts(run.info.run_id, RECORD, str(folder)))
    target = folder / f"{key}.json"
    write_atomic(target, regular_files.read_bytes(path, follow=False), durable=False)
    try:
        return record_file.read(target)
    except RecordError as error:
        reason = str(error).partition("; the same sweep")[0]
        raise ConfigError(f"mlflow run {run.info.run_id}: {printable(reason)}") from error

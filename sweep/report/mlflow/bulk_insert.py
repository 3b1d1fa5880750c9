"""Write many new runs into MLflow's database in one transaction.

MLflow's own calls take some ten transactions a run, each with its queries: 0.1 s. Rows that are made here by MLflow's
classes, checked by MLflow's validation, and inserted together take 3 ms. A test compares them with what MLflow's calls
write; MLflow is pinned. Other stores, such as servers and those with workspaces, get MLflow's calls.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow import MlflowClient

    from sweep.report.mlflow.new_run import NewRun, RecordFile

_NAME = "mlflow.runName"


def sql_store(client: MlflowClient) -> Any | None:
    """Return MLflow's store behind the client if it is a database whose tables can be written; None otherwise."""
    store: Any = client._tracking_client.store  # noqa: SLF001 - MLflow gives no other access to it
    if type(store).__name__ != "SqlAlchemyStore":  # a class that inherits from it has columns of its own
        return None
    return store


def insert_runs(
    store: Any, experiment_id: str, runs: Sequence[NewRun], attach: Callable[[str, str, RecordFile], None]
) -> None:
    """Insert the runs in one transaction: all of them are there afterwards, or none.

    Args:
        store: MLflow's store.
        experiment_id: id of the experiment.
        runs: runs to insert.
        attach: gets id, place of the artifacts and record of each run, before its rows are written.
    """
    from sqlalchemy import insert

    root = str(store.get_experiment(experiment_id).artifact_location)
    tables = _tables()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
    for new in runs:
        run_id = uuid.uuid4().hex
        location = _artifact_uri(store, root, run_id)
        attach(run_id, location, new.source)
        for name, items in _rows(new, run_id, int(experiment_id), location).items():
            rows[name] += items
    with store.ManagedSessionMaker(read_only=False) as session:
        _add_datasets(session, int(experiment_id), runs, rows)
        for name, table in tables.items():
            if rows[name]:
                session.execute(insert(table), rows[name])


def _tables() -> dict[str, Any]:
    """Return MLflow's classes of the tables, in the order in which their rows refer to each other."""
    from mlflow.store.tracking.dbmodels import models

    return {
        "run": models.SqlRun,
        "tag": models.SqlTag,
        "param": models.SqlParam,
        "metric": models.SqlMetric,
        "latest": models.SqlLatestMetric,
        "dataset": models.SqlDataset,
        "input": models.SqlInput,
        "input_tag": models.SqlInputTag,
    }


def _artifact_uri(store: Any, root: str, run_id: str) -> str:
    from mlflow.utils import uri

    functions: Any = uri  # without types
    return str(functions.append_to_uri_path(root, run_id, store.ARTIFACTS_FOLDER_NAME))


def _rows(new: NewRun, run_id: str, experiment_id: int, location: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a run by the name of their table, after MLflow's own checks."""
    from mlflow.entities import LifecycleStage, Metric, Param, RunTag, SourceType
    from mlflow.utils import validation

    checks: Any = validation  # without types
    metrics, params, tags = checks._validate_batch_log_data(  # noqa: SLF001 - what MLflow's calls check
        [Metric(value.key, value.value, new.start_ms, value.step) for value in dict.fromkeys(new.metrics)],
        [Param(name, value) for name, value in new.params.items()],
        [RunTag(name, value) for name, value in {**new.tags, _NAME: new.name}.items()],
    )
    own = {"run_uuid": run_id}
    # A record has finite numbers alone.
    values = [
        {**own, "is_nan": False, **{name: getattr(metric, name) for name in ("key", "timestamp", "step", "value")}}
        for metric in metrics
    ]
    latest: dict[str, dict[str, Any]] = {}
    for row in values:
        last = latest.setdefault(row["key"], row)
        if (row["step"], row["value"]) > (last["step"], last["value"]):
            latest[row["key"]] = row
    return {
        "run": [
            {
                **own,
                "name": new.name,
                "source_type": SourceType.to_string(SourceType.UNKNOWN),
                "source_name": "",
                "entry_point_name": "",
                "user_id": "unknown",
                "status": new.status,
                "start_time": new.start_ms,
                "end_time": new.end_ms,
                "source_version": "",
                "lifecycle_stage": LifecycleStage.ACTIVE,
                "artifact_uri": location,
                "experiment_id": experiment_id,
            }
        ],
        "tag": [{**own, "key": tag.key, "value": tag.value} for tag in tags],
        "param": [{**own, "key": param.key, "value": param.value} for param in params],
        "metric": values,
        "latest": list(latest.values()),
        "input": [
            {
                "input_uuid": uuid.uuid4().hex,
                "source_type": "DATASET",
                "source_id": item,  # the transaction knows which datasets are there: `_add_datasets`
                "destination_type": "RUN",
                "destination_id": run_id,
                "step": 0,
            }
            for item in new.datasets
        ],
    }


def _add_datasets(
    session: Any, experiment_id: int, runs: Sequence[NewRun], rows: dict[str, list[dict[str, Any]]]
) -> None:
    """Add the rows of datasets that the experiment has not, and refer to all of them by their ids."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset

    wanted = {(item.name, item.digest): item for new in runs for item in new.datasets}
    known = {
        (name, digest): identity
        for name, digest, identity in session.query(SqlDataset.name, SqlDataset.digest, SqlDataset.dataset_uuid).filter(
            SqlDataset.experiment_id == experiment_id, SqlDataset.digest.in_({digest for _, digest in wanted})
        )
    }
    for key, item in wanted.items():
        if key not in known:
            known[key] = uuid.uuid4().hex
            rows["dataset"].append(
                {
                    "dataset_uuid": known[key],
                    "experiment_id": experiment_id,
                    "name": item.name,
                    "digest": item.digest,
                    "dataset_source_type": "sweep",
                    "dataset_source": item.source,
                }
            )
    for row in rows["input"]:
        item = row["source_id"]
        row["source_id"] = known[item.name, item.digest]
        rows["input_tag"].append(
            {"input_uuid": row["input_uuid"], "name": "mlflow.data.context", "value": item.context}
        )

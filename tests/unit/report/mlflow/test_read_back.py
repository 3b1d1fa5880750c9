"""Records come back from MLflow as they were sent: by experiment, by sweep, and by run."""

import base64
import json
import zlib
from pathlib import Path

import pytest
from measured_runs import record

from sweep.errors import ConfigError, TrackingError
from sweep.report import load
from sweep.report.compare import to_mlflow
from sweep.report.mlflow import Publisher
from sweep.report.mlflow.saved_view import view_key
from sweep.storage.store import Store


def test_what_was_published_is_read_back_by_experiment_sweep_and_run(tmp_path: Path, empty_db: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_db)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name, batches in {"driver-a": (1, 2), "driver-b": (1,)}.items():
        records = [record(batch) for batch in batches]
        store = Store(tmp_path / name)
        for item in records:
            store.write(item)
        Publisher(uri, "drivers", name).publish(records, store)
    places = {"mlflow:drivers": 3, "mlflow:drivers/driver-a": 2, "mlflow:drivers/driver-b": 1}
    for place, count in places.items():
        assert len(load(place, results=tmp_path)) == count
    read = load("mlflow:drivers/driver-b", results=tmp_path)
    assert read.records[0] == Store(tmp_path / "driver-b").read(record(1).key)
    assert read.compare(load("driver-a", results=tmp_path)).rows[0].outcome == "not told apart"

    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("drivers").experiment_id], max_results=10)
    counts = {run.info.run_name: len(load(f"mlflow:{run.info.run_id}", uri=uri)) for run in runs}
    assert counts["driver-a"] == 2
    assert sorted(counts.values())[:-1] == [1] * (len(counts) - 1)
    check_recorded_comparison(tmp_path, uri, client)
    with pytest.raises(ConfigError, match=r"mlflow:drivers/driver-c: no runs with records in sqlite"):
        load("mlflow:drivers/driver-c", uri=uri)
    with pytest.raises(TrackingError, match=rf"^mlflow:{'0' * 32}: no records read from sqlite.*not found"):
        load(f"mlflow:{'0' * 32}", uri=uri)
    assert Store(tmp_path / "driver-a").record_keys() == sorted(record(batch).key for batch in (1, 2))


def check_recorded_comparison(folder: Path, uri: str, client) -> None:
    """A comparison is one run, however often it is made, with a view of the runs of both; it is no record."""
    comparison = load("driver-a", results=folder).compare(load("driver-b", results=folder))
    for _ in range(2):
        recorded = to_mlflow(comparison, [], uri, "drivers")
        assert recorded.runs == (2, 1)
    experiment = client.get_experiment_by_name("drivers")
    identity = view_key("driver-a against driver-b")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`sweep.comparison` = '{identity}'")
    assert recorded.url.endswith(f"viewStateShareKey={identity}")
    assert run.data.metrics["compare/not_told_apart"] == 1
    assert run.data.tags["mlflow.note.content"].startswith("### sweep compare: passed")
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"comparison.html", "comparison.json", "comparison.md"}
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{identity}"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    shown = client.search_runs([experiment.experiment_id], state["searchFilter"])
    sides = [(item.data.tags["sweep.name"], item.data.tags[f"sweep.compared.{identity}"]) for item in shown]
    assert sorted(sides) == [("driver-a", "OLD")] * 2 + [("driver-b", "NEW")]
    assert len({item.data.tags["mlflow.runColor"] for item in shown}) == 3  # two runs of one variant have one name
    assert len(load("mlflow:drivers", uri=uri)) == 3
    other = to_mlflow(comparison, [], uri, "elsewhere")
    assert other.runs == (0, 0)
    assert "/runs/" in other.url


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no MLflow store at"):
        load("mlflow:x", uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []

"""Records come back from MLflow as they were sent: by experiment, by sweep, and by run."""

from pathlib import Path

import pytest
from measured_runs import record

from sweep.errors import ConfigError, TrackingError
from sweep.report import load
from sweep.report.mlflow import Publisher
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
    with pytest.raises(ConfigError, match=r"mlflow:drivers/driver-c: no runs with records in sqlite"):
        load("mlflow:drivers/driver-c", uri=uri)
    with pytest.raises(TrackingError, match=rf"^mlflow:{'0' * 32}: no records read from sqlite.*not found"):
        load(f"mlflow:{'0' * 32}", uri=uri)
    assert Store(tmp_path / "driver-a").record_keys() == sorted(record(batch).key for batch in (1, 2))


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no MLflow store at"):
        load("mlflow:x", uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []

"""Versions of registered models: what they hold, which one is the champion, and that MLflow serves it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import measured_runs
import mlflow_store
import numpy as np
import pytest
import taken_engine

from sweep.errors import TrackingError
from sweep.report.mlflow import Publisher, default_uri, register
from sweep.storage import Store

if TYPE_CHECKING:
    from pathlib import Path


def test_the_champion_is_the_latest_winner_and_mlflow_runs_its_engine(tmp_path: Path, empty_db: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_db)
    uri, store = default_uri(tmp_path), Store(tmp_path / "s")
    records = [dataclasses.replace(measured_runs.record(batch), sweep="s") for batch in (1, 2, 4)]
    for record in records:
        store.write(record)
    Publisher(uri, "e", "s").publish(records[:2], store)
    first, second, unpublished = (
        taken_engine.winner(tmp_path / f"taken{number}", record) for number, record in enumerate(records)
    )
    versions = [register(uri, "e", "s", "digits", winner) for winner in (first, second, first)]
    assert [(version.number, version.is_new) for version in versions] == [("1", True), ("2", True), ("1", False)]
    with pytest.raises(TrackingError, match=r"^digits is not registered .* 'e' has no run of s"):
        register(uri, "e", "s", "digits", unpublished)

    client = mlflow_store.client(uri)
    version = client.get_model_version_by_alias("digits", "champion")
    assert str(version.version) == "1"
    assert version.tags["sweep.key"] == records[0].key
    assert version.tags["sweep.library"] == records[0].variant["backend"]
    logged = client.get_logged_model(version.tags["sweep.model_id"])
    run = client.get_run(version.run_id)
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "digits", "version": 1}]
    figures = {item.key: item.value for item in logged.metrics}
    assert figures["peak_samples_per_s"] == run.data.metrics["peak_samples_per_s"]
    assert logged.params == run.data.params
    assert [item.model_id for item in run.outputs.model_outputs] == [logged.model_id]

    from mlflow import pyfunc

    model = pyfunc.load_model(version.source)
    assert str(model.metadata.signature.inputs.inputs[0]) == "'x': Tensor('float32', (-1, 3))"
    assert np.array_equal(model.predict({"x": np.full((1, 3), 2, np.float32)})["y"], [[4, 4, 4]])
    (requirements,) = (tmp_path / "mlartifacts" / "models" / logged.model_id).rglob("requirements.txt")
    assert {"numpy", "onnxruntime==1.2.3"} <= set(requirements.read_text().split())

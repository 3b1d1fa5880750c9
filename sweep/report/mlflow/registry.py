"""Register a variant that was taken as a version of a model, so that MLflow's registry can serve the choice.

MLflow 3 has a model of its own beside the run: the files that are loaded, a signature, params, and the metrics of the
run that measured it. A version of a registered model points at it; the alias ``champion`` points at the latest version.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import TrackingError, shorten
from sweep.report.mlflow import engine_model, record_mapping
from sweep.report.mlflow.artifacts import is_allowed
from sweep.report.mlflow.client import LOCK_TIMEOUT_S, connected, failure
from sweep.report.mlflow.runs import DONE, KEY, KIND, NAME
from sweep.report.mlflow.saved_view import quoted
from sweep.report.mlflow.store_uri import is_http

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

    from sweep.spec import JsonDict
    from sweep.storage import Record

ALIAS = "champion"
_MODEL_TYPE = "sweep engine"
_MANIFEST = "manifest.json"
_MODEL_ID = "sweep.model_id"  # tag of a version: the logged model that it points at
_VERSIONS = "mlflow.modelVersions"  # tag of a logged model, from which MLflow's pages link its versions
_MOST_DESCRIPTION = 4000  # characters; MLflow takes 5000
_FACTS = ("gpu", "compute_capability", "driver", "cuda", "tensorrt", "onnxruntime", "cpu")
_REQUIREMENTS = {  # and the fact without which the package cannot be named
    "onnxruntime": (("onnxruntime=={onnxruntime}", "onnxruntime"),),
    "tensorrt": (("tensorrt=={tensorrt}", "tensorrt"), ("cuda-python", "gpu")),
    "tensorrt_rtx": (("tensorrt-rtx=={tensorrt}", "tensorrt"), ("cuda-python", "gpu")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """Hold a variant that was taken.

    Attributes:
        record: its record.
        folder: the folder that `sweep take` wrote.
        label: its name among the variants of its sweep.
        reason: why it was taken.
        takes_batches: its engine takes several batch sizes.
    """

    record: Record
    folder: Path
    label: str
    reason: str
    takes_batches: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Describe a version of a registered model.

    Attributes:
        name: name of the registered model.
        number: number of the version.
        is_new: it was registered now, not before.
    """

    name: str
    number: str
    is_new: bool


def register(uri: str, experiment: str, sweep: str, name: str, winner: Winner) -> Version:
    """Register a variant whose run is in MLflow, and let the alias ``champion`` point at it.

    Args:
        uri: MLflow's store, which is the registry too.
        experiment: name of the experiment that has the run.
        sweep: name of the sweep.
        name: name of the registered model, which is created if there is none.
        winner: the variant.

    Returns:
        The version; that which there is if the model has one of this very record.

    Raises:
        TrackingError: the store cannot be reached or refuses, or has no run of the record.
    """
    try:
        with connected(uri, LOCK_TIMEOUT_S, _ignore) as client:
            return _register(client, uri, experiment, sweep, name, winner)
    except TrackingError as error:  # it is worded for who sends records
        reason = str(error).removeprefix("records not sent to MLflow at ").partition("; they are safe on disk")[0]
        raise TrackingError(f"{name} is not registered in MLflow at {reason}; the same command does it") from error


def _ignore(_: str) -> None:
    """Take a line about a store that was replaced: the records were sent to it before."""


def _register(client: MlflowClient, uri: str, experiment: str, sweep: str, name: str, winner: Winner) -> Version:
    from mlflow.exceptions import MlflowException

    run = _run(client, uri, experiment, sweep, winner.record)
    own = {KEY: winner.record.key, DONE: run.data.tags[DONE]}
    is_known, known = _versions(client, name)
    same = next((item for item in known if own.items() <= item.tags.items()), None)
    is_new = same is None
    if same is None:
        tags = {**own, **_tags(sweep, winner)}
        logged = _log_model(client, uri, run, name, winner, tags)
        try:
            if not is_known:
                client.create_registered_model(name)
            same = _add_version(client, uri, name, winner, logged)
        except MlflowException:
            client.delete_logged_model(logged.model_id)
            raise
    number = str(same.version)
    client.set_registered_model_alias(name, ALIAS, number)
    return Version(name=name, number=number, is_new=is_new)


def _add_version(client: MlflowClient, uri: str, name: str, winner: Winner, logged: LoggedModel) -> ModelVersion:
    """Add the version that points at a logged model."""
    # A database's registry would look a model's id up in the store that the environment names.
    source = f"models:/{logged.model_id}" if is_http(uri) else str(logged.artifact_location)
    text = shorten(f"{winner.label}: {winner.reason}", _MOST_DESCRIPTION)
    tags = {**logged.tags, _MODEL_ID: str(logged.model_id)}
    version = client.create_model_version(
        name, source, logged.source_run_id, tags=tags, description=text, model_id=logged.model_id
    )
    client.set_logged_model_tags(logged.model_id, {_VERSIONS: json.dumps([{"name": name, "version": version.version}])})
    return version


def versions_of(client: MlflowClient, sweep: str, run_ids: Collection[str]) -> list[ModelVersion]:
    """Return the versions of registered models that come from these runs of a sweep, by name and number."""
    versions: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"tags.`{NAME}` = {quoted(sweep)}", page_token=token)
        versions += [item for item in page if item.run_id in run_ids]
        token = page.token
        if not token:
            return sorted(versions, key=lambda item: (item.name, int(item.version)))


def rename_versions(client: MlflowClient, old: str, new: str, shas: Mapping[str, str]) -> None:
    """Let the versions that come from runs of a sweep tell its new name.

    Args:
        client: client of the store.
        old: name of the sweep.
        new: its new name.
        shas: fingerprint of the record that each run has now, by the id of the run.
    """
    for version in versions_of(client, old, shas):
        for tag, value in {DONE: shas[str(version.run_id)], NAME: new}.items():
            client.set_model_version_tag(version.name, version.version, tag, value)


def _versions(client: MlflowClient, name: str) -> tuple[bool, list[Any]]:
    """Return whether there is a registered model of that name, and its versions."""
    if not client.search_registered_models(f"name = {quoted(name)}"):
        return False, []
    return True, list(client.search_model_versions(f"name = {quoted(name)}"))


def _run(client: MlflowClient, uri: str, experiment: str, sweep: str, record: Record) -> Run:
    place = client.get_experiment_by_name(experiment)
    query = f"tags.`{NAME}` = {quoted(sweep)} and tags.`{KEY}` = {quoted(record.key)} and tags.`{KIND}` = 'variant'"
    runs = [] if place is None else client.search_runs([place.experiment_id], query)
    complete = [run for run in runs if DONE in run.data.tags]
    if not complete:
        raise failure(uri, f"experiment {experiment!r} has no run of {sweep} {record.key}")
    return complete[0]


def _tags(sweep: str, winner: Winner) -> dict[str, str]:
    """Return what tells whether a server can serve the version: its sweep, library and machine."""
    facts: JsonDict = dict(winner.record.facts)
    machine = {name: str(facts[name]) for name in _FACTS if facts.get(name) is not None}
    library = str(winner.record.variant.get("backend"))
    return {NAME: sweep, "sweep.library": library, "sweep.label": winner.label, **machine}


def _log_model(
    client: MlflowClient, uri: str, run: Run, name: str, winner: Winner, tags: dict[str, str]
) -> LoggedModel:
    """Log the model of a run: its files, params, and the run's metrics."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.exceptions import MlflowException

    record, run_id = winner.record, run.info.run_id
    params = record_mapping.params(record)
    logged = client.create_logged_model(run.info.experiment_id, name, run_id, tags, params, _MODEL_TYPE)
    model_id, location = str(logged.model_id), str(logged.artifact_location)
    try:
        if is_http(uri) and not is_allowed(location):
            raise failure(uri, f"the server has models written to {shorten(location)}, a folder of this machine")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model"
            _save(path, winner)
            client.log_model_artifacts(model_id, str(path))
        started = record_mapping.started_ms(record)
        values = [value for value in record_mapping.metrics(record) if "/" not in value.key]
        metrics = [
            Metric(item.key, item.value, started, item.step, model_id=model_id, run_id=run_id) for item in values
        ]
        client.log_batch(run_id, metrics)
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        return client.finalize_logged_model(model_id, "READY")
    except (MlflowException, TrackingError, OSError):
        client.delete_logged_model(model_id)
        raise


def _save(path: Path, winner: Winner) -> None:
    """Write the model as MLflow loads it: the folder that was taken, a loader, signature and requirements."""
    from mlflow import pyfunc

    manifest = json.loads((winner.folder / _MANIFEST).read_text())
    functions: Any = pyfunc  # partly without types
    functions.save_model(
        path,
        loader_module=engine_model.__name__.rpartition(".")[2],
        code_paths=[engine_model.__file__],
        data_path=str(winner.folder),
        signature=_signature(winner),
        pip_requirements=_requirements(manifest),
        metadata={name: manifest[name] for name in ("key", "sweep", "label", "bound_to", "sweep_version")},
    )


def _requirements(manifest: JsonDict) -> list[str]:
    """Return the packages that the loader imports, of the versions that the engine is bound to."""
    # The fact of TensorRT names the library before its version.
    versions = {name: str(value).split()[-1] for name, value in manifest["bound_to"].items() if str(value).split()}
    own = [text.format_map(versions) for text, fact in _REQUIREMENTS[manifest["engine"]["library"]] if fact in versions]
    return ["numpy", *own]


def _signature(winner: Winner) -> ModelSignature | None:
    """Return types and shapes of the inputs and outputs; None if the inputs could not be stored."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    schemas: list[Schema | None] = []
    for file in (winner.folder / "inputs.npz", winner.folder / "outputs.npz"):
        if not file.exists():  # outputs of an engine that does not run here
            schemas.append(None)
            continue
        with np.load(file) as arrays:
            schemas.append(
                Schema(
                    [
                        TensorSpec(value.dtype, (-1, *value.shape[1:]) if winner.takes_batches else value.shape, name)
                        for name, value in arrays.items()
                    ]
                )
            )
    inputs, outputs = schemas
    return None if inputs is None else ModelSignature(inputs=inputs, outputs=outputs)

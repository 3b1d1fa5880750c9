"""Count, remove and rename the runs of sweeps in a store, in whatever experiment they are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import TrackingError
from sweep.report.mlflow import record_mapping
from sweep.report.mlflow.artifacts import Artifacts
from sweep.report.mlflow.client import LOCK_TIMEOUT_S, connected, search_all
from sweep.report.mlflow.read_back import RECORD
from sweep.report.mlflow.registry import rename_versions, versions_of
from sweep.report.mlflow.runs import BEGUN, DONE, KIND, NAME
from sweep.report.mlflow.saved_view import quoted, tags_of_views
from sweep.report.mlflow.store_uri import sqlite_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRuns:
    """Describe the runs of a sweep.

    Attributes:
        experiments: names of the experiments that have some.
        removed: number of those that were removed, or would be.
        kept: number of those that hold other records than the sweep's folder.
        versions: versions of registered models that come from the removed runs, as ``NAME version 3``; they stay, with
            an engine of their own.
    """

    experiments: tuple[str, ...] = ()
    removed: int = 0
    kept: int = 0
    versions: tuple[str, ...] = ()


def published(uri: str) -> dict[str, list[str]]:
    """Return the experiments that each sweep is published in, by the sweep's name.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if _is_missing(uri):
        return {}
    sweeps: dict[str, list[str]] = {}
    with _open(uri) as client:
        names = _experiments(client)
        for run in search_all(client, names, f"tags.`{KIND}` = 'sweep'"):
            sweeps.setdefault(run.data.tags.get(NAME, ""), []).append(names[run.info.experiment_id])
    return {name: sorted(set(experiments)) for name, experiments in sweeps.items()}


def remove(uri: str, sweep: str, files: Collection[bytes], *, results: Path, dry_run: bool = False) -> SweepRuns:
    """Remove the runs of a sweep, as MLflow removes runs: ``mlflow gc`` gives their space back.

    In the store of the results folder itself, these are all runs of that name. In any other, another results folder
    may have published a sweep of that name: only runs of records that `files` has are removed.

    Args:
        uri: the store.
        sweep: name of the sweep.
        files: the files of the sweep's records.
        results: the results folder.
        dry_run: remove nothing.

    Raises:
        TrackingError: the store cannot be reached, or refuses.
    """
    if _is_missing(uri):
        return SweepRuns()
    path = sqlite_path(uri)
    own_store = path is not None and path.parent == results.resolve()
    known = {record_mapping.fingerprint(content) for content in files}
    with _open(uri) as client:
        names = _experiments(client)
        runs = search_all(client, names, f"tags.`{NAME}` = {quoted(sweep)}")
        variants = [run for run in runs if run.data.tags.get(KIND) != "sweep"]
        ours = [run for run in variants if own_store or {run.data.tags.get(DONE), run.data.tags.get(BEGUN)} & known]
        emptied = {run.info.experiment_id for run in runs} - {
            run.info.experiment_id for run in variants if run not in ours
        }
        parents = [run for run in runs if run not in variants and run.info.experiment_id in emptied]
        removed = [*ours, *parents]
        versions = versions_of(client, sweep, {run.info.run_id for run in removed}) if removed else []
        if not dry_run:
            for run in removed:
                client.delete_run(run.info.run_id)
            for experiment_id in emptied:
                _delete_views(client, experiment_id, sweep)
    experiments = tuple(sorted({names[run.info.experiment_id] for run in runs}))
    kept = len(runs) - len(removed)
    names_of_versions = tuple(f"{item.name} version {item.version}" for item in versions)
    return SweepRuns(
        experiments=experiments,
        removed=len(removed),
        kept=kept,
        versions=names_of_versions,
    )


def rename(uri: str, old: str, new: str, records: Mapping[str, tuple[bytes, bytes]]) -> SweepRuns:
    """Give the runs of a sweep its new name; they keep their ids, and hold the records as they are after it.

    Args:
        uri: the store.
        old: name of the sweep.
        new: its new name.
        records: file of each record before and after, by key; runs of other records are left as they are.

    Returns:
        The experiments in which runs were renamed.

    Raises:
        TrackingError: the store cannot be reached, or refuses.
    """
    if _is_missing(uri):
        return SweepRuns()
    contents = {record_mapping.fingerprint(before): after for before, after in records.values()}
    with _open(uri) as client:
        names, artifacts = _experiments(client), Artifacts(client, uri)
        runs = search_all(client, names, f"tags.`{NAME}` = {quoted(old)}")
        if runs and search_all(client, names, f"tags.`{NAME}` = {quoted(new)} and tags.`{KIND}` = 'sweep'"):
            raise TrackingError(f"MLflow has runs of a sweep {new} already: choose another name, or --keep-mlflow")
        renamed: set[str] = set()
        shas: dict[str, str] = {}
        kept = 0
        for run in sorted(runs, key=lambda run: run.data.tags.get(KIND) == "sweep"):  # the sweep's own run last
            run_id, tags = run.info.run_id, run.data.tags
            is_parent = tags.get(KIND) == "sweep"
            content = contents.get(tags.get(DONE, ""))
            if content is None and not is_parent:
                kept += 1
                continue
            if content is not None:
                artifacts.attach(run_id, RECORD, content)
                shas[run_id] = record_mapping.fingerprint(content)
                for tag in (BEGUN, DONE):
                    client.set_tag(run_id, tag, shas[run_id])
            if is_parent:
                client.update_run(run_id, name=new)
                _delete_views(client, run.info.experiment_id, old)
            client.set_tag(run_id, NAME, new)
            renamed.add(names[run.info.experiment_id])
        rename_versions(client, old, new, shas)
    return SweepRuns(experiments=tuple(sorted(renamed)), kept=kept)


def _is_missing(uri: str) -> bool:
    """Tell whether the store is a sqlite file that is not there, which a client would make."""
    path = sqlite_path(uri)
    return path is not None and not path.exists()


@contextlib.contextmanager
def _open(uri: str) -> Iterator[MlflowClient]:
    """Connect to the store; its errors, worded for who sends records, are told without that."""
    try:
        with connected(uri, LOCK_TIMEOUT_S, _ignore) as client:
            yield client
    except TrackingError as error:
        reason = str(error).removeprefix("records not sent to ").partition("; they are safe on disk")[0]
        raise TrackingError(reason) from error


def _ignore(_: str) -> None:
    """Take a line about a store that was replaced: one that is not written to was there before."""


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Return the name of each active experiment, by its id."""
    names: dict[str, str] = {}
    token: str | None = None
    while True:
        page = client.search_experiments(page_token=token)
        names |= {experiment.experiment_id: experiment.name for experiment in page}
        token = page.token
        if not token:
            return names


def _delete_views(client: MlflowClient, experiment_id: str, sweep: str) -> None:
    """Remove the saved views of a sweep and its parts from an experiment."""
    for tag in tags_of_views(client.get_experiment(experiment_id).tags, sweep):
        client.delete_experiment_tag(experiment_id, tag)

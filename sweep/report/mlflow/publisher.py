"""One sweep's records -> MLflow. Safe to call after every record, twice, or never."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.report.comparison import compared
from sweep.report.mlflow import record_mapping
from sweep.report.mlflow.client import connect, explained, failure, open_experiment
from sweep.report.mlflow.runs import Runs
from sweep.report.mlflow.saved_view import varying, view_link, view_tag, view_value
from sweep.report.mlflow.store_uri import ui_url
from sweep.system import file_locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mlflow import MlflowClient

    from sweep.spec import JsonDict
    from sweep.storage import Record, Store

FILES = ("config.yaml", "config.json", "report.html")  # of the sweep's folder; attached to its run
TURN_S = 30.0  # how long to wait for another publisher of the same folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What publishing did.

    Attributes:
        url: opens the saved view of the sweep; for a sqlite store, once ``sweep ui`` serves it. None when
            there was nothing to publish.
        sent: records written into MLflow.
        unchanged: records that were there already.
        seconds: wall time.
    """

    url: str | None
    sent: int
    unchanged: int
    seconds: float


class Publisher:
    """Sends one sweep's records to one experiment; mlflow is imported at the first use.

    The sweep's name stands for the sweep: two sweeps of one name in one experiment overwrite each other.

    Args:
        uri: tracking URI (see ``resolve_uri``).
        experiment: name of the experiment, made if there is none.
        sweep: name of the sweep.
        config: attached to the sweep's run where its folder holds no config of its own.
        artifacts: folder for the artifacts of a new experiment (see ``client.open_experiment``).
    """

    def __init__(
        self, uri: str, experiment: str, sweep: str, config: JsonDict | None = None, artifacts: Path | None = None
    ) -> None:
        self._uri, self._experiment, self._sweep = uri, experiment, sweep
        self._config, self._artifacts = config, artifacts

    def publish(self, records: Iterable[Record], store: Store, labels: Mapping[str, str] | None = None) -> Published:
        """Make MLflow show these records as they are on disk in ``store``.

        Args:
            records: to show.
            store: of the sweep.
            labels: names of the runs by the records' keys; None takes what tells `records` apart.

        Raises:
            TrackingError: the store cannot be reached or refuses; some records may have been sent. Against a
                server that is dead or silent, this comes within 10 s.
        """
        start, known = time.monotonic(), list({record.key: record for record in records}.values())
        if not known:
            return Published(url=None, sent=0, unchanged=0, seconds=0.0)
        client = connect(self._uri)
        with explained(self._uri), self._turn(store.root):
            url, sent = self._replay(client, known, store, labels or compared(known).labels)
        return Published(url=url, sent=sent, unchanged=len(known) - sent, seconds=time.monotonic() - start)

    def _replay(
        self, client: MlflowClient, records: list[Record], store: Store, labels: Mapping[str, str]
    ) -> tuple[str, int]:
        experiment = open_experiment(client, self._uri, self._experiment, self._artifacts)
        runs = Runs(client, experiment.experiment_id, self._sweep, labels)
        parent = runs.open_parent(min(record_mapping.started_ms(record) for record in records))
        sent = 0
        for record in records:
            files = _below(store.root, (record.engine or {}).get("artifacts", ()))
            sent += runs.send(record, store.record_path(record.key).read_bytes(), parent.info.run_id, files)
        runs.close_parent(max(record_mapping.ended_ms(record) for record in records), self._attachments(store.root))
        axes = varying([*(record_mapping.params(record) for record in records), *runs.params()])
        view = view_value(self._sweep, axes, parent.info.start_time)
        if experiment.tags.get(view_tag(self._sweep)) != view:
            client.set_experiment_tag(experiment.experiment_id, view_tag(self._sweep), view)
        return view_link(ui_url(self._uri), experiment.experiment_id, self._sweep), sent

    def _attachments(self, folder: Path) -> dict[str, str]:
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES if (folder / name).is_file()}
        if self._config is not None and not any(name.startswith("config.") for name in texts):
            texts["config.json"] = json.dumps(self._config, indent=1, sort_keys=True, default=str)
        return texts

    @contextlib.contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        """Hold the sweep's folder against other publishers, where its file system can lock a folder."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            deadline = time.monotonic() + TURN_S
            while not _locked(handle):
                if time.monotonic() > deadline:
                    raise failure(self._uri, f"another process has been publishing {folder} for {TURN_S:g} s")
                time.sleep(0.1)
            yield
        finally:
            os.close(handle)


def _below(root: Path, names: Iterable[str]) -> list[Path]:
    """Those files of a record that are in its sweep's folder: a record from elsewhere may name any other."""
    files = [root / str(name) for name in names]
    return [file for file in files if file.resolve().is_relative_to(root.resolve())]


def _locked(handle: int) -> bool:
    try:
        return file_locks.lock_descriptor(handle, wait=False)
    except OSError:  # NFS locks no folders: go on alone, `runs` heals what two publishers do
        return True

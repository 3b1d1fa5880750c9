"""Publish the records of one sweep to MLflow. A repeated call changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import interference
from sweep.errors import RecordError, TrackingBusyError
from sweep.report.comparison import compared, same_engines
from sweep.report.mlflow import record_mapping
from sweep.report.mlflow.artifacts import Artifacts
from sweep.report.mlflow.client import LOCK_TIMEOUT_S, connected, failure, open_experiment
from sweep.report.mlflow.new_run import RecordFile
from sweep.report.mlflow.pages_address import UiAddress, ui_address
from sweep.report.mlflow.runs import Runs
from sweep.report.mlflow.saved_view import tags_of_views, views
from sweep.system import file_locks, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlflow import MlflowClient

    from sweep.report.mlflow.saved_view import View
    from sweep.spec import JsonDict
    from sweep.storage import Record, Store

FILES = ("config.yaml", "config.json", "report.html")  # files of the sweep's folder that are attached to its run
_MOST_BYTES = 256 << 20  # of a file that is attached; a report of 100,000 points has a tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Summarise one publication.

    Attributes:
        url: link that opens the saved view of the sweep; for a sqlite store, once ``sweep ui`` serves it. None when
            there was nothing to publish.
        sent: number of records written into MLflow.
        unchanged: number of records that were there already.
        seconds: duration, s.
        notes: lines for the user, as of a store that was half made and is replaced.
        ui: address of the link; None when there was nothing to publish.
    """

    url: str | None
    sent: int
    unchanged: int
    seconds: float
    notes: tuple[str, ...] = ()
    ui: UiAddress | None = None


class Publisher:
    """Publish one sweep's records to one experiment; mlflow is imported at the first use.

    The sweep's name identifies the sweep: two sweeps of one name in one experiment overwrite each other.

    Args:
        uri: tracking URI (see ``resolve_uri``).
        experiment: name of the experiment, which is created if there is none.
        sweep: name of the sweep.
        config: configuration to attach to the sweep's run if the sweep's folder holds none.
        artifacts: folder for the artifacts of a new experiment (see ``client.open_experiment``).
    """

    def __init__(
        self, uri: str, experiment: str, sweep: str, config: JsonDict | None = None, artifacts: Path | None = None
    ) -> None:
        self._uri, self._experiment, self._sweep = uri, experiment, sweep
        self._config, self._artifacts = config, artifacts

    def publish(
        self,
        records: Iterable[Record],
        store: Store,
        labels: Mapping[str, str] | None = None,
        *,
        wait_s: float = LOCK_TIMEOUT_S,
    ) -> Published:
        """Make MLflow show these records as they are on disk in ``store``.

        Args:
            records: records to publish.
            store: folder of the sweep.
            labels: names of the runs by the records' keys; None labels them by the axes that differ between `records`.
            wait_s: longest wait for another process that publishes the same folder, or to the same sqlite store, s.

        Raises:
            TrackingBusyError: another process publishes for longer.
            TrackingError: MLflow's store cannot be reached or refuses; some records may have been sent. If the
                server is dead or silent, this is raised within 10 s.
        """
        start, unique = time.monotonic(), list({record.key: record for record in records}.values())
        if not unique:
            return Published(url=None, sent=0, unchanged=0, seconds=0.0)
        notes: list[str] = []
        with self._locked(store.root, wait_s), connected(self._uri, wait_s, notes.append) as client:
            url, sent, ui = self._replay(client, unique, store, labels or compared(unique).labels)
        seconds = time.monotonic() - start
        unchanged = len(unique) - sent
        return Published(url=url, sent=sent, unchanged=unchanged, seconds=seconds, notes=tuple(notes), ui=ui)

    def _replay(
        self, client: MlflowClient, records: list[Record], store: Store, labels: Mapping[str, str]
    ) -> tuple[str, int, UiAddress]:
        experiment = open_experiment(client, self._uri, self._experiment, self._artifacts)
        artifacts = Artifacts(client, self._uri, self._artifacts)
        runs = Runs(artifacts, experiment.experiment_id, self._sweep, labels, same_engines(records))
        parent = runs.open_parent(min(record_mapping.started_ms(record) for record in records))
        files = [
            RecordFile(
                record=record,
                content=regular_files.read_bytes(store.record_path(record.key), follow=False),
                files=_files_inside(store.root, (record.engine or {}).get("artifacts", ())),
                compared=_slowdowns(record, store),
            )
            for record in records
        ]
        sent = runs.send_all(files, parent.info.run_id)
        sent += runs.attach_layers({record.key: store.layers_path(record.key) for record in records})
        runs.close_parent(max(record_mapping.ended_ms(record) for record in records), self._attachments(store.root))
        whole, *parts = views(self._sweep, runs.shown(records))
        identity, created_ms = experiment.experiment_id, parent.info.start_time
        for view in (whole, *parts):
            if experiment.tags.get(view.tag) != (value := view.value(created_ms)):
                client.set_experiment_tag(identity, view.tag, value)
        for tag in set(tags_of_views(experiment.tags, self._sweep)) - {view.tag for view in (whole, *parts)}:
            client.delete_experiment_tag(identity, tag)  # of parts that the sweep no longer has
        runs.describe(_note(whole, parts, identity))
        ui = ui_address(self._uri)
        return whole.link(ui.url, identity), sent, ui

    def _attachments(self, folder: Path) -> dict[str, str]:
        texts = {}
        for name in FILES:
            # A link, a pipe or bytes that are no text are not of our making: the sweep is published without them.
            with contextlib.suppress(OSError, UnicodeDecodeError):
                texts[name] = regular_files.read_text(folder / name, follow=False, most=_MOST_BYTES)
        if self._config is not None and not any(name.startswith("config.") for name in texts):
            texts["config.json"] = json.dumps(self._config, indent=1, sort_keys=True, default=str)
        return texts

    @contextlib.contextmanager
    def _locked(self, folder: Path, wait_s: float) -> Iterator[None]:
        """Lock the sweep's folder against other publishers, where its file system can lock a folder."""
        try:
            handle = regular_files.open_folder(folder)
        except OSError as error:
            raise failure(self._uri, f"{folder} cannot be read ({error.strerror})") from error
        try:
            deadline = time.monotonic() + wait_s
            while not _lock(handle):
                if time.monotonic() >= deadline:
                    reason = f"another process has been publishing {folder} for {wait_s:g} s"
                    raise failure(self._uri, reason, TrackingBusyError)
                time.sleep(0.1)
            yield
        finally:
            os.close(handle)


def _slowdowns(record: Record, store: Store) -> dict[str, float]:
    """Return the factors by which networks beside this one slow it, where it was measured alone too."""
    key = interference.key_alone(record)
    if key is None or not store.record_path(key).exists():
        return {}
    try:
        slowdown = interference.slowdown_of(record, store.read(key))
    except RecordError:
        return {}
    figures = {} if slowdown is None else {"slowdown.throughput": slowdown.rate, "slowdown.p99": slowdown.p99}
    return {name: value for name, value in figures.items() if value is not None}


def _note(whole: View, parts: Sequence[View], experiment_id: str) -> str:
    """Return the description of the sweep's run: its views, as Markdown."""
    lines = [f"[Charts of all {whole.count} variants]({whole.link('', experiment_id).lstrip('/')})"]
    if parts:
        lines += ["", "MLflow lists 100 runs at first; views of parts:", ""]
        lines += [f"- [{view.part_text}]({view.link('', experiment_id).lstrip('/')}): {view.count}" for view in parts]
    return "\n".join(lines)


def _files_inside(root: Path, names: Iterable[str]) -> list[Path]:
    """Return the paths of `names` that lie in the folder `root`; a record from elsewhere may name any other file."""
    files = [root / str(name) for name in names]
    return [file for file in files if file.resolve().is_relative_to(root.resolve())]


def _lock(handle: int) -> bool:
    try:
        return file_locks.lock_descriptor(handle, wait=False)
    except OSError:  # NFS locks no folders: continue without a lock, since `Runs` removes what two publishers create
        return True

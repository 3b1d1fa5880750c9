"""Search and write the runs of one sweep in one experiment, so that a second replay changes nothing.

A run has the tag ``sweep.record_begun`` (the record's sha256) from its creation, and gets the tag ``sweep.record_sha``
last of all. If the second equals the sha256 of the file, the run is complete. If it is missing, a publisher died
half-way, and the run is completed. Any other run is stale, and is deleted once a complete run has replaced it.

New runs of a database are written whole, many in a transaction (``bulk_insert``); a server gets a few requests a run,
of several runs at a time.

Publishers on one machine lock the sweep's folder (see ``Publisher.publish``). On two machines both may create a run;
the next publication keeps the first and deletes the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.report.mlflow import record_mapping
from sweep.report.mlflow.bulk_insert import insert_runs, sql_store
from sweep.report.mlflow.client import search_all
from sweep.report.mlflow.new_run import NewRun
from sweep.report.mlflow.saved_view import Shown, colour, quoted
from sweep.report.mlflow.store_uri import is_http
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

    from sweep.report.mlflow.artifacts import Artifacts
    from sweep.report.mlflow.new_run import RecordFile
    from sweep.storage import Record

RUNS_A_TRANSACTION = 100
REQUESTS_AT_ONCE = 8
METRICS_A_BATCH, OTHERS_A_BATCH = 1000, 100  # limits that MLflow sets to one log_batch
KIND, NAME, KEY = "sweep.kind", "sweep.name", "sweep.key"
BEGUN, DONE = "sweep.record_begun", "sweep.record_sha"
SAME = "sweep.same_engine_as"
LAYERS = "sweep.layers_sha"  # of the layer profile that is attached
PARENT, FILES, COLOUR = "mlflow.parentRunId", "sweep.files_sha", "mlflow.runColor"
NOTE = "mlflow.note.content"
_REFUSED_TWIN = "IntegrityError"  # SQLAlchemy's name of what a database says of a key that is there already


class Runs:
    """Represent the runs of one sweep, as a search returned them and with what was written since.

    Args:
        artifacts: attaches files to the runs of a store, whose client it has.
        experiment_id: id of the experiment.
        sweep: name of the sweep.
        labels: names of the runs by the keys of their records; a record without an entry is named by its own label.
        same_engines: label of the variant whose engine a record has, by the key of the record.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        experiment_id: str,
        sweep: str,
        labels: Mapping[str, str],
        same_engines: Mapping[str, str],
    ) -> None:
        self._client, self._artifacts = artifacts.client, artifacts
        self._experiment_id, self._sweep = experiment_id, sweep
        self._labels, self._same_engines = labels, same_engines
        runs = sorted(self._search(), key=lambda run: (run.info.start_time, run.info.run_id))
        parents = [run for run in runs if run.data.tags.get(KIND) == "sweep"]
        self._variants: dict[str, list[Run]] = {}
        self._written: set[str] = set()  # keys of the records whose runs ``send_all`` wrote
        for run in runs:
            if run.data.tags.get(KIND) == "variant":
                self._variants.setdefault(run.data.tags.get(KEY, ""), []).append(run)
        self._numbers = {key: number for number, key in enumerate(self._variants)}
        self.parent: Run | None = parents[0] if parents else None
        self._duplicate_parents = parents[1:]

    def shown(self, records: Sequence[Record]) -> list[Shown]:
        """Return what a view needs to know of these records' runs, and of all others that the search returned."""
        own = {
            record.key: Shown(
                params=record_mapping.params(record), metrics={value.key for value in record_mapping.metrics(record)}
            )
            for record in records
        }
        others = [runs[0] for key, runs in self._variants.items() if key not in own]
        return [*own.values(), *(Shown(params=run.data.params, metrics=run.data.metrics.keys()) for run in others)]

    def open_parent(self, start_ms: int) -> Run:
        """Return the sweep's own run; create it at ``start_ms`` (Unix milliseconds) if there is none."""
        if self.parent is None:
            tags = {KIND: "sweep", NAME: self._sweep}
            self.parent = self._client.create_run(self._experiment_id, start_ms, tags, self._sweep)
        for duplicate in self._duplicate_parents:
            self._client.delete_run(duplicate.info.run_id)
        return self.parent

    def close_parent(self, end_ms: int, texts: dict[str, str]) -> None:
        """Attach the sweep's files (name -> content) if they changed; move its end to ``end_ms`` if later."""
        if self.parent is None:
            return
        run_id = self.parent.info.run_id
        sha = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
        if texts and self.parent.data.tags.get(FILES) != sha:
            for name, text in texts.items():
                self._artifacts.attach(run_id, name, text.encode())
            self._client.set_tag(run_id, FILES, sha)
        if end_ms > (self.parent.info.end_time or 0):
            self._client.set_terminated(run_id, "FINISHED", end_ms)

    def describe(self, text: str) -> None:
        """Set the description of the sweep's run, Markdown, if it is another."""
        if self.parent is not None and self.parent.data.tags.get(NOTE) != text:
            self._client.set_tag(self.parent.info.run_id, NOTE, text)

    def send_all(self, records: Sequence[RecordFile], parent_id: str) -> int:
        """Make the run of each record show it; return the number of those of which anything was written.

        Args:
            records: the records with their files.
            parent_id: id of the sweep's run.
        """
        jobs = [self._job(item) for item in records]
        fresh = [job for job in jobs if job.run is None]
        store = sql_store(self._client)
        if store is None:
            self._each(lambda job: self._send_new(job, parent_id), fresh)
        else:
            for start in range(0, len(fresh), RUNS_A_TRANSACTION):
                part = fresh[start : start + RUNS_A_TRANSACTION]
                insert_runs(store, self._experiment_id, [self._new_run(job, parent_id) for job in part], self._attach)
        self._each(lambda job: self._update(job, parent_id), [job for job in jobs if job.run is not None])
        for job in jobs:
            for stale in job.stale:
                self._client.delete_run(stale.info.run_id)
        self._written = {job.item.record.key for job in jobs if not job.is_complete}
        return len(self._written)

    def _each(self, action: Callable[[_Job], None], jobs: Sequence[_Job]) -> None:
        """Perform `action` on each job; of a server, on several at a time. The first error ends it."""
        if not is_http(self._artifacts.uri):
            for job in jobs:
                action(job)
            return
        pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        try:
            for _ in pool.map(action, jobs):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _job(self, item: RecordFile) -> _Job:
        """Return what is to be done about a record: its run if there is one, and the runs that it makes stale."""
        further = json.dumps(dict(item.compared)).encode() if item.compared else b""
        record, sha = item.record, record_mapping.fingerprint(item.content + further)
        runs = self._variants.get(record.key, [])
        done = next((run for run in runs if run.data.tags.get(DONE) == sha), None)
        run = done or next((run for run in runs if _half_done(run, sha)), None)
        number = self._numbers.setdefault(record.key, len(self._numbers))
        stale = [other for other in runs if other is not run]
        return _Job(item=item, sha=sha, number=number, run=run, is_complete=done is not None, stale=stale)

    def _new_run(self, job: _Job, parent_id: str) -> NewRun:
        """Return the run of a record that has none, whole."""
        record = job.item.record
        own = {KIND: "variant", NAME: self._sweep, KEY: record.key, PARENT: parent_id, BEGUN: job.sha}
        same = self._same_engines.get(record.key)
        same_tag = {} if same is None else {SAME: same}
        tags = {**own, COLOUR: colour(job.number), **same_tag, **record_mapping.tags(record), DONE: job.sha}
        return NewRun(
            name=self._name(record),
            status=_status(record),
            start_ms=record_mapping.started_ms(record),
            end_ms=record_mapping.ended_ms(record),
            tags=tags,
            params=record_mapping.params(record),
            metrics=[*record_mapping.metrics(record), *record_mapping.numbers(job.item.compared)],
            datasets=record_mapping.datasets(record),
            source=job.item,
        )

    def _send_new(self, job: _Job, parent_id: str) -> None:
        """Create the run of a record by requests to a server."""
        new = self._new_run(job, parent_id)
        first = {name: value for name, value in new.tags.items() if name != DONE}
        run = self._client.create_run(self._experiment_id, new.start_ms, first, new.name)
        self._fill(run, new, job)

    def _update(self, job: _Job, parent_id: str) -> None:
        """Complete the run that a record has, and correct what follows from the other records."""
        run, new = job.run, self._new_run(job, parent_id)
        if run is None:
            return
        run_id, tags = run.info.run_id, run.data.tags
        if tags.get(PARENT) != parent_id:  # the old parent was a duplicate, or deleted by hand
            self._client.set_tag(run_id, PARENT, parent_id)
        if run.info.run_name != new.name:  # labels grow longer when further variants are published
            self._client.update_run(run_id, name=new.name)
        if SAME in new.tags and tags.get(SAME) != new.tags[SAME]:
            self._client.set_tag(run_id, SAME, new.tags[SAME])
        if not job.is_complete:
            self._fill(run, new, job)

    def _fill(self, run: Run, new: NewRun, job: _Job) -> None:
        """Write everything of a run by requests, the tag DONE in the last one."""
        from mlflow.entities import Metric, Param, RunTag

        run_id = run.info.run_id
        self._attach(run_id, run.info.artifact_uri, job.item)
        self._client.set_terminated(run_id, new.status, new.end_ms)
        if new.datasets:
            log_datasets(self._client, run_id, [item.entity() for item in new.datasets])
        metrics = [Metric(value.key, value.value, new.start_ms, value.step) for value in new.metrics]
        params = [Param(name, value) for name, value in new.params.items()]
        # A run that was just created has its tags.
        tags = [] if job.run is None else [RunTag(name, value) for name, value in new.tags.items() if name != DONE]
        # MLflow limits metrics, params and tags of a call together.
        step = METRICS_A_BATCH - 2 * OTHERS_A_BATCH
        calls = max(-(-len(metrics) // step), -(-max(len(params), len(tags)) // (OTHERS_A_BATCH - 1)), 1)
        for n in range(calls):
            part = slice(n * (OTHERS_A_BATCH - 1), (n + 1) * (OTHERS_A_BATCH - 1))
            last = [RunTag(DONE, job.sha)] if n == calls - 1 else []
            self._client.log_batch(run_id, metrics[n * step : (n + 1) * step], params[part], [*tags[part], *last])

    def _attach(self, run_id: str, location: str, item: RecordFile) -> None:
        """Attach the file of a record, and what it names of its engine, to a run whose artifacts are at `location`."""
        self._artifacts.attach(run_id, "record.json", item.content, location=location)
        for path in item.files:
            self._artifacts.attach_file(run_id, path, "engine", location=location)

    def attach_layers(self, paths: Mapping[str, Path]) -> int:
        """Attach layer profiles to the runs of their variants, which may have been sent before there were any.

        Args:
            paths: profiles by the keys of their records; a file that is missing, or a link, is left out.

        Returns:
            The number of records that got one, without those that ``send_all`` wrote.
        """
        contents = {}
        for key, path in paths.items():
            with contextlib.suppress(OSError):
                contents[key] = regular_files.read_bytes(path, follow=False)
        attached = set()
        for run in self._search() if contents else ():
            key = run.data.tags.get(KEY, "") if run.data.tags.get(KIND) == "variant" else ""
            if key not in contents:
                continue
            sha = hashlib.sha256(contents[key]).hexdigest()
            if run.data.tags.get(LAYERS) != sha:
                location = run.info.artifact_uri
                self._artifacts.attach(run.info.run_id, paths[key].name, contents[key], "layers", location=location)
                self._client.set_tag(run.info.run_id, LAYERS, sha)
                attached.add(key)
        return len(attached - self._written)

    def _search(self) -> list[Run]:
        return search_all(self._client, [self._experiment_id], f"tags.`{NAME}` = {quoted(self._sweep)}")

    def _name(self, record: Record) -> str:
        return self._labels.get(record.key) or str(record.variant.get("label", record.key))


def log_datasets(client: MlflowClient, run_id: str, datasets: Sequence[DatasetInput]) -> None:
    """Log the datasets of a run.

    MLflow looks for a dataset and makes it if there is none; where another request, of this publisher or of another,
    makes it in between, its database refuses the second one. The dataset is there then, so the same call is made again.

    Raises:
        MlflowException: it fails for another reason, or more often than there are datasets.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(len(datasets) + 1):
        try:
            client.log_inputs(run_id, datasets=datasets)
        except MlflowException as error:
            if attempt == len(datasets) or _REFUSED_TWIN not in str(error):
                raise
        else:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Hold what is to be done about one record.

    Attributes:
        item: the record with its files.
        sha: fingerprint of what its run shows.
        number: its number among the variants of the sweep, for the colour.
        run: its run, complete or half done; None if it has none.
        is_complete: the run shows the record already.
        stale: runs to delete once it does.
    """

    item: RecordFile
    sha: str
    number: int
    run: Run | None
    is_complete: bool
    stale: Sequence[Run]


def _status(record: Record) -> str:
    return "FINISHED" if record.status in record_mapping.FINISHED else "FAILED"


def _half_done(run: Run, sha: str) -> bool:
    tags = run.data.tags
    return DONE not in tags and tags.get(BEGUN, sha) == sha

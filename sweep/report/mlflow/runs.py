"""Search and write the runs of one sweep in one experiment, so that a second replay changes nothing.

A run has the tag ``sweep.record_begun`` (the record's sha256) from its creation, and gets the tag ``sweep.record_sha``
last of all. If the second equals the sha256 of the file, the run is complete. If it is missing, a publisher died
half-way, and the run is completed. Any other run is stale, and is deleted once a complete run has replaced it.

Publishers on one machine lock the sweep's folder (see ``Publisher.publish``). On two machines both may create a run;
the next publication keeps the first and deletes the other.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from sweep.report.mlflow import record_mapping
from sweep.report.mlflow.saved_view import colour, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from sweep.report.mlflow.artifacts import Artifacts
    from sweep.storage import Record

PAGE = 1000  # runs per page of a search
METRICS_A_BATCH, OTHERS_A_BATCH = 1000, 100  # limits that MLflow sets to one log_batch
KIND, NAME, KEY = "sweep.kind", "sweep.name", "sweep.key"
BEGUN, DONE = "sweep.record_begun", "sweep.record_sha"
SAME = "sweep.same_engine_as"
PARENT, FILES, COLOUR = "mlflow.parentRunId", "sweep.files_sha", "mlflow.runColor"


class Runs:
    """Represent the runs of one sweep, as a search returned them and with what was written since.

    Args:
        client: client of the store.
        artifacts: attaches files to its runs.
        experiment_id: id of the experiment.
        sweep: name of the sweep.
        labels: names of the runs by the keys of their records; a record without an entry is named by its own label.
        same_engines: label of the variant whose engine a record has, by the key of the record.
    """

    def __init__(
        self,
        client: MlflowClient,
        artifacts: Artifacts,
        experiment_id: str,
        sweep: str,
        labels: Mapping[str, str],
        same_engines: Mapping[str, str],
    ) -> None:
        self._client, self._experiment_id, self._sweep = client, experiment_id, sweep
        self._artifacts = artifacts
        self._labels, self._same_engines = labels, same_engines
        runs = sorted(self._search(), key=lambda run: (run.info.start_time, run.info.run_id))
        parents = [run for run in runs if run.data.tags.get(KIND) == "sweep"]
        self._variants: dict[str, list[Run]] = {}
        for run in runs:
            if run.data.tags.get(KIND) == "variant":
                self._variants.setdefault(run.data.tags.get(KEY, ""), []).append(run)
        self.parent: Run | None = parents[0] if parents else None
        self._duplicate_parents = parents[1:]

    def params(self) -> list[dict[str, str]]:
        """Return the params of every variant that the search returned."""
        return [run.data.params for runs in self._variants.values() for run in runs]

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

    def send(self, record: Record, file: bytes, parent_id: str, files: Sequence[Path] = ()) -> bool:
        """Make the record's run show the record.

        Args:
            record: record to show.
            file: bytes of the record on disk, which are attached; a run that was written from them is left as it is.
            parent_id: id of the sweep's run.
            files: files about the engine to attach, if they still exist.

        Returns:
            Whether anything of the record was written; False if its run was complete.
        """
        sha = hashlib.sha256(file).hexdigest()
        runs = self._variants.get(record.key, [])
        run = next((run for run in runs if run.data.tags.get(DONE) == sha), None)
        complete = run is not None
        run = run or next((run for run in runs if _half_done(run, sha)), None)
        run_id = run.info.run_id if run else self._create(record, sha, parent_id)
        if run and run.data.tags.get(PARENT) != parent_id:  # the old parent was a duplicate, or deleted by hand
            self._client.set_tag(run_id, PARENT, parent_id)
        if run and run.info.run_name != self._name(record):  # labels grow longer when further variants are published
            self._client.update_run(run_id, name=self._name(record))
        same = self._same_engines.get(record.key)
        if same is not None and (run is None or run.data.tags.get(SAME) != same):
            self._client.set_tag(run_id, SAME, same)
        if not complete:
            self._fill(run_id, record, file)
            for path in files:
                self._artifacts.attach_file(run_id, path, "engine")
            self._client.set_tag(run_id, DONE, sha)
        for stale in runs:
            if stale is not run:
                self._client.delete_run(stale.info.run_id)
        return not complete

    def _search(self) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while True:
            query = f"tags.`{NAME}` = {quoted(self._sweep)}"
            page = self._client.search_runs([self._experiment_id], query, max_results=PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _create(self, record: Record, sha: str, parent_id: str) -> str:
        tags = {KIND: "variant", NAME: self._sweep, KEY: record.key, PARENT: parent_id, BEGUN: sha}
        index = list(self._variants).index(record.key) if record.key in self._variants else len(self._variants)
        tags[COLOUR] = colour(index)
        start_ms = record_mapping.started_ms(record)
        run = self._client.create_run(self._experiment_id, start_ms, tags, self._name(record))
        self._variants.setdefault(record.key, [])
        return str(run.info.run_id)

    def _name(self, record: Record) -> str:
        return self._labels.get(record.key) or str(record.variant.get("label", record.key))

    def _fill(self, run_id: str, record: Record, file: bytes) -> None:
        from mlflow.entities import Metric, Param, RunTag

        at = record_mapping.started_ms(record)
        metrics = [Metric(value.key, value.value, at, value.step) for value in record_mapping.metrics(record)]
        params = [Param(name, value) for name, value in record_mapping.params(record).items()]
        tags = [RunTag(name, value) for name, value in record_mapping.tags(record).items()]
        # MLflow limits metrics, params and tags of a call together.
        step = METRICS_A_BATCH - 2 * OTHERS_A_BATCH
        for n in range(max(-(-len(metrics) // step), -(-max(len(params), len(tags)) // OTHERS_A_BATCH))):
            part = slice(n * OTHERS_A_BATCH, (n + 1) * OTHERS_A_BATCH)
            self._client.log_batch(run_id, metrics[n * step : (n + 1) * step], params[part], tags[part])
        self._artifacts.attach(run_id, "record.json", file)
        status = "FINISHED" if record.status in record_mapping.FINISHED else "FAILED"
        self._client.set_terminated(run_id, status, record_mapping.ended_ms(record))


def _half_done(run: Run, sha: str) -> bool:
    tags = run.data.tags
    return DONE not in tags and tags.get(BEGUN, sha) == sha

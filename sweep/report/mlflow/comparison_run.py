"""Record a comparison of two sweeps in MLflow: a run with its table, and a saved view of the runs of both.

The runs of both sweeps get a tag with the side on which they were compared, since MLflow's search knows no "or": the
view shows the runs that have it, their curves over each other.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import TrackingError
from sweep.report.mlflow.artifacts import Artifacts
from sweep.report.mlflow.client import LOCK_TIMEOUT_S, connected, open_experiment, search_all
from sweep.report.mlflow.pages_address import ui_address
from sweep.report.mlflow.runs import COLOUR, KEY, KIND, NAME
from sweep.report.mlflow.saved_view import MAX_TAG, View, quoted, varying, view_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from sweep.storage import Record

COMPARISON = "sweep.comparison"  # of the run of a comparison: which
COMPARED = "sweep.compared."  # and the comparison, of a variant's run: OLD or NEW
_SIDES = ("OLD", "NEW")
_LIGHTNESS = (0.72, 0.32)
_DESCRIPTION = "mlflow.note.content"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRun:
    """Describe what was recorded.

    Attributes:
        url: link that opens the view of both sweeps' runs, or the run of the comparison where none of them is there.
        runs: number of runs of the earlier and of the later sweep that are in the view.
    """

    url: str
    runs: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Hold what the run of a comparison shows.

    Attributes:
        old: name of the earlier measurement.
        new: name of the later one.
        pairs: the earlier and the later record of each variant; None where there is none.
        metrics: counts and figures of the comparison, by name.
        text: description of the run, in Markdown.
        files: attached files, by name.
    """

    old: str
    new: str
    pairs: Sequence[tuple[Record | None, Record | None]]
    metrics: Mapping[str, float]
    text: str
    files: Mapping[str, bytes]

    @property
    def title(self) -> str:
        """Return the name of the run and of its view."""
        return f"{self.old} against {self.new}"


def record_comparison(uri: str, experiment: str, content: Content) -> ComparisonRun:
    """Record a comparison; one of the same two measurements replaces the earlier one.

    Args:
        uri: MLflow's store.
        experiment: name of the experiment, which is created if there is none.
        content: what to show.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    notes: list[str] = []
    try:
        with connected(uri, LOCK_TIMEOUT_S, notes.append) as client:
            return _record(client, uri, experiment, content)
    except TrackingError as error:  # it is worded for who sends records
        reason = str(error).removeprefix("records not sent to MLflow at ").partition("; they are safe on disk")[0]
        raise TrackingError(f"the comparison is not in MLflow at {reason}; the same command records it") from error


def _record(client: MlflowClient, uri: str, experiment_name: str, content: Content) -> ComparisonRun:
    experiment = open_experiment(client, uri, experiment_name, None)
    experiment_id, identity = str(experiment.experiment_id), view_key(content.title)
    earlier = search_all(client, [experiment_id], f"tags.`{COMPARISON}` = {quoted(identity)}")
    tags = {KIND: "comparison", COMPARISON: identity, _DESCRIPTION: content.text[:MAX_TAG]}
    run = client.create_run(experiment_id, tags=tags, run_name=content.title)
    run_id = str(run.info.run_id)
    for name, value in content.metrics.items():
        client.log_metric(run_id, name, value)
    artifacts = Artifacts(client, uri)
    for name, data in content.files.items():
        artifacts.attach(run_id, name, data)
    sides = [_tag_runs(client, experiment_id, content, identity, number) for number in range(len(_SIDES))]
    client.set_terminated(run_id, "FINISHED")
    for stale in earlier:
        client.delete_run(stale.info.run_id)
    shown = [run for runs in sides for run in runs]
    if not shown:
        url = f"{ui_address(uri).url}/#/experiments/{experiment_id}/runs/{run_id}"
        return ComparisonRun(url=url, runs=(0, 0))
    view = View(
        sweep=content.title,
        axes=varying([shown_run.data.params for shown_run in shown]),
        metrics=Counter(name for shown_run in shown for name in shown_run.data.metrics),
        count=len(shown),
        side_tag=COMPARED + identity,
    )
    client.set_experiment_tag(experiment_id, view.tag, view.value(int(run.info.start_time)))
    url = view.link(ui_address(uri).url, experiment_id)
    return ComparisonRun(url=url, runs=(len(sides[0]), len(sides[1])))


def _tag_runs(client: MlflowClient, experiment_id: str, content: Content, identity: str, number: int) -> list[Run]:
    """Tag the runs of side `number` with its name, and with a colour; return them.

    Both runs of a variant have one name, so that the colour tells them apart: one hue, pale for OLD.
    """
    from mlflow.entities import RunTag

    records = {row: record for row, pair in enumerate(content.pairs) if (record := pair[number]) is not None}
    wanted = {record.key: _colour(row, number) for row, record in records.items()}
    names = dict.fromkeys((*(record.sweep for record in records.values()), (content.old, content.new)[number]))
    tagged = []
    for sweep in names:
        of_variants = f"tags.`{NAME}` = {quoted(sweep)} and tags.`{KIND}` = 'variant'"
        for run in search_all(client, [experiment_id], of_variants):
            chosen = wanted.get(run.data.tags.get(KEY, ""))
            if chosen is not None:
                tags = {COMPARED + identity: _SIDES[number], COLOUR: chosen}
                new = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
                if new:
                    client.log_batch(run.info.run_id, tags=new)
                tagged.append(run)
    return tagged


def _colour(row: int, side: int) -> str:
    """Return the colour of one side of a row: hues a golden ratio apart, as those of a sweep's runs."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + row * 0.618034) % 1.0, _LIGHTNESS[side], 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))

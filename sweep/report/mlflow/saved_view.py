"""Compose the saved views of sweeps and comparisons: an experiment tag each, and the link that opens the charts on it.

MLflow's "share view" button writes such a tag. It is undocumented, which is why mlflow is pinned and the view is
tested in a browser. Field names are those of MLflow 3.17's user interface.

A view has the charts for which its runs have figures. MLflow lists 100 runs at first, more by a button below its list:
a larger sweep gets a view for each part of at most 100 runs too.
"""

from __future__ import annotations

import base64
import colorsys
import contextlib
import hashlib
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.report.mlflow.record_mapping import CAPACITY, CURVE_X, ENERGY, MEMORY, PEAK, SQNR, TAIL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sweep.spec import JsonDict

THROUGHPUT = CURVE_X
SECTION, WIDE_SECTION = "sweep", "axes"
GENERATED = ("curve", "latency", "Model metrics")  # sections in which MLflow draws every metric; the view folds them
CURVES = ("curve", "latency")  # those of the curves
LISTED = 100  # runs that MLflow lists at first, and draws
MOST_BARS = 40  # that can still be read
MOST_PARTS = 60  # views of one sweep; of more parts there are none
MAX_TAG = 5000  # characters; older servers refuse more
MAX_AXES = 5  # parallel axes that can still be read
FIXED_AXES = ("model", "precision", "batch", "streams")  # axes of a sweep in which nothing varies
_TABLES = (("model",), ("precision",))  # axes whose parts follow from the param of that name
RESULTS = (PEAK, TAIL)
_TAG, _PACKED = "mlflow.sharedViewState.", "deflate;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Hold what a view needs to know of a run.

    Attributes:
        params: its params.
        metrics: names of its metrics.
    """

    params: Mapping[str, str]
    metrics: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Describe the view of a sweep, or of the runs of a sweep that have some values in common.

    Attributes:
        sweep: name of the sweep.
        axes: params for the parallel coordinates, from ``varying``.
        metrics: names of the metrics that its runs have, and of how many runs each.
        count: number of its runs.
        part: params and values that its runs have in common; none of the whole sweep.
        side_tag: tag of the compared runs of two sweeps, whose value is the side; empty for the view of a sweep.
    """

    sweep: str
    axes: Sequence[str]
    metrics: Mapping[str, int]
    count: int
    part: tuple[tuple[str, str], ...] = ()
    side_tag: str = ""

    @property
    def name(self) -> str:
        """Return the name that MLflow lists."""
        if self.side_tag:
            return f"compare {self.sweep}"
        return f"sweep {self.sweep}{': ' if self.part else ''}{self.part_text}"

    @property
    def part_text(self) -> str:
        """Return what the runs have in common, as ``model=resnet50 precision=fp16``."""
        return " ".join(f"{name}={value}" for name, value in self.part)

    @property
    def key(self) -> str:
        """Return the key of the view (see ``view_key``)."""
        return view_key(f"{self.sweep} {self.part_text}".rstrip())

    @property
    def tag(self) -> str:
        """Return the name of the experiment tag that holds the view."""
        return f"{_TAG}{self.key}"

    @property
    def query(self) -> str:
        """Return the search that selects its runs."""
        if self.side_tag:
            return f"tags.`{self.side_tag}` != ''"
        values = [("tags", "sweep.kind", "variant"), ("tags", "sweep.name", self.sweep)]
        values += [("params", name, value) for name, value in self.part]
        return " AND ".join(f"{kind}.`{name}` = {quoted(value)}" for kind, name, value in values)

    def link(self, ui: str, experiment_id: str) -> str:
        """Return the link that opens the view.

        Args:
            ui: address of MLflow's pages.
            experiment_id: id of the experiment.
        """
        # ``workflowType`` keeps MLflow from a dialog that asks for the kind of the experiment.
        return (
            f"{ui}/#/experiments/{experiment_id}/runs?compareRunsMode=CHART"
            f"&workflowType=machine_learning&viewStateShareKey={self.key}"
        )

    def value(self, created_ms: int) -> str:
        """Return the value of the view's tag: the same for the same view, and at most ``MAX_TAG`` characters long.

        Args:
            created_ms: time of creation, Unix milliseconds; MLflow requires it and shows it nowhere.

        Raises:
            AssertionError: the value is longer than MLflow takes.
        """
        state = json.dumps(_state(self)).encode()
        packed = _PACKED + base64.b64encode(zlib.compress(state, 9)).decode()
        value = json.dumps({"name": self.name, "createdAt": created_ms, "updatedAt": created_ms, "state": packed})
        if len(value) > MAX_TAG:
            raise AssertionError(f"the view {self.name!r} takes {len(value)} characters, MLflow holds {MAX_TAG}")
        return value


def view_key(identity: str) -> str:
    """Return the key of a view of this identity, which is readable, and safe in a tag and a link."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def tags_of_views(tags: Mapping[str, str], sweep: str) -> list[str]:
    """Return the names of those tags of an experiment that hold a view of the sweep or of a part of it."""
    whole = View(sweep=sweep, axes=(), metrics={}, count=0).query
    names = []
    for name, value in tags.items():
        # A tag of that name that cannot be read is not of our making.
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, zlib.error):
            if name.startswith(_TAG):
                packed = json.loads(value)["state"].removeprefix(_PACKED)
                query = json.loads(zlib.decompress(base64.b64decode(packed)))["searchFilter"]
                if query == whole or query.startswith(f"{whole} AND "):
                    names.append(name)
    return names


def views(sweep: str, runs: Sequence[Shown]) -> list[View]:
    """Return the view of the whole sweep, and of more than ``LISTED`` runs those of its parts."""
    axes = varying([run.params for run in runs])
    parts = _parts((), runs, axes) if len(runs) > LISTED else []
    whole = [((), runs)]
    return [
        View(
            sweep=sweep,
            axes=varying([run.params for run in own]),
            metrics=Counter(name for run in own for name in run.metrics),
            count=len(own),
            part=part,
        )
        for part, own in [*whole, *(parts if len(parts) <= MOST_PARTS else [])]
    ]


_Part = tuple[tuple[tuple[str, str], ...], "Sequence[Shown]"]


def _parts(part: tuple[tuple[str, str], ...], runs: Sequence[Shown], axes: Sequence[str]) -> list[_Part]:
    """Divide runs by the values of one axis after the other, until no part has more than ``LISTED``."""
    if len(runs) <= LISTED or not axes:
        return [(part, runs)]
    groups: dict[str, list[Shown]] = {}
    for run in runs:
        groups.setdefault(run.params.get(axes[0], "none"), []).append(run)
    if len(groups) == 1:
        return _parts(part, runs, axes[1:])
    return [item for value, own in sorted(groups.items()) for item in _parts((*part, (axes[0], value)), own, axes[1:])]


def varying(variants: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the params that differ between the variants, at most ``MAX_AXES``; ``FIXED_AXES`` if none does.

    Params of the load and of a script come after those that have a name without a dot.
    """
    names = dict.fromkeys(name for variant in variants for name in variant if "." not in name)
    names |= dict.fromkeys(axis.param for axis in spec.all_axes() if axis.info.key and axis.path[1:2] not in _TABLES)
    varying_names = [name for name in names if len({variant.get(name, "none") for variant in variants}) > 1]
    return varying_names[:MAX_AXES] or list(FIXED_AXES)


def colour(index: int) -> str:
    """Return the colour of the sweep's run number ``index``; MLflow's own choice may give two runs the same.

    Hues a golden ratio apart stay distinct for any count; the lightness changes from one to the next.
    """
    hue, lightness = (0.58 + index * 0.618034) % 1.0, (0.42, 0.58, 0.3)[index % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.75))
    return f"#{red:02x}{green:02x}{blue:02x}"


def quoted(text: str) -> str:
    """Quote ``text`` for MLflow's search language, which has two kinds of quotes and no escape."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _state(view: View) -> JsonDict:
    results = [name for name in (*RESULTS, CAPACITY, SQNR, ENERGY) if view.metrics.get(name)][:3]
    side = [f"tags.`{view.side_tag}`"] if view.side_tag else []
    columns = [*side, *(f"params.`{name}`" for name in view.axes), *(f"metrics.`{name}`" for name in results)]
    charts = _charts(view, results)
    sections = {chart["metricSectionId"] for chart in charts}
    has_curves = bool(view.metrics.get(THROUGHPUT))
    own = {SECTION: ("latency at throughput" if has_curves else "results", 2), WIDE_SECTION: ("axes to results", 1)}
    # Sorted by time, MLflow hides child runs.
    order = (f"metrics.`{PEAK}`", False) if view.metrics.get(PEAK) else ("tags.`mlflow.runName`", True)
    return {
        "searchFilter": view.query,
        "orderByKey": order[0],
        "orderByAsc": order[1],
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # sections in our order, not in the alphabet's
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "compareRunCharts": charts,
        "compareRunSections": [
            *(_section(name, *own[name], display=True) for name in own if name in sections),
            *(_section(name, name, 2, display=False) for name in GENERATED if has_curves or name not in CURVES),
        ],
        "globalLineChartConfig": {"xAxisKey": "metric", "lineSmoothness": 0, "selectedXAxisMetricKey": THROUGHPUT},
    }


def _section(uuid: str, name: str, columns: int, *, display: bool) -> JsonDict:
    return {"uuid": uuid, "name": name, "display": display, "isReordered": False, "columns": columns, "cardHeight": 400}


def _charts(view: View, results: Sequence[str]) -> list[JsonDict]:
    """Return the charts for which runs of the view have figures."""
    charts = [
        _line(percentile, f"{percentile} latency (ms, log) at throughput (samples/s)", "log")
        for percentile in ("p99", "p50")
        if view.metrics.get(f"curve/{percentile}_ms")
    ]
    charts += [
        _chart("SCATTER", f"{y} at {PEAK}", uuid=f"peak-{y}", xaxis=_metric(PEAK), yaxis=_metric(y))
        for y in (TAIL, SQNR, ENERGY, MEMORY)
        if min(view.metrics.get(PEAK, 0), view.metrics.get(y, 0)) > 1
    ]
    if view.count <= MOST_BARS:
        charts += [
            _chart("BAR", name, uuid=name, metricKey=name) for name in (PEAK, CAPACITY) if view.metrics.get(name)
        ]
    if results:
        wide = {"metricSectionId": WIDE_SECTION, "selectedParams": [*view.axes], "selectedMetrics": [*results]}
        charts.append(_chart("PARALLEL", "axes to results", showAllRuns=True, **wide))
    return charts


def _metric(name: str) -> JsonDict:
    return {"key": name, "type": "METRIC"}


def _line(percentile: str, title: str, scale: str) -> JsonDict:
    metric = f"curve/{percentile}_ms"
    return _chart(
        "LINE",
        title,
        uuid=percentile,
        metricKey=metric,
        scaleType=scale,
        xAxisKey="metric",
        selectedXAxisMetricKey=THROUGHPUT,
        xAxisScaleType="linear",
        yAxisKey="metric",
        yAxisExpressions=[],
        range={},
        lineSmoothness=0,
        ignoreOutliers=False,
        displayPoints=True,
        useGlobalXaxisKey=False,
        useGlobalLineSmoothing=False,
    )


def _chart(kind: str, title: str, **settings: Any) -> JsonDict:
    return {
        "uuid": kind.lower(),
        "type": kind,
        "displayName": title,
        "runsCountToCompare": LISTED,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }

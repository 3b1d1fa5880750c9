"""Compose the saved view of a sweep: one experiment tag, and the link that opens the charts on it.

MLflow's "share view" button writes such a tag. It is undocumented, which is why mlflow is pinned and the view is
tested in a browser. Field names are those of MLflow 3.17's user interface.
"""

from __future__ import annotations

import base64
import colorsys
import hashlib
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.report.mlflow.record_mapping import CAPACITY, CURVE_X, PEAK, TAIL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sweep.spec import JsonDict

THROUGHPUT = CURVE_X
SECTION = "sweep"
GENERATED = ("curve", "latency", "Model metrics")  # sections in which MLflow draws every metric; the view folds them
MAX_TAG = 5000  # characters; older servers refuse more
MAX_AXES = 5  # parallel axes that can still be read
FIXED_AXES = ("model", "precision", "batch", "streams")  # axes of a sweep in which nothing varies
_TABLES = (("model",), ("precision",))  # axes whose parts follow from the param of that name
RESULTS = (PEAK, TAIL)


def view_key(sweep: str) -> str:
    """Return the key of the sweep's view, which is readable, and safe in a tag and a link."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", sweep).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(sweep.encode()).hexdigest()[:8]}"


def view_tag(sweep: str) -> str:
    """Return the name of the experiment tag that holds the view."""
    return f"mlflow.sharedViewState.{view_key(sweep)}"


def view_link(ui: str, experiment_id: str, sweep: str) -> str:
    """Return the link that opens the view.

    Args:
        ui: address of MLflow's pages.
        experiment_id: id of the experiment.
        sweep: name of the sweep.
    """
    # ``workflowType`` keeps MLflow from a dialog that asks for the kind of the experiment.
    return (
        f"{ui}/#/experiments/{experiment_id}/runs?compareRunsMode=CHART"
        f"&workflowType=machine_learning&viewStateShareKey={view_key(sweep)}"
    )


def view_value(sweep: str, axes: list[str], created_ms: int) -> str:
    """Return the value of the view's tag: the same for the same arguments, and at most ``MAX_TAG`` characters long.

    Args:
        sweep: name of the sweep whose variants the view shows.
        axes: params for the parallel coordinates, from ``varying``.
        created_ms: time of creation, Unix milliseconds; MLflow requires it and shows it nowhere.

    Raises:
        AssertionError: the value is longer than MLflow takes.
    """
    state = json.dumps(_state(sweep, axes)).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state, 9)).decode()
    value = json.dumps({"name": f"sweep {sweep}", "createdAt": created_ms, "updatedAt": created_ms, "state": packed})
    if len(value) > MAX_TAG:
        raise AssertionError(f"the saved view of {sweep!r} takes {len(value)} characters, MLflow holds {MAX_TAG}")
    return value


def varying(variants: list[Mapping[str, str]]) -> list[str]:
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


def _state(sweep: str, axes: list[str]) -> JsonDict:
    columns = [*(f"params.`{name}`" for name in axes), *(f"metrics.`{name}`" for name in RESULTS)]
    return {
        "searchFilter": f"tags.`sweep.kind` = 'variant' AND tags.`sweep.name` = {quoted(sweep)}",
        "orderByKey": "tags.`mlflow.runName`",  # sorted by time, MLflow hides child runs
        "orderByAsc": True,
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
        "hideEmptyCharts": True,  # such as the capacity of a sweep without an SLO
        "groupBy": None,
        "groupsExpanded": {},
        "compareRunCharts": _charts(axes),
        "compareRunSections": [
            _section(SECTION, "latency at throughput", display=True),
            *(_section(name, name, display=False) for name in GENERATED),
        ],
        "globalLineChartConfig": {"xAxisKey": "metric", "lineSmoothness": 0, "selectedXAxisMetricKey": THROUGHPUT},
    }


def _section(uuid: str, name: str, *, display: bool) -> JsonDict:
    return {"uuid": uuid, "name": name, "display": display, "isReordered": False, "columns": 2, "cardHeight": 400}


def _charts(axes: list[str]) -> list[JsonDict]:
    peak, tail = ({"key": name, "type": "METRIC"} for name in RESULTS)
    return [
        _line("p99", "p99 latency (ms, log) at throughput (samples/s)", "log"),
        _line("p50", "p50 latency (ms, log) at throughput (samples/s)", "log"),
        _chart("SCATTER", "p99 at 80% load against peak throughput", xaxis=peak, yaxis=tail),
        _chart("BAR", "peak throughput (samples/s)", uuid="peak", metricKey=RESULTS[0]),
        _chart("PARALLEL", "axes to results", selectedParams=axes, selectedMetrics=list(RESULTS), showAllRuns=True),
        _chart("BAR", "throughput that holds the SLO (samples/s)", uuid="capacity", metricKey=CAPACITY),
    ]


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
        "runsCountToCompare": 100,  # MLflow's own limit
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }

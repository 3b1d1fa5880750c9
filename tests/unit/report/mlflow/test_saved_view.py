"""The saved view's tag: small enough for every server, stable, one for each sweep."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from sweep.report.mlflow.saved_view import Shown, View, colour, tags_of_views, varying, views


def state(value: str) -> dict[str, object]:
    packed = json.loads(value)["state"].removeprefix("deflate;")
    unpacked: dict[str, object] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return unpacked


def view(sweep: str, *axes: str, **metrics: int) -> View:
    return View(sweep=sweep, axes=axes or ("batch",), metrics=metrics, count=2)


def test_the_filter_takes_this_sweep_only() -> None:
    wanted = "tags.`sweep.kind` = 'variant' AND tags.`sweep.name` = "
    assert state(view("night").value(1))["searchFilter"] == wanted + "'night'"
    assert state(view("bob's").value(1))["searchFilter"] == wanted + '"bob\'s"'


@pytest.mark.parametrize("sweep", ["night", "nächtlich/übers Wochenende", "x" * 255])
def test_names_of_any_kind_fit_the_tag(sweep: str) -> None:
    every = {"curve/p99_ms": 2, "curve/p50_ms": 2, "peak_samples_per_s": 2, "p99_at_80_percent_ms": 2}
    every |= {"accuracy.sqnr_db": 2, "energy_mj_per_sample": 2, "device_memory_mib": 2, "capacity_samples_per_s": 2}
    of = view(sweep, "intra_op_threads", "cuda_graph", "precision", "clients", "streams", **every)
    assert len(of.value(1767607200000)) < 4000
    assert of.tag == f"mlflow.sharedViewState.{of.key}"
    assert len(of.tag) < 100
    assert of.tag.isascii()
    assert of.link("http://lab", "7").endswith(f"viewStateShareKey={of.key}")


def test_sweeps_whose_names_read_the_same_have_views_of_their_own() -> None:
    assert view("a b").key != view("a-b").key


def test_a_view_has_charts_of_what_its_runs_have_alone() -> None:
    def drawn(of: View) -> list[tuple[str, str | None]]:
        charts: list[Any] = state(of.value(1))["compareRunCharts"]  # type: ignore[assignment]
        return [(chart["type"], chart.get("metricKey") or (chart.get("yaxis") or {}).get("key")) for chart in charts]

    assert drawn(view("s")) == []
    closed = {"peak_samples_per_s": 2, "accuracy.sqnr_db": 2, "p99_at_80_percent_ms": 0}
    wanted = [("SCATTER", "accuracy.sqnr_db"), ("BAR", "peak_samples_per_s"), ("PARALLEL", None)]
    assert drawn(view("s", **closed)) == wanted
    many = View(sweep="s", axes=("batch",), metrics=closed, count=41)
    assert drawn(many) == [wanted[0], wanted[2]], "more bars than can be read"
    curves = drawn(view("s", **closed, **{"curve/p99_ms": 1, "curve/achieved_samples_per_s": 1}))
    assert curves == [("LINE", "curve/p99_ms"), *wanted]


def test_a_sweep_of_more_runs_than_mlflow_lists_has_views_of_its_parts() -> None:
    runs = [
        Shown(params={"model": model, "batch": str(batch), "seed": "0"}, metrics={"peak_samples_per_s"})
        for model, batches in (("a", 150), ("b's", 60))
        for batch in range(batches)
    ]
    assert [of.part for of in views("s", runs[:100])] == [()]
    whole, *parts = views("s", [*runs[:90], *runs[150:]])
    assert (whole.count, [(of.part_text, of.count) for of in parts]) == (150, [("model=a", 90), ("model=b's", 60)])
    assert parts[1].query.endswith('AND params.`model` = "b\'s"')
    assert parts[0].name == "sweep s: model=a"
    assert len({of.tag for of in (whole, *parts)}) == 3
    assert [of.part for of in views("s", runs)] == [()], "more parts than anybody looks through"


def test_the_views_of_a_sweep_are_told_from_those_of_others_and_of_users() -> None:
    own = [View(sweep="s", axes=(), metrics={}, count=1, part=part) for part in ((), (("model", "a"),))]
    compared = View(sweep="s against s2", axes=(), metrics={}, count=2, side_tag="sweep.compared.x")
    tags = {of.tag: of.value(1) for of in (*own, view("s2"), compared)}
    tags |= {"mlflow.sharedViewState.a": "no JSON", "mlflow.sharedViewState.b": "[]", "other": own[0].value(1)}
    assert tags_of_views(tags, "s") == [of.tag for of in own]
    shown = state(compared.value(1))
    assert shown["searchFilter"] == "tags.`sweep.compared.x` != ''"
    assert shown["selectedColumns"][0] == "tags.`sweep.compared.x`"  # type: ignore[index]


def test_the_parallel_axes_are_those_that_vary() -> None:
    assert varying([{"model": "m", "batch": "1", "load.x": "1"}, {"model": "m", "batch": "8", "load.x": "2"}]) == [
        "batch"
    ]
    assert varying([{"model": "m"}]) == ["model", "precision", "batch", "streams"]
    assert len(varying([{name: str(run) for name in "abcdefgh"} for run in range(2)])) == 5


def test_neighbouring_runs_differ_in_colour() -> None:
    assert len({colour(index) for index in range(100)}) == 100

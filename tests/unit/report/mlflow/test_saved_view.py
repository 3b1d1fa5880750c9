"""The saved view's tag: small enough for every server, stable, one for each sweep."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from sweep.report.mlflow.saved_view import colour, varying, view_key, view_link, view_tag, view_value


def state(value: str) -> dict[str, object]:
    packed = json.loads(value)["state"].removeprefix("deflate;")
    unpacked: dict[str, object] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return unpacked


def test_the_filter_takes_this_sweep_only() -> None:
    wanted = "tags.`sweep.kind` = 'variant' AND tags.`sweep.name` = "
    assert state(view_value("night", ["batch"], 1))["searchFilter"] == wanted + "'night'"
    assert state(view_value("bob's", ["batch"], 1))["searchFilter"] == wanted + '"bob\'s"'


@pytest.mark.parametrize("sweep", ["night", "nächtlich/übers Wochenende", "x" * 255])
def test_names_of_any_kind_fit_the_tag(sweep: str) -> None:
    value = view_value(sweep, ["intra_op_threads", "cuda_graph", "precision", "clients", "streams"], 1767607200000)
    assert len(value) < 4000
    assert view_tag(sweep) == f"mlflow.sharedViewState.{view_key(sweep)}"
    assert len(view_tag(sweep)) < 100
    assert view_tag(sweep).isascii()
    assert view_link("http://lab", "7", sweep).endswith(f"viewStateShareKey={view_key(sweep)}")


def test_sweeps_whose_names_read_the_same_have_views_of_their_own() -> None:
    assert view_key("a b") != view_key("a-b")


def test_the_parallel_axes_are_those_that_vary() -> None:
    assert varying([{"model": "m", "batch": "1", "load.x": "1"}, {"model": "m", "batch": "8", "load.x": "2"}]) == [
        "batch"
    ]
    assert varying([{"model": "m"}]) == ["model", "precision", "batch", "streams"]
    assert len(varying([{name: str(run) for name in "abcdefgh"} for run in range(2)])) == 5


def test_neighbouring_runs_differ_in_colour() -> None:
    assert len({colour(index) for index in range(100)}) == 100

"""The recipe that a search writes: a choice of the group `precision`, which plans what was searched."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import pytest
from factories import config, variant

from sweep.config import compose, variants
from sweep.runner import recipe_file
from sweep.spec import Gates, NodeSearch, Precision
from sweep.spec.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import Variant

SEARCH = NodeSearch(gates=Gates(min_sqnr_db=30.0))
ODD = Precision(
    name="mine",
    dtype="int8",
    rest="fp16",
    wide=True,
    guard=True,
    keep=("fc", "/head/*"),
    quantize_ops=("Conv", "MatMul"),
    per_channel=False,
    calibration_batches=3,
    calibration_method="percentile",
    calibration_percentile=99.5,
)


def found(keep: list[str], recipe: str | None = "net_mine_kept_0a1b2c") -> dict:
    figures = {"sqnr_db": 1.0}
    return {
        "gates": {"min_sqnr_db": 30.0},
        "reached": True,
        "nodes": keep,
        "keep": keep,
        "evaluations": 7,
        "exhausted": False,
        "judged_on": "onnxruntime",
        "before": figures,
        "after": figures,
        "recipe": recipe,
    }


def planned(folder: Path, *words: str) -> Variant:
    request = compose.read(("--config-dir", str(folder), *words))
    assert request is not None
    return variants.from_config(request.configs[0])


@pytest.mark.parametrize("recipe", [ODD, Precision(name="fp16", dtype="fp16", keep_io=False)], ids=["int8", "fp16"])
def test_the_recipe_plans_the_searched_variant_with_its_nodes(recipe: Precision, tmp_path: Path) -> None:
    keep = ["fc", "a 'quoted' [[]node]", "[$]{seed}", "[C]onv", "null"]
    asked = variant(precision=dataclasses.replace(recipe, search=SEARCH))
    settings = Settings(name="s", results=tmp_path)
    path = recipe_file.write(asked, found(keep), settings)
    assert path == tmp_path / "recipes" / "precision" / "net_mine_kept_0a1b2c.yaml"
    again = planned(tmp_path / "recipes", "backend=onnxruntime", "precision=net_mine_kept_0a1b2c")
    expected = dataclasses.replace(recipe, name="net_mine_kept_0a1b2c", keep=tuple(keep), search=None)
    assert again.onnx == dataclasses.replace(asked.onnx, precision=expected)


def test_its_comment_has_the_command_that_takes_it(tmp_path: Path) -> None:
    settings = Settings(name="s", results=tmp_path / "a folder")
    model = dataclasses.replace(variant().onnx.model, path="/models/odd, name\n.onnx")
    asked = variant(model, dataclasses.replace(ODD, search=SEARCH))
    lines = recipe_file.write(asked, found([]), settings).read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert comment == lines[:3], "a line break in a path ends no comment"
    assert "reach accuracy.min_sqnr_db=30:" in comment[0]
    assert comment[1] == "# 0, searched with 7 evaluations on onnxruntime."
    words = shlex.split(comment[2].removeprefix("# "))
    assert words[-4:] == [
        "--config-dir",
        str(tmp_path / "a folder" / "recipes"),
        words[-2],
        "precision=net_mine_kept_0a1b2c",
    ]


def test_what_reaches_no_gate_is_no_recipe(tmp_path: Path) -> None:
    assert recipe_file.write(variant(precision=ODD), found(["fc"], None), Settings(name="s", results=tmp_path)) is None
    assert list(tmp_path.iterdir()) == []
    assert variants.from_config(config()).onnx.precision.search is None

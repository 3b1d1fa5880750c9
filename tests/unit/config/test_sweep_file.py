"""The YAML that people write: lists, what is left out, lines in errors, and the schema for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from sweep.cli import commands
from sweep.config import compose, constraints, json_schema, sweep_file
from sweep.config.schema import Config, help_lines
from sweep.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
model: {name: tiny_cnn}
load: closed
load.warmup_s: 0.5
seed: 7
sweep:
  precision: [fp32, fp16]
  batch: [1, 8]
  streams: [1, 4]
where: batch * streams <= 8
exclude:
  - precision: fp16
    batch: [8]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def rows(request):
    return [(item.model.name, item.precision.name, item.batch, item.streams) for item in request.configs]


def test_lists_are_swept_and_what_is_left_out_is_counted(tmp_path) -> None:
    request = sweep_file.read(written(tmp_path, FILE), [])
    assert rows(request) == [
        ("tiny_cnn", "fp32", 1, 1),
        ("tiny_cnn", "fp32", 1, 4),
        ("tiny_cnn", "fp32", 8, 1),
        ("tiny_cnn", "fp16", 1, 1),
        ("tiny_cnn", "fp16", 1, 4),
    ]
    assert request.left_out == 3
    first = request.configs[0]
    assert (first.load.kind, first.load.warmup_s, first.seed) == ("closed", 0.5, 7)


def test_words_of_the_command_line_win(tmp_path) -> None:
    request = sweep_file.read(written(tmp_path, FILE), ["batch=2", "precision=fp16", "seed=1", "where=streams==4"])
    assert rows(request) == [("tiny_cnn", "fp16", 2, 4)]
    assert request.configs[0].seed == 1


def test_a_model_has_values_of_its_own_and_combinations_stand_one_by_one(tmp_path) -> None:
    text = """\
sweep: {model: [tiny_cnn, mlp], batch: [1]}
per_model: {mlp: {batch: [2, 4], load: {points: 3}}}
include: [{model: digits, precision: int8, batch: 3}]
"""
    request = sweep_file.read(written(tmp_path, text), [])
    assert [row[::2] for row in rows(request)] == [("tiny_cnn", 1), ("mlp", 2), ("mlp", 4), ("digits", 3)]
    assert [config.load.points for config in request.configs] == [Config().load.points, 3, 3, Config().load.points]
    alone = sweep_file.read(written(tmp_path, "include: [{batch: 2, streams: 4}, {batch: 8}]"), [])
    assert [row[2:] for row in rows(alone)] == [(2, 4), (8, 1)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: resnet50\nload:\n  pionts: 3\n", "my.yaml:3: load.pionts: no such key; did you mean load.points?"),
        ("seed: 1\nsweep:\n  batch: [1, x]\n", "my.yaml:3: batch=x: "),
        ("batch: [1, 8]\n", "my.yaml:1: batch: takes one value; to sweep over several, put it below `sweep:`"),
        ("sweep:\n  batch: []\n", "my.yaml:2: batch: sweeps over nothing"),
        ("batch: 1\nbatch: 8\n", "my.yaml:2: batch: stands twice"),
        ("seed: 1\nhydra:\n  sweeper: {}\n", "my.yaml:2: hydra: belongs to an experiment of --config-dir"),
        ("sweep: [batch]\n", "my.yaml:1: sweep: give a table"),
        ("seed: 1\nwhere: batch *\n", "my.yaml:2: where: batch *: cannot be read"),
        ("where: btach > 1\n", "my.yaml: btach: no such key; did you mean batch?"),
        ("where: mps > 1\n", "my.yaml:1: where: mps > 1: '>' not supported"),
        ("where: open('x')\n", "my.yaml:1: where: open('x'): only numbers, texts, keys"),
        ("where: batch > 9\n", "my.yaml:1: where: batch > 9: leaves none of 1 combinations"),
        ("model: mlp\nper_model: {digits: {batch: 1}}\n", "my.yaml:2: digits: per_model has it, and"),
        ("sweep: {model: [mlp]}\nper_model:\n  mlp: {slo.p99_ms: 5}\n", "slo.p99_ms: belongs to the whole sweep"),
        ("exclude: {batch: 1}\n", "my.yaml:1: exclude: give a list of combinations"),
        ("graph: evil:run\n", "my.yaml:1: graph=evil:run stands in a YAML, and functions run only if you name them"),
        ("", "my.yaml: is empty"),
        ("- 1\n", "my.yaml:1: give KEY: VALUE"),
        ("a: [\n", "my.yaml: while parsing"),
    ],
)
def test_an_error_is_one_line_with_the_line_of_the_file(tmp_path, text, line) -> None:
    with pytest.raises(SweepError) as error:
        sweep_file.read(written(tmp_path, text), [])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_value_that_is_refused_when_it_is_planned_has_its_line_too(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "model: tiny_cnn\nsweep:\n  batch: [1, 0]\n")
    assert commands.main(["run", str(path), "plan=true"]) == 2
    assert capsys.readouterr().err.startswith(f"sweep: {path}:3: batch=0: ")
    assert commands.main([str(path)]) == 2
    assert "to run the sweep of that file: " in capsys.readouterr().err


def test_an_experiment_has_lists_too(tmp_path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    text = (
        "# @package _global_\nsweep: {precision: [fp32, fp16], batch: [1, 8]}\nwhere: batch < 8 or precision == 'fp16'"
    )
    (folder / "mine.yaml").write_text(text)
    words = [f"--config-dir={tmp_path}", "+experiment=mine"]
    request = compose.read(words)
    assert [row[1:3] for row in rows(request)] == [("fp32", 1), ("fp16", 1), ("fp16", 8)]
    assert [row[1:3] for row in rows(compose.read([*words, "batch=2"]))] == [("fp32", 2), ("fp16", 2)]


@pytest.mark.parametrize(
    ("word", "right"), [("precision=[fp16,int8]", "precision=fp16,int8"), ("batch=[1, 8]", "batch=1,8")]
)
def test_a_list_on_the_command_line_is_refused_with_the_right_form(word, right) -> None:
    with pytest.raises(ConfigError, match=f"takes one value, no list; to sweep over them, write {right}$"):
        compose.read([word])


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("batch * streams <= 64", True),
        ("batch in [1, 2] and not cuda_graph", True),
        ("precision == 'int8' or load.points > 100", False),
        ("mps == null and -batch < 0 < batch // 1", True),
        ("model in ['mlp']", False),
    ],
)
def test_expressions(condition, expected) -> None:
    assert constraints.holds(condition, Config()) is expected


def test_init_makes_a_file_that_plans_and_a_schema_that_knows_every_key(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(["init", "my"]) == 0
    schema = json.loads((tmp_path / "my" / "sweep.schema.json").read_text())
    assert schema == json_schema.schema()
    known = set(schema["properties"]["sweep"]["properties"])
    keys = {
        line.split()[0] for line in help_lines() if ".NAME." not in line and not line.startswith("  backend.script")
    }
    assert keys <= known | {"sweep", "where", "exclude"}
    written_keys = yaml.safe_load((tmp_path / "my" / "sweep.yaml").read_text())
    assert set(written_keys) <= set(schema["properties"])
    assert len(sweep_file.read(tmp_path / "my" / "sweep.yaml", []).configs) == 8
    assert commands.main(["init", "my"]) == 2
    assert "is there already, and is not replaced" in capsys.readouterr().err
    assert commands.main(["init", "my", "--schema"]) == 0

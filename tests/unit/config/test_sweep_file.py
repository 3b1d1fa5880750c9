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


def test_where_of_a_file_is_for_its_sweep_and_where_of_the_command_line_for_all(tmp_path) -> None:
    text = """\
sweep: {model: [tiny_cnn, mlp], batch: [1, 8]}
where: batch < 8
exclude: [{model: mlp}]
include: [{model: mlp, batch: 16}]
"""
    request = sweep_file.read(written(tmp_path, text), [])
    assert [row[::2] for row in rows(request)] == [("tiny_cnn", 1), ("mlp", 16)]
    assert request.left_out == 3
    request = sweep_file.read(written(tmp_path, text), ["where=model == 'mlp'"])
    assert [row[::2] for row in rows(request)] == [("mlp", 16)]
    assert request.left_out == 4
    with pytest.raises(ConfigError, match="where: batch > 99: leaves none of 2 combinations"):
        sweep_file.read(written(tmp_path, text), ["where=batch > 99"])
    with pytest.raises(ConfigError, match=r"my.yaml:2: where: leaves out combinations of `sweep`, and there is none"):
        sweep_file.read(written(tmp_path, "include: [{batch: 2}]\nwhere: batch < 2\n"), [])


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
        ("where: btach > 1\n", "my.yaml:1: where: btach > 1: btach: no such key; did you mean batch?"),
        ("where:\n  - batch < 9\n  - batch >\n", "my.yaml:3: where: batch >: cannot be read"),
        ("where: precision == int8\n", "a text has quotes, as in 'int8'"),
        ("where: mps > 1\n", "my.yaml:1: where: mps > 1: '>' not supported"),
        ("where: open('x')\n", "my.yaml:1: where: open('x'): only numbers, texts, keys"),
        ("where: batch > 9\n", "my.yaml:1: where: batch > 9: leaves none of 1 combinations"),
        ("model: mlp\nper_model: {digits: {batch: 1}}\n", "my.yaml:2: digits: per_model has it, and"),
        ("sweep: {model: [mlp]}\nper_model:\n  mlp: {slo.p99_ms: 5}\n", "slo.p99_ms: belongs to the whole sweep"),
        ("exclude: {batch: 1}\n", "my.yaml:1: exclude: give a list of combinations"),
        ("graph: evil:run\n", "my.yaml:1: graph=evil:run stands in a YAML, and functions run only if you name them"),
        ("sweep:\n  batch:\n    - 1\n    - x\n", "my.yaml:4: batch=x: is no whole number"),
        ("batch: 4\nsweep: {batch: [1, 8]}\n", "my.yaml:2: batch: stands below `sweep:` and outside of it"),
        ("load: {kind: closed}\nload.kind: poisson\n", "my.yaml:2: load.kind: stands twice; keep one of them"),
        ("sweep: {batch: [[1, 8], [2]]}\n", "my.yaml:1: batch: a list stands in its list; give the values one by one"),
        ("sweep: {batch: [{a: 1}]}\n", "my.yaml:1: batch: a table stands in its list"),
        ("sweep:\n", "my.yaml:1: sweep: sweeps over nothing"),
        ("sweep:\n  3: [4]\n", "my.yaml:2: 3: is no key"),
        ("load..x: 3\n", "my.yaml:1: load..x: is no key"),
        ("batch: 2024-13-45\n", "my.yaml:1: 2024-13-45: cannot be read as timestamp; put text into quotes"),
        ("batch: !!int x\n", "my.yaml:1: x: cannot be read as int"),
        ("seed: 1\n<<: 3\n", "my.yaml:2: "),
        (f"batch: {'x' * 100_000}\n", "my.yaml:1: batch=xxx"),
        ("seed: 1\n+batch: 3\n", "my.yaml:2: +batch: is no key; write batch"),
        ("? [a, b]\n: 3\n", "my.yaml:1: a list or a table is no key"),
        ("x: &a [1, 8]\nsweep: {batch: *a}\n", "my.yaml:1: x: no such key"),
        ("load: &l {kind: closed}\ninclude:\n  - {<<: *l, batch: 2}\n", "my.yaml:1: kind: no such key"),
        ("include:\n  - {batch: 2}\n  - {btach: 3}\n", "my.yaml:3: btach: no such key; did you mean batch?"),
        (
            "exclude:\n  - {batch: 2}\n  - {precision: fp61}\n",
            "my.yaml:3: precision=fp61: no such precision; there are",
        ),
        ("exclude: [{batch: two}]\n", "my.yaml:1: batch=two: `exclude` has it, and it is no number"),
        ("model: no\n", "my.yaml:1: model=false: is no name of a choice"),
        ("model: conf/mlp.yaml\n", "my.yaml:1: model=conf/mlp.yaml: no such model; give a name, as in model=mlp"),
        ("seed: 2\nbatch: ${sed}\n", "my.yaml:2: batch='${sed}': Interpolation key 'sed' not found"),
        ("", "my.yaml: is empty"),
        ("---\n", "my.yaml: is empty"),
        ("- 1\n", "my.yaml:1: give KEY: VALUE"),
        ("seed: 1\na: [\n", "my.yaml:3: the bracket that opens here"),
        ("seed: 1\nmodel: 'mlp\n", "my.yaml:2: the quote that begins here never ends"),
        ("sweep:\n  batch: [1]\n precision: [fp16]\n", "my.yaml:3: the line is indented unlike"),
        ("sweep:\n\tbatch: [1]\n", "my.yaml:2: a tab cannot stand here; indent with spaces"),
        ("where: batch: 3\n", "my.yaml:1: a second `:` on a line"),
        ("sweep: {batch: *b}\n", "my.yaml:1: no anchor (&NAME) has the name"),
        ("batch: 1\n---\nbatch: 2\n", "my.yaml:2: a second document begins"),
        ("batch: !!python/name:os.system\n", "my.yaml:1: a tag (!...) cannot stand here"),
        ("seed: 1\nmodel: m\0\n", "my.yaml:2: a control character cannot stand"),
        ("seed: 1\r\nbtach: 2\r\n", "my.yaml:2: btach: no such key"),
    ],
)
def test_an_error_is_one_line_with_the_line_of_the_file(tmp_path, text, line) -> None:
    with pytest.raises(SweepError) as error:
        sweep_file.read(written(tmp_path, text), [])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_any_bytes_are_one_line_and_a_mark_in_front_of_the_text_is_none_of_it(tmp_path) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b"seed: 1\nmodel: ml\xe9\n")
    with pytest.raises(ConfigError, match=r"my\.yaml:2: is no UTF-8 text; save the file as UTF-8$"):
        sweep_file.read(path, [])
    path.write_bytes(b"\xef\xbb\xbfsweep: {batch: [1, 8]}\r\n")
    assert len(sweep_file.read(path, []).configs) == 2


def test_a_value_that_is_refused_when_it_is_planned_has_its_line_too(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "model: tiny_cnn\nsweep:\n  batch: [1, 0]\n")
    assert commands.main(["run", str(path), "plan=true"]) == 2
    assert capsys.readouterr().err.startswith(f"sweep: {path}:3: batch=0: ")
    assert commands.main([str(path)]) == 2
    assert "to run the sweep of that file: " in capsys.readouterr().err


@pytest.fixture
def mine(tmp_path):
    """Write an experiment of the user's folder, and return the words that name it."""

    def write(text: str, group: str = "experiment") -> list[str]:
        path = tmp_path / group / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return [f"--config-dir={tmp_path}", "+experiment=mine" if group == "experiment" else f"{group}=mine"]

    return write


@pytest.mark.parametrize("head", ["", "# @package _global_\ndefaults: [override /load: closed]\n"])
def test_an_experiment_has_lists_too(mine, head) -> None:
    """With ``defaults`` Hydra composes it, without it is a file as any other."""
    text = f"{head}sweep: {{precision: [fp32, fp16], batch: [1, 8]}}\nwhere: batch < 8 or precision == 'fp16'"
    words = mine(text)
    request = sweep_file.read_words(words)
    assert request is not None
    assert [row[1:3] for row in rows(request)] == [("fp32", 1), ("fp16", 1), ("fp16", 8)]
    assert request.overrides == ("+experiment=mine", "precision=fp32,fp16", "batch=1,8")
    assert [row[1:3] for row in rows(sweep_file.read_words([*words, "batch=2"]))] == [("fp32", 2), ("fp16", 2)]


def test_an_experiment_has_what_a_file_has(mine, capsys) -> None:
    text = "model: mlp\nload: closed\ninclude: [{batch: 2}]\nper_model: {mlp: {batch: [3]}}\nsweep: {seed: [0]}\n"
    text = text.replace("sweep: {seed: [0]}", "sweep: {streams: [1, 2]}")
    request = sweep_file.read_words([*mine(text), "slo.p99_ms=5"])
    assert [row[2:] for row in rows(request)] == [(3, 1), (3, 2), (2, 1)]
    assert {(config.model.name, config.load.kind, config.slo.p99_ms) for config in request.configs} == {
        ("mlp", "closed", 5.0)
    }
    assert sweep_file.read_words([*mine(text), "--cfg", "job"]) is None
    assert "\n  name: mlp\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "group", "line"),
    [
        ("load:\n  pionts: 3\n", "experiment", r"mine\.yaml:2: load\.pionts: no such key; did you mean load\.points\?"),
        ("defaults: [override /load: closed]\nbatch: x\n", "experiment", r"mine\.yaml:3: batch: is no whole number"),
        ("hydra: {sweeper: {params: {\nbtach: '1,8'}}}\n", "experiment", r"mine\.yaml:3: btach: no such key"),
        ("defaults: [\n", "experiment", r"mine\.yaml:3: the bracket that opens here"),
        ("kind: closed\nmin_ss: 3\n", "load", r"mine\.yaml:2: load\.min_ss: no such key; did you mean load\.min_s\?"),
        ("kind: closed\nmin_s: x\n", "load", r"mine\.yaml:2: load\.min_s: is no number"),
    ],
)
def test_an_error_of_an_experiment_and_of_a_choice_names_file_and_line(mine, text, group, line) -> None:
    head = "# @package _global_\n" if text.startswith(("defaults", "hydra")) else ""
    with pytest.raises(ConfigError, match=line):
        sweep_file.read_words(mine(f"{head}{text}", group))


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
        ("batch < 8\n  and batch > 0\n", True),
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
    known = set(schema["properties"])
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

"""The schema for editors: it takes what the reader takes, and marks what the reader refuses."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from sweep.config import conf_files, json_schema
from sweep.config.key_lines import HYDRA
from sweep.config.schema import help_lines

SCHEMA = json_schema.schema()
EDITOR = jsonschema.Draft7Validator(SCHEMA)
DOCS = Path(__file__).resolve().parents[3] / "docs"
EXPERIMENTS = [yaml.safe_load(path.read_text()) for path in (conf_files.conf_folder() / "experiment").glob("*.yaml")]


def marks(text: str) -> list[str]:
    return [error.message for error in EDITOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema_and_has_every_key_in_every_place() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    keys = {line.split()[0] for line in help_lines() if ".NAME." not in line} - {
        "sweep",
        "where",
        "exclude",
        "backend.script",
    }
    assert keys <= set(SCHEMA["properties"])
    assert {key for key in keys if key.startswith("load.")} <= set(SCHEMA["definitions"]["swept"]["properties"])


def test_experiments_and_files_of_the_docs_have_no_mark() -> None:
    own = [content for content in EXPERIMENTS if not set(HYDRA) & set(content)]
    assert len(own) > 5
    for page in ("own-yaml.md",):
        blocks = (DOCS / "howto" / page).read_text().split("```{code-block} yaml\n")[1:]
        shown = [yaml.safe_load(block.split("\n\n", 1)[1].partition("```")[0]) for block in blocks]
        own += [content for content in shown if "sweep" in content]
    assert len(own) > 7
    for content in own:
        assert [error.message for error in EDITOR.iter_errors(content)] == []


@pytest.mark.parametrize(
    "text",
    [
        "model: {path: a.onnx}\nload: closed\nload.points: 3\nslo.p99_ms: 5\nmodel.inputs: {x: {shape: [batch, 3]}}",
        "sweep: {batch: 8, load: {points: [3, 5]}, model.path: [a.onnx, b.onnx], load.rates_ips: [[1, 2], [3]]}",
        "where: [batch < 3]\nexclude: [{batch: [1, 2], precision: int8}]\ninclude: [{load: {points: 3}, batch: 1}]",
        "sweep: {model: [mlp, own]}\nper_model: {own: {batch: [3], precision: [fp16]}}\nmps: null\nonly: [batch:8]",
    ],
)
def test_what_the_reader_takes_has_no_mark(text) -> None:
    assert marks(text) == []


@pytest.mark.parametrize(
    "text",
    [
        *("modle: mlp", "load: {min_ss: 3}", "load.min_ss: 3", "batch: eight", "batch: [1, 8]", "model: no", "load: 3"),
        *("sweep: {btach: [1]}", "sweep: {batch: [[1]]}", "sweep: {batch: []}", "sweep: {slo: {p99_ms: [5]}}"),
        *("sweep: [batch]", "sweep:", "sweep: {sweep: {batch: [1]}}", "where: 3", "exclude: {batch: 1}"),
        *("exclude: [{btach: 1}]", "include: [{btach: 1}]", "include: [{batch: [1, 2]}]", "per_model: [mlp]"),
        *("per_model: {mlp: {btach: [1]}}", "per_model: {mlp: {slo.p99_ms: 5}}", "hydra: {}"),
    ],
)
def test_what_the_reader_refuses_is_marked(text) -> None:
    assert marks(text) != []

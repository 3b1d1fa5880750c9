"""Profiles are found by a record, a sweep, a variant's label or their own file; what has none is told in one line."""

import dataclasses
import json

import pytest
from measured_runs import record
from profiled_layers import FP16, profile, write

from sweep.errors import ConfigError, RecordError
from sweep.report import html
from sweep.report.layers import NoProfileError, find, profile_path, summaries
from sweep.storage import Store


@pytest.fixture
def sweep(tmp_path):
    """A sweep of batch 1, 4 and 8, of which 1 and 8 have a profile; 8 has the highest peak."""
    store = Store(tmp_path / "results" / "night")
    records = [record(batch, [1000.0 * batch]) for batch in (1, 4, 8)]
    for item in records:
        store.write(item)
    for item in (records[0], records[2]):
        write(profile_path(store.root, item.key), profile(item.key, *FP16))
    return store, {item.variant["batch"]: item.key for item in records}


def labels(*arguments, **options) -> list[str]:
    return [source.profile["label"] for source in find(*arguments, **options)]


def test_every_way_to_name_a_profile_leads_to_it(sweep, tmp_path) -> None:
    store, keys = sweep
    results = tmp_path / "results"
    assert labels("night", results=results) == [keys[8]]
    assert labels(str(store.root)) == [keys[8]]
    assert labels(str(store.record_path(keys[1]))) == [keys[1]]
    assert labels(str(profile_path(store.root, keys[1]))) == [keys[1]]
    assert labels("night", ["b1", keys[8]], results=results) == [keys[1], keys[8]]
    source = find("night", results=results)[0]
    assert (source.path, source.analysis.totals.layers_us) == (profile_path(store.root, keys[8]), 150.0)


def test_a_variant_without_a_profile_names_those_that_have_one(sweep, tmp_path) -> None:
    store, keys = sweep
    for place in ("night", str(store.record_path(keys[4]))):
        variants = ["b4"] if place == "night" else []
        with pytest.raises(NoProfileError, match="was measured without a layer profile") as refusal:
            find(place, variants, results=tmp_path / "results")
        assert refusal.value.record.key == keys[4]
        assert ("; --variant takes one that has: tiny_cnn fp32 b1 s1, tiny_cnn fp32 b8 s1" in str(refusal.value)) is (
            place == "night"
        )


@pytest.mark.parametrize(
    ("place", "variants", "line"),
    [
        ("nigth", [], "nigth: no record, no layer profile and no sweep; the sweeps below .* are: night"),
        (
            "night",
            ["b16"],
            "--variant b16: no variant has that label; they are: tiny_cnn fp32 b1 s1, tiny_cnn fp32 b4 s1, ",
        ),
        ("night", ["fp32"], "3 variants have these words; they are: tiny_cnn fp32 b1 s1, "),
    ],
)
def test_what_is_not_there_is_told_with_what_is(sweep, tmp_path, place, variants, line) -> None:
    with pytest.raises(ConfigError, match=line):
        find(place, variants, results=tmp_path / "results")


def test_a_variant_that_did_not_run_is_told_its_error_and_no_command(sweep, tmp_path) -> None:
    store, keys = sweep
    error = {"stage": "plan", "kind": "Unsupported", "message": "onnxruntime does not have cuda_graph"}
    store.write(dataclasses.replace(store.read(keys[4]), status="unsupported", error=error))
    with pytest.raises(ConfigError, match="is unsupported, so it has no layers: onnxruntime does not") as refusal:
        find("night", ["b4"], results=tmp_path / "results")
    assert not isinstance(refusal.value, NoProfileError)


def test_a_file_that_is_neither_is_refused_and_takes_no_variant(sweep, tmp_path) -> None:
    store, keys = sweep
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(ConfigError, match="is neither a record"):
        find(str(other))
    with pytest.raises(ConfigError, match="--variant chooses from a whole sweep"):
        find(str(store.record_path(keys[1])), ["b1"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"schema": 2}, "has schema 2, this version reads up to 1: update sweep"),
        ({"timed_us": -1.0}, r"is damaged \(Expected `float` >= 0.0 - at `\$.timed_us`\)"),
        ({"layers": [{"name": 3}]}, r"is damaged \(Expected `str`, got `int`"),
        (None, r"is damaged \(Input data was truncated"),
    ],
)
def test_a_damaged_profile_is_one_line_that_says_where(tmp_path, change, line) -> None:
    path = write(tmp_path / "layers" / "k.json", {**profile("net", *FP16), **(change or {})})
    if change is None:
        path.write_text(path.read_text()[:-9])
    with pytest.raises(RecordError, match=line) as refusal:
        find(str(path))
    assert "\n" not in str(refusal.value)


def test_a_profile_keeps_fields_of_later_versions_out_of_the_way(tmp_path) -> None:
    path = write(tmp_path / "k.json", {**profile("net", *FP16), "new": 1})
    assert labels(str(path)) == ["net"]
    assert json.loads(path.read_text())["new"] == 1


def test_the_page_of_the_sweep_has_a_row_for_each_profile_that_can_be_read(sweep) -> None:
    store, keys = sweep
    records = list(store.readable())
    profile_path(store.root, keys[1]).write_text("{")
    [row] = rows = summaries({"night": store.root, records[0].sweep: store.root}, records)
    assert row == {
        "label": "tiny_cnn fp32 b8 s1",
        "timed": "160",
        "layers": "150",
        "gemm": "100%",
        "kinds": "convolution 100%",
        "finding": "none that costs much",
        "command": f"sweep layers {store.root} --variant {keys[8]}",
    }
    page = html.render("night", records, commands=html.Commands(profiles=rows))
    assert f"<code>sweep layers {store.root} --variant {keys[8]}</code>" in page
    assert 'id="profiles"' not in html.render("night", records)

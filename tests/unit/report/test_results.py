"""Where records are read from: folders, names, baselines; and what is no such place."""

import dataclasses
import json
from pathlib import Path

import pytest
from measured_runs import record, results, run

import sweep
from sweep.analysis.start_spread import StartSpread
from sweep.errors import ConfigError
from sweep.report import encode_baseline, load
from sweep.storage.store import Store


def written(root: Path, *records) -> Path:
    for item in records:
        Store(root).write(item)
    return root


def test_a_folder_a_name_and_a_folder_of_several_sweeps_are_read(tmp_path: Path) -> None:
    written(tmp_path / "results" / "a", record(1), record(2))
    written(tmp_path / "results" / "group" / "b", record(1))
    for place, name, count in (
        (tmp_path / "results" / "a", "a", 2),
        ("a", "a", 2),
        ("group/b", "group/b", 1),
        (tmp_path / "results", str(tmp_path / "results"), 3),
    ):
        read = load(place, results=tmp_path / "results")
        assert (read.name, len(read)) == (name, count)
    assert sorted(path.name for path in read.roots) == ["a", "b"]


def test_a_damaged_record_is_named_and_the_rest_read(tmp_path: Path) -> None:
    root = written(tmp_path / "a", record(1), record(2))
    Store(root).record_path(record(1).key).write_text("{")
    read = sweep.load(root)
    assert [item.key for item in read.records] == [record(2).key]
    assert len(read.damaged) == 1
    assert f"{record(1).key}.json is damaged" in read.damaged[0]


def test_a_baseline_holds_the_records_and_what_starts_were_known_to_differ_by(tmp_path: Path) -> None:
    old = run("a", seed=1)
    spread = StartSpread(cv=0.004, freedom=7.0, source="the sentinel")
    known = dataclasses.replace(old, spreads={old.records[0].key: spread})
    path = tmp_path / "base.json"
    path.write_bytes(encode_baseline(known))
    read = load(path)
    assert read.name == "a"
    assert {item.key: item.peak for item in read.records} == {item.key: item.peak for item in old.records}
    assert read.start_spreads() == {old.records[0].key: spread}
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + len(old.records) + 1  # one record a line: a diff shows what changed
    assert encode_baseline(read) == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{", "is no baseline ("),
        (b"[1]", "is no baseline ("),
        (
            b'{"format": "other", "version": 1, "records": []}',
            "is no baseline: `sweep export SWEEP --json FILE` writes one",
        ),
        (
            b'{"format": "sweep-records", "version": 9, "records": []}',
            "has version 9, this version reads up to 1: update",
        ),
        (
            b'{"format": "sweep-records", "version": 1, "records": [{}]}',
            "record 1: record None.json is damaged (it has no",
        ),
        (b"\xff\xfe", "is no baseline ("),
    ],
)
def test_a_file_that_is_no_baseline_is_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "the same sweep" not in str(caught.value)


def test_a_damaged_record_in_a_baseline_is_named(tmp_path: Path) -> None:
    content = json.loads(encode_baseline(results("a", record(1))))
    content["records"][0]["peak"]["ips"] = "fast"
    path = tmp_path / "base.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"record 1: .*peak.ips: Expected `int \| float \| null`, got `str`"):
        load(path)


def test_a_place_without_records_is_one_line_with_the_sweeps_that_there_are(tmp_path: Path) -> None:
    written(tmp_path / "driver-a", record(1))
    with pytest.raises(ConfigError, match=r"drivera: no folder with records.*did you mean driver-a?"):
        load("drivera", results=tmp_path)
    with pytest.raises(ConfigError, match=r"the sweeps below .* are: driver-a"):
        load("zzzzz", results=tmp_path)
    with pytest.raises(ConfigError, match="are: none"):
        load("x", results=tmp_path / "nowhere")


def test_earlier_sweeps_tell_what_starts_differ_by_but_never_the_one_compared_with(tmp_path: Path) -> None:
    for name, ips in {"a": 1000.0, "b": 900.0, "c": 1010.0, "d": 990.0, "e": 1005.0}.items():
        written(tmp_path / name, record(1, [ips]))
    key = record(1).key
    with_b = load("a", results=tmp_path).start_spreads()[key]
    without = load("a", results=tmp_path).start_spreads(exclude=[tmp_path / "b"])[key]
    assert with_b.cv > 0.04
    assert without.cv < 0.01
    compared = load("a", results=tmp_path).compare(load("b", results=tmp_path))
    assert compared.rows[0].outcome == "slower"
    assert "starts differ by 0.9%, says its earlier records" in compared.evidence

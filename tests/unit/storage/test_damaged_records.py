"""A record either loads, and then every reader can use it, or is refused as damaged in one line; nothing in between."""

import copy
import dataclasses
import io
import json
import math
import re
import tempfile
from pathlib import Path

import factories
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_readers import sound_record, use_record
from rich.console import Console

from sweep.cli.console import Terminal
from sweep.cli.recompute import summaries
from sweep.errors import NewerRecordError, RecordError
from sweep.report import html, table
from sweep.report.ranking import answer
from sweep.runner import plan, resume
from sweep.spec.outcome import DriftVerdict, SloVerdict, Status, Verdict
from sweep.spec.settings import Settings
from sweep.storage import record_file
from sweep.storage.record import SCHEMA, Record
from sweep.storage.record_index import Index
from sweep.storage.store import Store

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = next((ROOT / "tests" / "data" / "schemas" / "1").glob("*.json"))
PUBLISHED = sorted(ROOT.glob("results/reference/**/records/*.json")) + sorted(ROOT.glob("tests/data/records/*.json"))
PEAK_IPS = 15020.4  # of that record
ROW = ["15,020", "~0.765", "-", "4.05", "38.7", "30.6"]  # its figures in the table
ODD = [
    *(None, True, -1, 0, 1, 2, 10**30, -0.5, 0.5, 1e-320, 1e308, math.nan, math.inf),
    *("", "x", "ok", "drifted", "held", "confirm", "2026-01-01", [], [1], [1.0, 2.0], [None], ["x"], [{}]),
    *({}, {"x": 1}, {"p50": "x"}, {"name": 1, "path": 2}),
]


def rich_record():
    """A published record with what none of those has: drift, gathered batches, a score, a gate that is not kept."""
    raw = json.loads(GOLDEN.read_text())
    raw["drift"] = {
        "verdict": "drifted",
        "reason": "the sentinel ran +5.0% off",
        "sentinel_key": "k",
        "stretches": [0, None],
        "before": 100.0,
        "after": 105.0,
    }
    raw["points"][0]["batching"] = {"mean_batch": 3.5, "fill": 0.4375}
    raw["accuracy"] |= {"score": 0.97, "reference_score": 0.98, "scored_on": "597 images"}
    raw["variant"]["load"] |= {"labels": {"name": None, "path": "held.npz"}, "trace": "a/b.csv"}
    raw["error"] = {"stage": "realised", "kind": "Mismatch", "message": "m", "stderr_tail": ["t"], "gate": "min_top1"}
    return raw


RICH = rich_record()
BASES = [RICH, *(json.loads(path.read_text()) for path in PUBLISHED[:: len(PUBLISHED) // 8])]
SOUND = sound_record()


def read(folder, raw):
    path = folder / f"{GOLDEN.stem}.json"
    path.write_text(json.dumps({**raw, "key": GOLDEN.stem} if isinstance(raw.get("key"), str) else raw))
    return record_file.read(path)


def paths(value, path=()):
    """Where every value of a record stands; of a list the first and the last item stand for all."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*path, name))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1} if value else ()):
            yield from paths(value[number], (*path, number))


def changed(raw, path, odd):
    """A copy with another value at a place, or without it where `odd` is Ellipsis."""
    made = copy.deepcopy(raw)
    inner = made
    for name in path[:-1]:
        inner = inner[name]
    if odd is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = odd
    return made


def refused_or_used(folder, raw, places, *, drawn):
    """Whether the record was refused, in one line that names one of `places`; else every reader has used it."""
    try:
        loaded = read(folder, raw)
    except RecordError as error:
        line = str(error)
    else:
        use_record(loaded, drawn=drawn)
        return False
    assert "is damaged (" in line or "update sweep" in line
    assert "\n" not in line
    assert any(re.search(rf"[( `]{place[0]}\b", line) for place in places), line
    return True


@pytest.mark.fault
def test_a_value_of_another_kind_is_refused_or_can_be_used(tmp_path) -> None:
    """Every place of one rich record, each with one of a dozen odd values, or without it."""
    odd = [..., None, True, -1, 10**30, 1e308, math.nan, "x", [], [None], {}, {"x": 1}]
    places = list(paths(RICH))
    refused = sum(
        refused_or_used(
            tmp_path, changed(RICH, place, odd[(number * 5 + number // 12) % len(odd)]), [place], drawn=False
        )
        for number, place in enumerate(places)
    )
    assert len(places) // 2 < refused < len(places)


@pytest.mark.fault
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_several_odd_values_at_once_are_refused_or_can_be_used(tmp_path_factory, data) -> None:
    raw, odd_places = data.draw(st.sampled_from(BASES)), []
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(paths(raw))
        if places:
            odd_places.append(data.draw(st.sampled_from(places)))
            raw = changed(raw, odd_places[-1], data.draw(st.sampled_from([..., *ODD])))
    refused_or_used(tmp_path_factory.getbasetemp(), raw, odd_places, drawn=True)


@pytest.mark.fault
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_command_that_meets_a_damaged_record_goes_on_and_names_it(tmp_path_factory, data) -> None:
    """Reading for a report or for MLflow, the start of a sweep, and recomputing."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    store, [work] = Store(folder / "s"), plan.make([factories.variant(backend="simulated", kind="closed")]).works
    store.write(SOUND)
    published = json.loads(data.draw(st.sampled_from(PUBLISHED)).read_bytes()) | {"key": work.key}
    place = data.draw(st.sampled_from(list(paths(published))))
    raw = changed(published, place, data.draw(st.sampled_from([..., *ODD])))
    store.record_path(work.key).write_text(json.dumps(raw))
    try:
        store.read(work.key)
    except RecordError as error:
        line, keys = str(error), [SOUND.key]
    else:
        line, keys = None, sorted([SOUND.key, work.key])
    assert [found.key for found in store.readable()] == keys
    if line is not None and line.endswith(": update sweep"):
        with pytest.raises(NewerRecordError, match="update sweep, or measure into another folder"):
            resume.remaining(plan.make([work.variant]), Settings(name="s", results=folder))
    else:
        left = resume.remaining(plan.make([work.variant]), Settings(name="s", results=folder))
        assert (left.notes == [f"{work.variant.label} is measured again: {line}"]) is (line is not None)
    states = {item.path.stem: (item.state, item.detail) for item in summaries.recomputed(folder, write=True)}
    assert (states[work.key] == ("unreadable", line)) is (line is not None)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("place", "odd", "named"),
    [
        (("peak", "ips"), "7433", "peak.ips: Expected `int | float | null`, got `str`"),
        (("peak", "requests"), 1.5, "peak.requests: Expected `int`, got `float`"),
        (("peak", "latency_ms"), [1.0], "peak.latency_ms: Expected `object`, got `array`"),
        (("peak", "latency_ms", "p50"), -1.0, "peak.latency_ms.p50: Expected `float` >= 0.0"),
        (("peak", "interval"), [1.0], "peak.interval: Expected `array` of length >= 2"),
        (("points", 1, "verdict"), "fine", "points[1].verdict: Invalid enum value 'fine'"),
        (("points", 0, "latency_ms", "p99"), ..., "points[0].latency_ms: Object missing required field `p99`"),
        (("status",), "finished", "status: Invalid enum value 'finished'"),
        (("drift", "verdict"), "ok", "drift.verdict: Invalid enum value 'ok'"),
        (("error", "stage"), ..., "error: Object missing required field `stage`"),
        (("variant", "label"), ..., "variant: Object missing required field `label`"),
        (("variant", "batch"), "8", "variant.batch: Expected `int`, got `str`"),
        (("facts", "cores"), "16", "facts.cores: Expected `int | null`, got `str`"),
        (("slo", "percentile"), 98.0, "slo.percentile: 98 is none of 50, 90, 95, 99, 99.9"),
        (("slo", "confidence"), None, "slo.confidence: a capacity has none"),
        (("slo", "probes"), [], "slo.confirmed: no confirming run has the rate of the capacity"),
        (("peak", "batches"), 1, "peak.batches: 1 batch means carry no interval"),
        (("peak", "clients"), ..., "peak.fairness: there are no clients"),
        (("points", 0, "clients"), [], "points[0].fairness: there are no clients"),
        (("accuracy", "scored_on"), ..., "accuracy.score: it has no reference_score or scored_on"),
        (("accuracy", "again", "stream"), ..., "accuracy.again: it has no stream or lost_db"),
        (("started_at",), "yesterday", "started_at: 'yesterday' is no ISO 8601 date"),
        (
            ("started_at",),
            "0001-01-01T00:00:00+00:00",
            "started_at: '0001-01-01T00:00:00+00:00' lies outside 1980 to 2200",
        ),
        (("points", 1, "latency_ms", "p99"), math.nan, "points[1].latency_ms.p99: nan is no finite number"),
        (("variant", "seed"), math.inf, "variant.seed: inf is no finite number"),
        (("schema",), True, "it has no schema"),
        (("variant", "plugins"), 1e308, "variant.plugins: Expected `array | null`, got `float`"),
        (("status",), "\ud800", "'utf-8' codec can't encode character"),
    ],
)
def test_the_line_names_the_field(tmp_path, place, odd, named) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, changed(RICH, place, odd))
    assert f"is damaged ({named}" in str(caught.value)
    assert str(caught.value).startswith(f"record {tmp_path}")
    assert str(caught.value).endswith(
        "); the same sweep measures that variant again and replaces the file: "
        "to keep the file, move it out of the folder first"
    )


@pytest.mark.parametrize("name", ["colour", "a\nb\x1b[2J", "x" * 5000])
def test_fields_of_a_newer_version_are_no_damage(tmp_path, name) -> None:
    with pytest.raises(
        NewerRecordError, match=r"has fields that this version does not know: .*: update sweep$"
    ) as caught:
        read(tmp_path, changed(RICH, (name,), "red"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.fault
@pytest.mark.parametrize(
    "content",
    [
        *(b'{"schema": 1, "key": "\xff"}', b'{"schema": NaN}', b'{"schema": 1e999}', b'{"schema": ' + b"9" * 9999),
        *(b"[" * 200_000, b"\x00", b"null", b'"x"', b"7", b'{"schema": {}}', b'{"schema": -1}', b"\xff\xfe{}"),
    ],
)
def test_content_that_is_no_record_is_damaged(tmp_path, content) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is damaged"):
        record_file.read(path)


def test_every_published_record_loads_and_is_kept_to_the_byte(tmp_path) -> None:
    """Only top-level fields that were added since are new: ``model`` and ``drift``, None."""
    assert len(PUBLISHED) > 500
    for path in PUBLISHED:
        raw = json.loads(path.read_bytes())
        fields = [item.name for item in dataclasses.fields(Record)]
        complete = {name: raw.get(name) for name in fields}
        assert record_file.encode(record_file.read(path)) == (json.dumps(complete, indent=1) + "\n").encode(), path


@pytest.mark.parametrize("folder", sorted((ROOT / "tests" / "data" / "schemas").iterdir()), ids=lambda path: path.name)
def test_a_record_of_each_schema_is_read_for_good(folder) -> None:
    assert {int(path.name) for path in folder.parent.iterdir()} == set(range(1, SCHEMA + 1))
    (path,) = folder.glob("*.json")
    found = record_file.read(path)
    assert json.loads(path.read_bytes())["schema"] == int(folder.name)
    assert found.schema == SCHEMA
    assert found.status is Status.OK
    assert found.peak
    assert found.peak["verdict"] in Verdict
    assert found.peak["ips"] == pytest.approx(PEAK_IPS, abs=0.1)
    assert found.slo
    assert {probe["verdict"] for probe in found.slo["probes"]} <= set(SloVerdict)
    printed = io.StringIO()
    table.print_outcome(Console(file=printed, width=240), [found], answer([found], None), None)
    (row,) = [line for line in printed.getvalue().splitlines() if line.startswith(" >")]
    assert row.split()[-len(ROW) :] == ROW
    use_record(found, drawn=True)


def test_verdicts_come_back_as_enums(tmp_path) -> None:
    found = read(tmp_path, RICH)
    assert type(found.points[0]["verdict"]) is Verdict
    assert type(found.drift["verdict"]) is DriftVerdict


def test_keys_of_a_newer_version_are_kept_in_tables(tmp_path) -> None:
    """Whoever rewrites a record, as a new SLO does, loses nothing of what another version wrote."""
    raw = copy.deepcopy(RICH)
    raw["peak"]["colour"] = "red"
    raw["points"][1]["latency_ms"]["p9999"] = 7.5
    raw["realised"]["knobs_of_2030"] = {"a": [1]}
    found = read(tmp_path, raw)
    assert json.loads(record_file.encode(found)) == raw | {"key": GOLDEN.stem}
    use_record(found, drawn=True)


@pytest.mark.fault
def test_a_file_name_that_is_no_utf_8_may_stand_in_a_record(tmp_path) -> None:
    raw = changed(RICH, ("variant", "model_ref", "path"), "/models/\udcff.onnx")
    found = read(tmp_path, raw)
    assert found.variant["model_ref"]["path"] == "/models/\udcff.onnx"
    assert json.loads(record_file.encode(found))["variant"] == raw["variant"]


@pytest.mark.fault
def test_one_odd_record_does_not_stop_the_others(tmp_path) -> None:
    store = Store(tmp_path)
    store.write(SOUND)
    records = tmp_path / "records"
    (records / "a.json").write_text("{")
    (records / "b.json").mkdir()
    (records / "c.json").symlink_to(tmp_path / "gone")
    (records / "d.json").write_bytes(GOLDEN.read_bytes())  # its key is another's
    assert [found.key for found in store.readable()] == [SOUND.key]
    index = Index(store)
    assert index.entry(SOUND.key).status is Status.OK
    assert "c" not in index
    for key in "abd":
        with pytest.raises(RecordError):
            index.entry(key)
    index.save([*"abcd", SOUND.key])


@pytest.mark.fault
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_an_odd_index_is_no_index(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp() / "odd-index"
    store = Store(folder)
    (folder / "index.json").unlink(missing_ok=True)
    if not store.record_keys():
        store.write(SOUND)
    sound = Index(store)
    expected, facts = sound.entry(SOUND.key), sound.facts
    raw = {"version": 1, "facts": facts, "rows": {SOUND.key: list(sound._rows[SOUND.key])}}
    for _ in range(data.draw(st.integers(1, 2))):
        places = list(paths(raw))
        if places:
            raw = changed(raw, data.draw(st.sampled_from(places)), data.draw(st.sampled_from([..., *ODD])))
    (folder / "index.json").write_text(json.dumps(raw))
    index = Index(store)
    found = index.entry(SOUND.key)
    assert type(found.status) is Status
    assert 0 <= found.facts < len(index.facts)
    if raw.get("rows", {}) in ({}, None):
        known = dataclasses.replace(found, facts=expected.facts)
        assert (known, index.facts[found.facts]) == (expected, facts[expected.facts])


@pytest.mark.fault
def test_a_name_that_is_no_utf8_reaches_the_page_and_the_terminal_as_text(tmp_path) -> None:
    """A file name may be none; JSON has it as half of a surrogate pair, which stops what encodes it."""
    odd = read(tmp_path, changed(RICH, ("variant", "label"), "a\udcffb"))
    page = html.write(tmp_path / "report.html", "s", [odd], None)
    assert "a\\udcffb" in page.read_text()
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as stream:
        table.print_outcome(Terminal(file=stream, width=200), [odd], answer([odd], None), None)
        stream.seek(0)
        assert "a\\udcffb" in stream.read()

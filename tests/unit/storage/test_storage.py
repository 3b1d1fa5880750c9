"""Records, samples and cache on a real disk."""

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import Never

import numpy as np
import pytest
import records

from sweep.errors import BuildError, RecordError
from sweep.storage import samples_file
from sweep.storage.cache import MANIFEST, Cache
from sweep.storage.record import Record
from sweep.storage.samples import PointSamples
from sweep.storage.store import Store
from sweep.system import atomic_files


def a_record(key="abc", **changes):
    made = Record(
        key=key, sweep="s", status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": "x", "batch": 1}
    )
    return dataclasses.replace(made, **changes)


def test_a_record_comes_back_as_it_was(tmp_path) -> None:
    store = Store(tmp_path / "s")
    store.write(a_record(points=[records.point(1.5)]))
    assert store.read("abc") == a_record(points=[records.point(1.5)])
    assert store.record_keys() == ["abc"]
    assert [path.name for path in (tmp_path / "s" / "records").iterdir()] == ["abc.json"]


def test_the_interface_others_rely_on(tmp_path) -> None:
    Store(tmp_path).write(a_record())
    fields = list(json.loads((tmp_path / "records" / "abc.json").read_text()))
    assert fields == [
        *("schema", "key", "sweep", "status", "started_at", "wall_s", "variant", "facts", "model", "engine"),
        *("realised", "peak", "points", "slo", "accuracy", "telemetry", "drift", "error"),
    ]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "damaged"),
        ('{"schema": 1, "key"', "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1}', "damaged"),
        ('{"schema": 99}', "update sweep"),
    ],
)
def test_a_damaged_or_newer_record_is_one_clear_line(tmp_path, content, word) -> None:
    store = Store(tmp_path)
    store.write(a_record())
    store.record_path("abc").write_text(content)
    with pytest.raises(RecordError, match=word) as caught:
        store.read("abc")
    assert "\n" not in str(caught.value)
    assert list(store.readable()) == []


def test_a_number_that_json_cannot_hold_never_reaches_the_disk(tmp_path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        store.write(a_record(wall_s=float("nan")))
    assert store.record_keys() == []


@pytest.mark.fault
def test_a_failed_write_leaves_the_old_content_and_no_scraps(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.json"
    atomic_files.write_atomic(path, b"old")

    def full(_descriptor) -> Never:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]


def some_samples():
    count = 5
    return PointSamples(
        kind="poisson",
        index=2,
        repeat=1,
        batch=8,
        offered_rps=12.5,
        overloaded=False,
        complete=True,
        scheduled_ns=np.arange(count, dtype=np.int64),
        issued_ns=np.arange(count, dtype=np.int64) + 1,
        done_ns=np.arange(count, dtype=np.int64) + 2,
        slot_free=np.ones(count, dtype=bool),
        warmup=np.arange(count) < 2,
        stream=np.zeros(count, dtype=np.int16),
    )


def test_samples_come_back_as_they_were(tmp_path) -> None:
    samples_file.save(tmp_path / "a.npz", [some_samples(), some_samples()])
    back = samples_file.load(tmp_path / "a.npz")
    assert len(back) == 2
    for name in PointSamples.__slots__:
        assert np.array_equal(getattr(back[1], name), getattr(some_samples(), name))


@pytest.mark.fault
def test_truncated_samples_are_one_clear_line(tmp_path) -> None:
    path = tmp_path / "a.npz"
    samples_file.save(path, [some_samples()])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RecordError, match="force=true"):
        samples_file.load(path)


def builder(text, calls):
    def build(folder: Path):
        calls.append(text)
        (folder / "file").write_text(text)
        return {"text": text}

    return build


def test_an_entry_is_built_once(tmp_path) -> None:
    calls = []
    cache = Cache(tmp_path)
    first = cache.get("engines", "k", builder("one", calls))
    second = cache.get("engines", "k", builder("two", calls))
    assert calls == ["one"]
    assert (first.cached, second.cached) == (False, True)
    assert (second.path / "file").read_text() == "one"
    assert second.info == {"text": "one"}
    assert second.bytes == 3


@pytest.mark.fault
@pytest.mark.parametrize("name", ["file", MANIFEST])
def test_a_flipped_bit_is_found_and_the_entry_built_again(tmp_path, name) -> None:
    calls = []
    cache = Cache(tmp_path)
    path = cache.get("engines", "k", builder("one", calls)).path / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))
    again = cache.get("engines", "k", builder("one", calls))
    assert calls == ["one", "one"]
    assert "built again" in (again.note or "")
    assert cache.get("engines", "k", builder("one", calls)).note is None


@pytest.mark.fault
def test_a_build_that_fails_leaves_nothing(tmp_path) -> None:
    def fail(folder) -> Never:
        (folder / "half").write_text("x")
        raise BuildError("no")

    cache = Cache(tmp_path)
    with pytest.raises(BuildError):
        cache.get("engines", "k", fail)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["k.lock"]


def slow_build(root, counter) -> None:
    def build(folder):
        with Path(counter).open("a") as file:
            file.write("x")
        (folder / "file").write_text("content" * 1000)
        return {}

    Cache(Path(root)).get("engines", "k", build)


@pytest.mark.fault
def test_two_processes_build_it_once(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    counter = tmp_path / "count"
    both = [context.Process(target=slow_build, args=(str(tmp_path), str(counter))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert counter.read_text() == "x"

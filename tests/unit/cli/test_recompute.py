"""Summaries recomputed from samples are the same bytes, and what is not the same is named."""

import dataclasses
import json
import os

import numpy as np
import pytest
from forked_command import run_forked

from sweep.analysis import record_summary
from sweep.cli import commands
from sweep.spec.slo import Slo
from sweep.storage import samples_file
from sweep.storage.record import Record
from sweep.storage.samples import PointSamples
from sweep.storage.store import Store

MS = 1_000_000


def series(kind="poisson", index=0, gap_ms=1.0, count=1500, **changes):
    due = (np.arange(count) * gap_ms * MS).astype(np.int64)
    made = PointSamples(
        kind=kind,
        index=index,
        repeat=0,
        batch=2,
        offered_rps=None if kind == "closed" else 1000 / gap_ms,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due.copy(),
        done_ns=due + (np.random.default_rng(index + 1).exponential(0.2, count) * MS).astype(np.int64) + MS,
        slot_free=np.ones(count, dtype=bool),
        warmup=np.zeros(count, dtype=bool),
        stream=np.zeros(count, dtype=np.int16),
    )
    return dataclasses.replace(made, **changes)


SLO = Slo("p99", 9.0)


def kept(root, key, slo=SLO, **changes):
    """A record and its samples in the sweep's folder ``root``, as a sweep leaves them."""
    store = Store(root)
    points = [series("closed", -1), series(index=0, gap_ms=4.0), series(index=1, gap_ms=2.0)]
    samples_file.save(store.samples_path(key), points)
    made = Record(
        key=key, sweep=root.name, status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": key}
    )
    store.write(dataclasses.replace(record_summary.summarise(made, points, slo), **changes))
    return store


def said(capsys, *arguments):
    code = commands.main(["recompute", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_what_a_sweep_wrote_comes_out_the_same(tmp_path, capsys) -> None:
    kept(tmp_path / "one", "a")
    kept(tmp_path / "one", "b", slo=None)
    kept(tmp_path / "two", "c", slo=Slo("p50", 0.1))
    assert said(capsys, tmp_path) == (0, f"{tmp_path}: 3 same\n")
    assert said(capsys, tmp_path / "one") == (0, f"{tmp_path / 'one'}: 2 same\n")


def test_a_changed_figure_is_named_left_alone_and_rewritten_when_asked(tmp_path, capsys) -> None:
    store = kept(tmp_path, "a")
    right = store.record_path("a").read_bytes()
    wrong = json.loads(right)
    wrong["peak"]["ips"] *= 1.01
    wrong["points"][1]["latency_ms"]["p99"] = None
    wrong["slo"]["capacity_ips"] = 1
    store.record_path("a").write_text(json.dumps(wrong))
    before = store.record_path("a").read_bytes()
    code, out = said(capsys, tmp_path)
    assert code == 1
    assert "peak.ips, points.latency_ms.p99, slo.capacity_ips" in out
    assert store.record_path("a").read_bytes() == before
    code, out = said(capsys, tmp_path, "--write")
    assert (code, store.record_path("a").read_bytes()) == (0, right)
    assert "rewritten" in out
    assert said(capsys, tmp_path)[0] == 0


def test_a_record_of_an_older_version_differs_in_the_fields_it_lacked(tmp_path, capsys) -> None:
    store = kept(tmp_path, "a")
    old = json.loads(store.record_path("a").read_bytes())
    del old["drift"], old["peak"]["batches"]
    store.record_path("a").write_text(json.dumps(old))
    code, out = said(capsys, tmp_path)
    assert code == 1
    assert out.splitlines()[0].endswith("a.json: peak.batches")


def test_the_layout_counts_too(tmp_path, capsys) -> None:
    store = kept(tmp_path, "a")
    store.record_path("a").write_text(json.dumps(json.loads(store.record_path("a").read_bytes())))
    assert "its layout alone" in said(capsys, tmp_path)[1]


def test_what_was_never_measured_is_counted_and_no_difference(tmp_path, capsys) -> None:
    store = kept(tmp_path, "a")
    store.write(dataclasses.replace(store.read("a"), key="b", status="failed", peak=None, points=[], slo=None))
    assert said(capsys, tmp_path) == (0, f"{tmp_path}: 1 same, 1 unmeasured\n")


def test_samples_that_are_gone_are_counted(tmp_path, capsys) -> None:
    kept(tmp_path, "a").samples_path("a").unlink()
    kept(tmp_path, "b")
    assert said(capsys, tmp_path) == (1, f"{tmp_path}: 1 same, 1 unsampled\n")


@pytest.mark.parametrize("spoil", ["samples", "record"])
def test_what_cannot_be_read_is_an_error_beside_what_can(tmp_path, capsys, spoil) -> None:
    store = kept(tmp_path, "a")
    kept(tmp_path, "b")
    (store.samples_path("a") if spoil == "samples" else store.record_path("a")).write_bytes(b"damaged")
    code, out = said(capsys, tmp_path)
    assert code == 1
    assert "unreadable" in out
    assert "1 same" in out


@pytest.mark.parametrize("arguments", [[], ["--wrote"], ["one", "two"], ["nowhere"]])
def test_a_wrong_command_is_2(arguments, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(["recompute", *arguments]) == 2
    assert capsys.readouterr().err


def test_records_without_samples_are_2(tmp_path, capsys) -> None:
    store = kept(tmp_path, "a")
    store.samples_path("a").unlink()
    assert said(capsys, tmp_path)[0] == 2


def swept_and_recomputed(folder, *words):
    """The output of ``recompute`` after a sweep: two processes that share nothing but the disk."""
    swept = run_forked(("-m", *words), dict(os.environ), folder)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    return run_forked(("recompute", str(folder)), dict(os.environ), folder)


def test_a_real_sweep_with_sentinels_and_repeats_is_restated_byte_for_byte(tmp_path) -> None:
    words = [
        "backend=simulated",
        "streams=1,2,3",
        "repeats=2",
        "sentinel_every=2",
        "slo.p99_ms=2",
        "slo.search_s=5",
        "load.min_s=0.2",
    ]
    where = [f"results={tmp_path}", "name=s", "tracking.enabled=false"]
    script = ["backend.script.distribution=exponential", "load.fractions=[0.3,0.9]"]
    done = swept_and_recomputed(tmp_path, *words, *where, *script)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: 3 same\n"), done.stderr
    drift = [json.loads(path.read_bytes())["drift"] for path in (tmp_path / "s" / "records").glob("*.json")]
    assert {item["verdict"] for item in drift} <= {"steady", "drifted"}
    assert all(len(item["stretches"]) == 2 for item in drift)


@pytest.mark.parametrize(
    "words",
    [
        ["backend=simulated", "backend.script.distribution=exponential", "sentinel_every=1"],
        ["backend=simulated", "batching.max_wait_ms=1", "batch=4"],
        [
            "backend=onnxruntime",
            "model=tiny_cnn",
            "backend.intra_op_threads=1",
            "load.warmup_s=0.02",
            "load.min_s=0.1",
            "load.min_requests=20",
            "load.max_s=0.5",
        ],
    ],
)
def test_a_searched_capacity_is_restated_byte_for_byte(tmp_path, words) -> None:
    """With predictions, probes and confirming runs; gathered requests too."""
    where = [f"results={tmp_path}", "name=s", "tracking.enabled=false", "load.fractions=[0.3,0.8]"]
    search = ["streams=1,2", "slo.p90_ms=20", "slo.search_s=2"]
    done = swept_and_recomputed(tmp_path, *words, *where, *search)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: 2 same\n"), done.stderr
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "s" / "records").glob("*.json")]
    gathered = "batching.max_wait_ms=1" in words  # judged from the rungs alone
    assert all(gathered or (made["slo"]["probes"] and made["points"][0]["prediction"]) for made in records)
    for made in records:
        assert made["drift"] is None or len(made["drift"]["stretches"]) == 1  # the search is no pass


@pytest.mark.fault
def test_names_in_a_record_are_printed_as_text_on_their_line(tmp_path, capsys) -> None:
    store = kept(tmp_path / "s", "k")
    path = store.record_path("k")
    raw = json.loads(path.read_text())
    raw["variant"]["\x1b[31mEVIL\x07\nnext"] = 1
    raw["peak"]["\x1b]0;pwned\x07"] = 2
    raw["points"][0]["\x9b31m\u202e"] = 1
    path.write_text(json.dumps(raw))
    code, out = said(capsys, tmp_path)
    assert code in {0, 1}
    assert len(out.splitlines()) <= 2
    assert all(line.isprintable() for line in out.splitlines())

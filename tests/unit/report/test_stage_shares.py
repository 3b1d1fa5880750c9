"""Where the requests of a pipeline spend their time, as lines, bars, metrics, and of damaged records."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import config

from sweep.analysis import record_summary
from sweep.config import variants
from sweep.report.html import page
from sweep.report.mlflow import record_mapping
from sweep.report.stage_shares import shares, stage_bars, stage_lines
from sweep.spec import Status, flat
from sweep.storage import PointSamples, Record, samples_file
from sweep.storage.samples import merged


@pytest.fixture(scope="module")
def record() -> Record:
    """A request of 10 ms: 1 in the queue, 2, 4 and 1 in stages (the copies 0.5 and 0.5), 1 for the rest."""
    variant = variants.from_config(
        config(pipeline={"stages": ["mlp", {"digits": 4}, "argmax"], "argmax": {"inputs": {"scores": "logits"}}})
    )
    count = 40
    due = np.arange(count, dtype=np.int64) * 20_000_000
    point = PointSamples(
        kind="closed",
        index=-1,
        repeat=0,
        batch=1,
        offered_rps=None,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due + 1_000_000,
        done_ns=due + 10_000_000,
        slot_free=np.ones(count, np.bool_),
        warmup=np.arange(count) < 5,
        stream=np.zeros(count, np.int16),
        gpu_h2d_ms=np.full(count, 0.5, np.float32),
        gpu_compute_ms=np.full(count, 7, np.float32),
        gpu_d2h_ms=np.full(count, 0.5, np.float32),
        enqueue_ms=np.full(count, 0.1, np.float32),
        stage_ms=np.tile(np.array([2, 4, 1], np.float32), (count, 1)),
    )
    empty = Record(key="k", sweep="s", status=Status.OK, started_at="2026-01-01T00:00:00+00:00", variant=flat(variant))
    return record_summary.summarise(empty, [point], None)


def test_shares_add_up_to_the_latency(record: Record) -> None:
    load, total, parts = shares(record)
    assert (load, total) == ("closed loop", pytest.approx(10.0))
    assert {part.name: part.mean_ms for part in parts} == pytest.approx(
        {"mlp": 2, "digits": 4, "argmax": 1, "queue": 1, "copies": 1, "other": 1}
    )
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert stage_lines([record], {"k": "L"}) == [
        (
            "L: closed loop by stage, 10 ms on average: mlp 2 ms (20.0%), digits x4 4 ms (40.0%), argmax 1 ms (10.0%), "
            "queue 1 ms (10.0%), copies 1 ms (10.0%), other 1 ms (10.0%)"
        )
    ]
    metrics = {value.key: value.value for value in record_mapping.metrics(record)}
    assert metrics["stage.digits_ms"] == pytest.approx(4)
    assert metrics["stage.digits_share"] == pytest.approx(0.4)
    assert metrics["stage.other_ms"] == pytest.approx(1)


def test_the_page_has_a_bar_by_stage(record: Record) -> None:
    faster = dataclasses.replace(record, key="f", peak={**record.peak, "latency_ms": record.peak["latency_ms"]})
    bars = stage_bars([record, faster], {"k": "L", "f": "<b>"})
    assert [float(part["width"]) for part in bars["bars"][0]["parts"]] == pytest.approx([20, 40, 10, 10, 10, 10])
    assert [entry["name"] for entry in bars["legend"]] == ["mlp", "digits", "argmax", "queue, copies, other"]
    html = page.render("title", [record])
    assert "<h2>Stages</h2>" in html
    assert 'title="digits: 4 ms, 40.0%"' in html


def test_one_network_and_damaged_stages_have_none(record: Record) -> None:
    alone = dataclasses.replace(record, peak={key: value for key, value in record.peak.items() if "stage" not in key})
    assert shares(alone) is None
    assert stage_bars([alone], {"k": "L"}) == {"bars": [], "legend": []}
    assert "<h2>Stages</h2>" not in page.render("title", [alone])
    for pipeline in (None, 3, {"name": "p"}, {**record.variant["pipeline"], "stages": []}):
        damaged = dataclasses.replace(record, variant={**record.variant, "pipeline": pipeline})
        assert stage_lines([damaged], {"k": "L"}), "the figures are in the record"
        assert record_mapping.params(damaged)


def test_stage_times_are_read_back(record: Record, tmp_path) -> None:
    count = 3
    point = PointSamples(
        kind="closed",
        index=-1,
        repeat=0,
        batch=1,
        offered_rps=None,
        overloaded=False,
        complete=True,
        scheduled_ns=np.arange(count),
        issued_ns=np.arange(count),
        done_ns=np.arange(count),
        slot_free=np.ones(count, np.bool_),
        warmup=np.zeros(count, np.bool_),
        stream=np.zeros(count, np.int16),
        stage_ms=np.arange(6, dtype=np.float32).reshape(3, 2),
    )
    samples_file.save(tmp_path / "s.npz", [point])
    (again,) = samples_file.load(tmp_path / "s.npz")
    assert np.array_equal(again.stage_ms, point.stage_ms)
    later = dataclasses.replace(point, scheduled_ns=point.scheduled_ns + 10, stage_ms=point.stage_ms + 100)
    both = merged([dataclasses.replace(part, origin_ns=0) for part in (later, point)])
    assert both.stage_ms.tolist() == [*point.stage_ms.tolist(), *later.stage_ms.tolist()], "two clients, in their order"
    samples_file.save(tmp_path / "s.npz", [dataclasses.replace(point, stage_ms=point.stage_ms[:, 0])])
    with pytest.raises(Exception, match="stage_ms is float32 of shape"):
        samples_file.load(tmp_path / "s.npz")

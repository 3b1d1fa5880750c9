"""Judging the same samples again gives the same, byte for byte; which rung stands for a fraction of the peak."""

import dataclasses

import numpy as np
import pytest

from sweep.analysis import record_summary, record_views, reevaluate
from sweep.spec.slo import Slo
from sweep.storage import samples_file
from sweep.storage.record import Record
from sweep.storage.samples import PointSamples
from sweep.storage.store import Store

MS = 1_000_000


def record(**changes):
    made = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": "x"})
    return dataclasses.replace(made, **changes)


def series(kind="poisson", index=0, gap_ms=1.0, count=2000, repeat=0, latency_ms=None):
    due = (np.arange(count) * gap_ms * MS).astype(np.int64)
    latency = np.random.default_rng(index).exponential(0.2, count) + 1 if latency_ms is None else latency_ms
    return PointSamples(
        kind=kind,
        index=-1 if kind == "closed" else index,
        repeat=repeat,
        batch=2,
        offered_rps=None if kind == "closed" else 1000 / gap_ms,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due.copy(),
        done_ns=due + (np.asarray(latency) * MS).astype(np.int64),
        slot_free=np.ones(count, dtype=bool),
        warmup=np.zeros(count, dtype=bool),
        stream=np.zeros(count, dtype=np.int16),
    )


POINTS = [series("closed"), series(index=0, gap_ms=4.0), series(index=1, gap_ms=2.0)]


@pytest.mark.parametrize("slo", [None, Slo("p99", 9.0), Slo("p50", 0.1)])
def test_judged_twice_is_judged_once(slo) -> None:
    once = record_summary.summarised(record(), POINTS, slo)
    assert record_summary.summarised(once, POINTS, slo) == once
    assert record_summary.summarised(record(), POINTS, slo) == once
    assert (once.slo is None) == (slo is None)


def test_the_parts_go_where_they_belong() -> None:
    made = record_summary.summarised(record(), [POINTS[2], POINTS[0], POINTS[1]], Slo("p99", 9.0))
    assert made.peak
    assert made.peak["ips"] == pytest.approx(2000, rel=0.01)
    assert [point["offered_ips"] for point in made.points] == [500, 1000]
    assert made.slo
    assert (made.slo["capacity_ips"], made.slo["limit_ms"], made.slo["next_ips"]) == (1000, 9.0, None)


def test_passes_of_a_rung_are_pooled() -> None:
    both = [*POINTS, *(dataclasses.replace(point, repeat=1) for point in POINTS)]
    made = record_summary.summarised(record(), both, None)
    assert [point["requests"] for point in made.points] == [4000, 4000]


def test_without_samples_nothing_is_judged() -> None:
    assert record_summary.summarised(record(), [], Slo("p99", 1.0)) == record()
    closed = record_summary.summarised(record(), POINTS[:1], Slo("p99", 1.0))
    assert (closed.points, closed.slo) == ([], None)


def test_a_stall_in_the_closed_loop_is_a_verdict_not_a_crash() -> None:
    """A whole third of the window without a completion."""
    stalled = series("closed", count=9, latency_ms=np.array([1, 1, 1, 1, 100, 100, 100, 100, 100]) * 1.0)
    made = record_summary.summarised(record(), [stalled], None)
    assert made.peak
    assert made.peak["verdict"] == "unstable"


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    samples_file.save(made.samples_path("k"), POINTS)
    return made


def test_another_slo_rewrites_the_record_and_the_same_does_not(store) -> None:
    store.write(record_summary.summarised(record(), POINTS, None))
    judged = reevaluate.rejudged(store, "k", Slo("p99", 9.0))
    assert judged
    assert judged.slo
    assert store.read("k") == judged
    before = store.record_path("k").stat()
    assert reevaluate.rejudged(store, "k", Slo("p99", 9.0)) == judged
    assert (store.record_path("k").stat().st_ino, store.record_path("k").stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    assert reevaluate.rejudged(store, "k", None) == judged
    other = reevaluate.rejudged(store, "k", Slo("p50", 0.1))
    assert other
    assert other.slo
    assert (other.slo["percentile"], other.slo["capacity_ips"]) == (50, None)
    assert other == record_summary.summarised(record(), POINTS, Slo("p50", 0.1))


@pytest.mark.parametrize("status", ["failed", "unsupported", "timeout", "crashed", "oom"])
def test_what_was_not_measured_is_left_as_it_is(store, status) -> None:
    store.write(record(status=status))
    assert reevaluate.rejudged(store, "k", Slo("p99", 9.0)) == record(status=status)


def test_what_cannot_be_read_is_none_and_lost_samples_lose_no_record(store) -> None:
    assert reevaluate.rejudged(store, "gone", Slo("p99", 9.0)) is None
    plain = record_summary.summarised(record(), POINTS, None)
    store.write(plain)
    store.samples_path("k").write_bytes(b"damaged")
    assert reevaluate.rejudged(store, "k", Slo("p99", 9.0)) == plain
    store.record_path("k").write_bytes(b"damaged")
    assert reevaluate.rejudged(store, "k", None) is None


def point(offered, p50=1.0, verdict="ok"):
    return {"offered_ips": offered, "verdict": verdict, "latency_ms": {"p50": p50, "p99": None}}


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([], None),
        ([point(1), point(2)], 1),
        ([point(1, p50=None), point(2)], 2),
        ([point(1, verdict="invalid"), point(2, verdict="unstable")], 2),
        ([point(1, verdict="short")], 1),
        ([point(1, verdict="overloaded")], None),
    ],
)
def test_light_is_the_lowest_rung_that_counts(points, chosen) -> None:
    found = record_views.light(record(points=points))
    assert (found and found["offered_ips"]) == chosen


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([200, 800, 900], 800),
        ([200, 750, 860], 750),
        ([200, 690], None),
        ([200, 700], 700),
        ([200, 900], 900),
        ([200, 911], None),
        ([750, 850], 750),
    ],
)
def test_near_is_the_closest_rung_within_a_tenth_of_the_peak(offered, chosen) -> None:
    found = record_views.near(record(peak={"ips": 1000.0}, points=[point(rate) for rate in offered]), 0.8)
    assert (found and found["offered_ips"]) == chosen


def test_near_passes_over_what_does_not_count() -> None:
    points = [point(750), point(800, verdict="invalid"), point(810, p50=None)]
    found = record_views.near(record(peak={"ips": 1000.0}, points=points), 0.8)
    assert found
    assert found["offered_ips"] == 750


@pytest.mark.parametrize("peak", [None, {"ips": None}, {"ips": 0.0}])
def test_near_needs_a_peak(peak) -> None:
    assert record_views.near(record(peak=peak, points=[point(800)]), 0.8) is None

"""A curve predicted from service times alone: against theory, and against what the generator then measures."""

import dataclasses
import time

import numpy as np
import pytest
from queues import LOAD, erlang_c, session

from sweep.analysis import queue_model, record_summary, record_views
from sweep.analysis.queue_model import Service
from sweep.loadgen import load_curve
from sweep.storage import samples_file
from sweep.storage.record import Record

MS = 1e6


def service(streams=1, unloaded=(MS,), saturated=(MS,)):
    return Service(streams=streams, unloaded_ns=np.array(unloaded, float), saturated_ns=np.array(saturated, float))


def arrivals(rate_rps, count=200_000, seed=1):
    return np.cumsum(np.random.default_rng(seed).exponential(1e9 / rate_rps, count))


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.85])
def test_constant_service_gives_the_wait_of_md1(rho) -> None:
    found = queue_model.simulate_latency_ms(service(), arrivals(rho * 1000)).mean() - 1
    assert found == pytest.approx(rho / (2 * (1 - rho)), rel=0.06)


@pytest.mark.parametrize(("streams", "rho"), [(1, 0.6), (4, 0.5), (4, 0.85)])
def test_exponential_service_gives_the_wait_of_mmc(streams, rho) -> None:
    times = np.random.default_rng(2).exponential(MS, 150_001)
    found = queue_model.simulate_latency_ms(service(streams, times, times), arrivals(rho * 1000 * streams)).mean() - 1
    assert found == pytest.approx(erlang_c(streams, rho * streams) / (streams * (1 - rho)), rel=0.12)


def test_streams_slow_each_other_by_how_many_are_busy() -> None:
    shared = service(2, [MS], [2 * MS])  # two on one processor: each takes twice as long
    assert queue_model.simulate_latency_ms(shared, np.array([0.0, 9 * MS])).tolist() == [1.0, 1.0]
    assert queue_model.simulate_latency_ms(shared, np.array([0.0, 0.0])).tolist() == [2.0, 2.0]
    half = queue_model.simulate_latency_ms(shared, np.array([0.0, 0.5 * MS]))
    assert half.tolist() == [1.5, 1.5]  # 0.5 alone, then both at half the pace; the second ends alone
    assert shared.capacity_rps == 1000
    assert service(3, [MS], [2 * MS]).slowdowns() == [1.0, 1.0, 1.5, 2.0]


def test_a_waiting_request_costs_what_a_busy_stream_showed() -> None:
    woken = service(1, [1.5 * MS], [MS])
    assert queue_model.simulate_latency_ms(woken, np.array([0.0, 0.0, 9 * MS])).tolist() == [1.5, 2.5, 1.5]


def test_one_stream_is_simulated_as_several_are() -> None:
    """The short way for one stream, and the event simulation, which takes any number of them in turn."""
    rng = np.random.default_rng(5)
    due, alone, after = np.cumsum(rng.exponential(1.2, 2000)), rng.exponential(1.0, 2000), rng.exponential(0.9, 2000)
    short = queue_model._completions_ns(due.tolist(), [0] * 2000, [1], alone.tolist(), after.tolist(), [1.0, 1.0])
    other = [due[-1] + 1e6]  # of a second client, whose only request comes long after: its stream slows nobody
    events = queue_model._completions_ns(
        [*due, *other], [0] * 2000 + [1], [1, 1], [*alone, 1.0], [*after, 1.0], [1.0, 1.0, 1.0]
    )
    assert short == pytest.approx(events[:-1])


def test_slow_stretches_stay_together() -> None:
    stretches = np.repeat([MS, 3 * MS], 500)
    gaps = np.diff(queue_model.simulate_latency_ms(service(1, stretches, stretches), np.arange(1000) * 9 * MS) > 2)
    assert np.count_nonzero(gaps) <= 2


@pytest.mark.parametrize("distribution", ["constant", "exponential"])
@pytest.mark.parametrize("streams", [1, 4])
def test_prediction_meets_the_measurement_below_the_knee(streams, distribution) -> None:
    load = dataclasses.replace(LOAD, min_s=20.0, max_s=20.0)
    points = load_curve.measure(session(streams, distribution), load, batch=1)
    made = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": "x"})
    start = time.process_time()
    found = queue_model.estimate_service(points)
    assert found
    errors = record_views.prediction_errors(record_summary.summarise(made, points, None))
    assert len(errors) >= 3
    assert np.median(errors) <= 0.15
    rung = [point for point in points if point.index == 0]
    start = time.process_time()
    queue_model.predict_point(found, rung, {"p50": 1.0, "p99": 1.0})
    assert time.process_time() - start < 1.0


def test_prediction_looks_at_the_schedule_and_never_at_the_outcome() -> None:
    points = load_curve.measure(session(), LOAD, batch=1)
    found = queue_model.estimate_service(points)
    assert found
    rung = points[-2]
    spoilt = dataclasses.replace(rung, done_ns=rung.done_ns + 10**9)
    said = [queue_model.predict_point(found, [point], {"p50": 1.0, "p99": 1.0}) for point in (rung, spoilt)]
    assert said[0] == said[1]


def test_without_a_closed_loop_nothing_is_predicted_and_old_samples_still_are() -> None:
    points = load_curve.measure(session(2), LOAD, batch=1)
    assert queue_model.estimate_service([point for point in points if point.kind != "closed"]) is None
    old = queue_model.estimate_service([point for point in points if point.kind in {"closed", "poisson"}])
    new = queue_model.estimate_service(points)
    assert old
    assert new
    assert (old.streams, new.streams) == (2, 2)
    assert old.capacity_rps == pytest.approx(new.capacity_rps)


def test_a_stall_in_the_unloaded_probe_is_no_service_time() -> None:
    """Requests behind a stall waited for others: they found no free stream."""
    points = load_curve.measure(session(), LOAD, batch=1)
    unloaded = next(point for point in points if point.kind == queue_model.UNLOADED)
    behind = np.arange(len(unloaded.done_ns)) % 5 == 0
    stalled = dataclasses.replace(
        unloaded, done_ns=unloaded.done_ns + behind * 10**9, slot_free=np.asarray(unloaded.slot_free & ~behind)
    )
    found = queue_model.estimate_service([points[0], stalled])
    assert found
    assert found.unloaded_ns.max() < 2 * MS


def test_what_was_learned_survives_the_disk(tmp_path) -> None:
    points = load_curve.measure(session(2, "exponential"), LOAD, batch=1)
    samples_file.save(tmp_path / "s.npz", points)
    again = samples_file.load(tmp_path / "s.npz")
    assert load_curve.place_rates(LOAD, again, 1) == load_curve.place_rates(LOAD, points, 1)
    assert load_curve.place_rates(LOAD, points, 1) == pytest.approx(
        [point.offered_rps for point in points if point.kind == "poisson"]
    )

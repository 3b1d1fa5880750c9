import dataclasses

import numpy as np

from sweep.analysis import point_summary, slo_capacity
from sweep.spec.slo import Slo
from sweep.storage.samples import NEVER, PointSamples

MS = 1_000_000


def point(latency_ms, gap_ms=1.0, *, kind="poisson", batch=4, **changes):
    """Requests at a steady gap, each with the latency given."""
    count = len(latency_ms)
    due = (np.arange(count) * gap_ms * MS).astype(np.int64)
    made = PointSamples(
        kind=kind,
        index=0,
        repeat=0,
        batch=batch,
        offered_rps=None if kind == "closed" else 1000 / gap_ms,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due.copy(),
        done_ns=due + (np.asarray(latency_ms) * MS).astype(np.int64),
        slot_free=np.ones(count, dtype=bool),
        warmup=np.zeros(count, dtype=bool),
        stream=np.zeros(count, dtype=np.int16),
    )
    return dataclasses.replace(made, **changes)


def test_throughput_is_completions_over_the_window_in_samples() -> None:
    steady = point([0.5] * 1001)
    found = point_summary.open_summary([steady])
    assert found["offered_ips"] == 4000
    assert abs(found["achieved_ips"] - 4000) < 5
    assert found["requests"] == 1001
    assert found["verdict"] == "ok"


def test_warmup_and_unfinished_requests_do_not_count() -> None:
    warm = np.arange(1000) < 100
    slow_start = np.where(warm, 50.0, 0.5)
    samples = point(slow_start, warmup=warm)
    samples.done_ns[-1] = NEVER
    found = point_summary.open_summary([samples])
    assert found["requests"] == 899
    assert found["latency_ms"]["max"] == 0.5


def test_a_queue_that_grows_is_overloaded() -> None:
    found = point_summary.open_summary([point(np.linspace(1, 400, 1000))])
    assert found["verdict"] == "overloaded"
    assert "behind" in found["reason"]


def test_a_late_generator_makes_the_point_invalid_not_slow() -> None:
    samples = point([2.0] * 1000)
    samples.issued_ns[:] = samples.scheduled_ns + int(1.5 * MS)
    found = point_summary.open_summary([samples])
    assert found["verdict"] == "invalid"
    assert found["issue_lag_ms"] == 1.5
    queued = dataclasses.replace(samples, slot_free=np.zeros(1000, dtype=bool))
    assert point_summary.open_summary([queued])["verdict"] == "ok"
    assert point_summary.open_summary([queued])["issue_lag_ms"] is None


def test_a_service_time_that_moves_is_unstable_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    noise = 1 + rng.exponential(0.2, 3000)
    assert point_summary.open_summary([point(noise, gap_ms=9.0)])["verdict"] == "ok"
    drift = noise * np.linspace(1, 2, 3000)
    found = point_summary.open_summary([point(drift, gap_ms=9.0)])
    assert found["verdict"] == "unstable"
    assert found["reason"].startswith("the service time moved by ")


def test_false_alarms_of_the_tail_rule_are_rare() -> None:
    """A plain 5% limit would flag nearly every one of these stationary points."""
    rng = np.random.default_rng(3)
    flagged = sum(
        point_summary.open_summary([point(1 + rng.exponential(0.2, 700))])["verdict"] != "ok" for _ in range(200)
    )
    assert flagged <= 10


def test_a_point_cut_short_says_so() -> None:
    assert point_summary.open_summary([point([0.5] * 50, complete=False)])["verdict"] == "short"


def test_closed_loop_counts_what_all_streams_did_together() -> None:
    samples = point([1.0] * 2000, gap_ms=0.5, kind="closed", stream=(np.arange(2000) % 2).astype(np.int16))
    found = point_summary.closed_summary([samples])
    assert abs(found["ips"] - 8000) < 20
    assert found["verdict"] == "ok"
    assert found["interval"][0] <= found["ips"] <= found["interval"][1]


def test_a_closed_loop_that_slows_down_is_unstable() -> None:
    due = (np.cumsum(np.linspace(1, 1.5, 2000)) * MS).astype(np.int64)
    samples = point([1.0] * 2000, kind="closed", scheduled_ns=due, issued_ns=due, done_ns=due + MS)
    assert point_summary.closed_summary([samples])["verdict"] == "unstable"


def rung(rate_rps, over, count=2000):
    latency = np.full(count, 1.0)
    latency[:over] = 20.0
    return [point(np.random.default_rng(over).permutation(latency), gap_ms=1000 / rate_rps, batch=1)]


def test_capacity_is_the_highest_rung_that_holds_at_99_percent() -> None:
    found = slo_capacity.slo_summary([rung(100, 0), rung(200, 5), rung(300, 40)], ["ok"] * 3, Slo("p99", 10.0))
    assert found["capacity_ips"] == 200
    assert found["next_ips"] == 300
    assert found["confidence"] >= 0.99
    assert found["monotonic"]


def test_a_rung_that_holds_above_one_that_does_not_is_said_and_not_taken() -> None:
    found = slo_capacity.slo_summary([rung(100, 0), rung(200, 40), rung(300, 0)], ["ok"] * 3, Slo("p99", 10.0))
    assert found["capacity_ips"] == 100
    assert not found["monotonic"]


def test_no_rung_holds_gives_null() -> None:
    found = slo_capacity.slo_summary([rung(100, 500)], ["ok"], Slo("p99", 10.0))
    assert found["capacity_ips"] is None
    assert found["confidence"] is None
    assert found["next_ips"] == 100


def test_an_overloaded_rung_never_holds_however_low_its_latency():
    found = slo_capacity.slo_summary([rung(100, 0), rung(200, 0)], ["ok", "overloaded"], Slo("p99", 10.0))
    assert (found["capacity_ips"], found["next_ips"]) == (100, 200)


def loop(gaps_ms):
    """A closed loop of one stream whose requests take these times."""
    done = (np.cumsum(gaps_ms) * MS).astype(np.int64)
    due = np.concatenate([[0], done[:-1]])
    latency = (done - due) / MS
    return point(latency, kind="closed", scheduled_ns=due, issued_ns=due, done_ns=done)


def test_a_loop_of_few_scattered_requests_is_not_unstable_by_chance() -> None:
    """A plain 5% limit flags most of these: thirds of 220 exponential times differ by 7% each."""
    rng = np.random.default_rng(5)
    flagged = sum(
        point_summary.closed_summary([loop(rng.exponential(1.0, 662))])["verdict"] != "ok" for _ in range(100)
    )
    assert flagged <= 8


def test_a_loop_that_loses_a_tenth_of_its_speed_is_unstable() -> None:
    rng = np.random.default_rng(6)
    times = rng.normal(1.0, 0.02, 900) * np.repeat([1.0, 1.0, 1.1], 300)
    found = point_summary.closed_summary([loop(times)])
    assert found["verdict"] == "unstable"
    assert "throughput moved" in found["reason"]


def test_a_loop_of_seven_requests_a_third_is_not_judged_by_the_odd_one() -> None:
    assert point_summary.closed_summary([loop(np.full(20, 500.0))])["verdict"] == "ok"


def test_a_slow_drift_is_seen_in_the_median_where_the_tail_has_too_few() -> None:
    rng = np.random.default_rng(7)
    latency = (1 + rng.exponential(0.2, 2100)) * np.linspace(1, 1.5, 2100)
    found = point_summary.open_summary([point(latency, gap_ms=5.0)])
    assert found["verdict"] == "unstable"


def test_the_peak_says_what_each_pass_did() -> None:
    found = point_summary.closed_summary([loop(np.full(700, 1.0)), loop(np.full(700, 2.0)), loop(np.full(700, 4.0))])
    assert [round(ips) for ips in found["passes_ips"]] == [4000, 2000, 1000]
    assert found["batches"] == 3
    assert found["ips"] == sum(found["passes_ips"]) / 3

"""Capacity at an SLO: against theory on the virtual clock, what it says where there is none, and what it keeps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import LOAD, highest, md1_within, mmc_within, searched

from sweep.analysis import percentiles, record_summary, slo_capacity
from sweep.spec import Verdict
from sweep.spec.slo import Slo
from sweep.storage import PointSamples, samples_file
from sweep.storage.record import Record

SEEDS = range(8)


def mm4_within(rate, limit_ms):
    return mmc_within(4, rate, limit_ms)


@given(st.integers(1, 5000), st.integers(0, 100), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_without_bursts_the_confidence_is_the_plain_binomial_one(requests, over, p) -> None:
    over = min(over, requests)
    latency = np.where(np.arange(requests) < over, 9.0, 1.0)
    assert percentiles.held_confidence(requests, over, p) == pytest.approx(
        percentiles.slo_confidence(latency, p, 5.0), abs=1e-9
    )
    assert percentiles.held_confidence(requests, over, p) + percentiles.broken_confidence(requests, over, p) <= 1 + 1e-9


def test_bursts_count_as_one() -> None:
    rng = np.random.default_rng(0)
    scattered = np.where(rng.random(20_000) < 0.01, 9.0, 1.0)
    bursts = np.repeat(np.where(rng.random(500) < 0.01, 9.0, 1.0), 40)
    assert percentiles.inflation(scattered, 0.99, 5.0) < 2
    assert percentiles.inflation(bursts, 0.99, 5.0) > 15
    assert percentiles.held_confidence(20_000, 150, 0.99) > 0.99
    assert percentiles.held_confidence(20_000, 150, 0.99, inflated=40) < 0.99


def test_bursts_are_seen_below_a_limit_that_nothing_passed() -> None:
    rng = np.random.default_rng(1)
    slow = np.repeat(rng.exponential(1.0, 200), 50)
    assert percentiles.inflation(slow, 0.99, 1e9) > 10
    assert percentiles.inflation(np.ones(30), 0.99, 5.0) == 1.0


@pytest.mark.parametrize(
    ("server", "name", "limit_ms", "search_s", "within"),
    [
        ({"streams": 1, "distribution": "constant", "seed": 1}, "p90", 6.0, 500.0, md1_within),
        ({"streams": 4, "distribution": "exponential", "seed": 2}, "p99", 8.0, 500.0, mm4_within),
    ],
)
def test_the_capacity_is_that_of_theory_within_3_percent_and_not_above(
    server, name, limit_ms, search_s, within
) -> None:
    """Clocks and seeds are fixed, so that chance fails neither: both are at 0.98."""
    truth = highest(lambda rate: within(rate, limit_ms), server["streams"], percentiles.PERCENTILES[name])
    load = dataclasses.replace(LOAD, seed=server["seed"])
    found, _, _ = searched(limit_ms, search_s, name, load=load, **server)
    assert found
    assert found["confirmed"]
    assert found["confidence"] >= 0.99
    assert found["monotonic"]
    assert 0.97 * truth <= found["capacity_ips"] <= truth
    assert found["next_ips"] > truth


def test_with_few_requests_it_is_lower_but_not_above_the_truth() -> None:
    """A twentieth of the time: the 99% rule leaves room for bursts, and no search of these ends above."""
    truth = highest(lambda rate: md1_within(rate, 4.0), 1, 0.99)
    found = [searched(4.0, 60.0, load=dataclasses.replace(LOAD, seed=seed), seed=seed)[0] for seed in SEEDS]
    capacities = [item["capacity_ips"] for item in found if item and item["capacity_ips"]]
    assert len(capacities) >= len(SEEDS) - 1
    assert max(capacities) <= truth
    assert np.median(capacities) >= 0.75 * truth


def test_in_little_time_a_lower_rate_is_confirmed_where_the_estimate_cannot_be() -> None:
    """Near the knee a hundred requests count as one: 8,000 of them say nothing there, and enough at half the load."""
    truth = highest(lambda rate: md1_within(rate, 10.0), 1, 0.99)
    found = [searched(10.0, 8.0, load=dataclasses.replace(LOAD, seed=seed), seed=seed)[0] for seed in range(12)]
    capacities = [item["capacity_ips"] for item in found if item and item["capacity_ips"]]
    assert len(capacities) >= 6  # of 12, where 9 are usual: fewer come up once in 70 changes of the seeds
    assert max(capacities) < 0.8 * truth


def test_a_limit_below_the_service_time_has_no_capacity_and_says_why() -> None:
    found, _, made = searched(0.9, 20.0)
    assert found
    assert (found["capacity_ips"], found["confidence"], found["confirmed"]) == (None, None, False)
    assert "\n" not in found["reason"]
    assert found["reason"].startswith("p99<=0.9 ms does not hold even at ")
    assert "requests were slower" in found["reason"]
    assert 1 <= len(made) <= 5


def test_a_lower_rate_that_the_generator_spoiled_hides_no_failure() -> None:
    """It shows nothing of its rate, and was taken for a run that was too short."""
    common = {"kind": "probe", "requests": 500, "inflated": 1.0, "grows": False, "carried": True}
    failed = slo_capacity.Evidence(
        rate_ips=100, over=500, confidence=0.0, broken=1.0, point_verdict=Verdict.OK, **common
    )
    spoilt = dataclasses.replace(failed, rate_ips=50, point_verdict=Verdict.INVALID)
    reason = slo_capacity._reason([spoilt, failed], "p90<=1", None, [])
    assert reason == "p90<=1 ms does not hold even at 100 samples/s: 500 of 500 requests were slower (broken)"
    unclear = dataclasses.replace(spoilt, point_verdict=Verdict.OK, broken=0.5)
    assert "raise slo.search_s" in slo_capacity._reason([unclear, failed], "p90<=1", None, [])


EVIDENCE = {"kind": "probe", "requests": 900, "over": 3, "inflated": 1.0, "carried": True, "broken": 0.0}


@pytest.mark.parametrize(
    ("confidence", "broken", "grows", "verdict"),
    [
        (0.995, 0.0, False, "unclear"),
        (0.2, 0.5, False, "unclear"),
        (0.0, 0.995, False, "overloaded"),
        (0.5, 0.0, True, "overloaded"),
    ],
)
def test_a_run_that_one_long_wait_ended_fails_by_its_share_or_its_slope_alone(
    confidence, broken, grows, verdict
) -> None:
    ended = {**EVIDENCE, "confidence": confidence, "broken": broken, "grows": grows}
    item = slo_capacity.Evidence(rate_ips=100, point_verdict=Verdict.OVERLOADED, **ended)
    assert (item.verdict, item.failed) == (verdict, verdict == "overloaded")


def test_a_rate_that_held_is_never_below_one_of_which_it_is_said_that_not_even_it_holds() -> None:
    held = slo_capacity.Evidence(
        rate_ips=100, confidence=0.995, point_verdict=Verdict.OK, **{**EVIDENCE, "grows": False}
    )
    failed = dataclasses.replace(held, rate_ips=200, confidence=0.0, broken=0.999)
    assert "does not hold even at" not in slo_capacity._reason([held, failed], "p99<=1", None, [])
    above = dataclasses.replace(held, rate_ips=300)
    assert slo_capacity._reason([failed, above], "p99<=1", None, [above]).startswith("not monotonic")
    assert "does not hold even at 200" in slo_capacity._reason([failed], "p99<=1", None, [])


def confirming_run(rate_rps, over, count=700):
    """A run of a steady server, in which ``over`` requests that lie far apart take longer than 2.1 ms."""
    due = np.arange(count) * int(1e9 / rate_rps)
    latency_ms = 1 + (np.arange(count) * 37 % 100) / 100
    latency_ms[np.linspace(50, count - 50, over).astype(int)] = 2.2
    done = due + (latency_ms * 1e6).astype(np.int64)
    return PointSamples(
        kind="confirm",
        index=1000,
        repeat=0,
        batch=1,
        offered_rps=rate_rps,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due,
        done_ns=done,
        slot_free=np.ones(count, dtype=bool),
        warmup=np.zeros(count, dtype=bool),
        stream=np.zeros(count, dtype=np.int16),
        asked="p99<=2.1",
    )


def test_a_run_confirms_together_with_an_unclear_one_above_its_rate() -> None:
    """Of 700 requests two were slow, which is 97% confidence; of 1,400 four, which is 99%."""
    slo, low, high = Slo("p99", 2.1), confirming_run(300.0, 2), confirming_run(400.0, 2)
    alone = slo_capacity.slo_result([low], slo)
    assert not alone["confirmed"]
    both = slo_capacity.slo_result([high, low], slo)
    assert (both["capacity_ips"], both["confirmed"]) == (300.0, True)
    assert 0.99 <= both["confidence"] == both["probes"][1]["confidence_together"]
    assert both["probes"][1]["requests_together"] == 1400
    assert [probe["verdict"] for probe in both["probes"]] == ["unclear", "unclear"]
    assert "requests_together" not in both["probes"][0]
    assert not slo_capacity.slo_result([confirming_run(700.0, 2), low], slo)["confirmed"]  # too far above
    assert slo_capacity.slo_result([confirming_run(200.0, 0), low], slo)["capacity_ips"] == 200.0  # a lower one


def test_slow_requests_that_come_singly_count_one_each() -> None:
    """Behind a stall five requests wait; one of them waits for longer than the limit."""
    latency = np.ones(4000)
    for start in range(100, 4000, 300):
        latency[start : start + 5] = [30.0, 15.0, 12.0, 10.0, 9.0]
    assert percentiles.inflation(latency, 0.99, 40.0) > 3
    assert percentiles.inflation(latency, 0.99, 20.0) < 2
    pairs = latency.copy()
    pairs[101::300] = 25.0
    assert percentiles.inflation(pairs, 0.99, 20.0) > 2


@pytest.mark.parametrize("limit_ms", [10.0, 25.0])
def test_the_time_of_a_search_is_spent(limit_ms) -> None:
    """Whatever the first run says, one last run takes what is left."""
    _, _, made = searched(limit_ms, 12.0, distribution="exponential", seed=3)
    spent_s = sum(int(point.done_ns.max()) for point in made) / 1e9
    assert 0.85 * 12 <= spent_s <= 1.1 * 12
    assert made[-1].kind == "confirm"


def test_a_server_that_falls_asleep_is_not_monotonic_and_is_told_so() -> None:
    """Idle for 10 ms it sleeps, and takes 20 ms to wake: slow at light load, fast when busy, slow past the knee."""
    found, _, _ = searched(15.0, 60.0, sleep_after_us=10_000.0, wake_us=20_000.0)
    assert found
    assert not found["monotonic"]
    assert found["reason"].startswith("not monotonic: p99<=15 ms is broken at ")
    assert "holds again at" in found["reason"]
    assert found["capacity_ips"] is None


def test_too_little_time_to_confirm_is_said() -> None:
    found, _, made = searched(10.0, 0.8, load=dataclasses.replace(LOAD, warmup_s=0.1))
    assert found
    assert found["capacity_ips"] is None
    assert "raise slo.search_s" in found["reason"]
    assert made


def test_every_probe_is_told_and_the_search_keeps_its_time() -> None:
    found, _, made = searched(5.0, 30.0)
    assert found
    assert [item["kind"] for item in found["probes"]] == [point.kind for point in made]
    for item, point in zip(found["probes"], made, strict=True):
        assert item["requests"] == int(point.measured.sum())
        assert item["over"] == int((point.latency_ms > 5.0).sum())
        assert item["verdict"] in {"held", "broken", "unclear", "overloaded"}
    assert sum(int(point.done_ns.max()) for point in made) / 1e9 <= 30 * 1.2


def test_the_same_samples_give_the_same_slo_from_disk(tmp_path) -> None:
    found, known, made = searched(5.0, 20.0)
    samples_file.save(tmp_path / "s.npz", [*known, *made])
    again = samples_file.load(tmp_path / "s.npz")
    assert slo_capacity.slo_result(again, Slo("p99", 5.0)) == found
    assert samples_file.was_measured_for(tmp_path / "s.npz", "p99<=5")
    assert not samples_file.was_measured_for(tmp_path / "s.npz", "p99<=6")


def test_another_slo_has_its_own_probes_and_the_ladder_is_the_same() -> None:
    _, known, made = searched(5.0, 20.0)
    points = [*known, *made]
    empty = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00.000+00:00", variant={"label": "x"})
    plain, own, other = (
        record_summary.summarise(empty, points, slo) for slo in (None, Slo("p99", 5.0), Slo("p99", 6.0))
    )
    assert plain.points == own.points == other.points
    assert plain.points == record_summary.summarise(empty, known, None).points
    assert own.slo
    assert own.slo["probes"]
    assert other.slo
    assert (other.slo["probes"], other.slo["confirmed"]) == ([], False)

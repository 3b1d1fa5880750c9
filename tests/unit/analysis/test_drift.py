"""The verdict on a stretch: what the sentinel at its two ends says of the machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.analysis import drift
from sweep.analysis.drift import Level
from sweep.storage import samples_file
from sweep.storage.samples import PointSamples
from sweep.storage.store import Store

STEADY = dict.fromkeys(range(6), 100.0)


def known(rates, *, starts=None, spread=0.002, key="k"):
    """Levels by number, each with an interval of +-``spread`` from ten batches."""
    starts = starts or {}
    return {
        number: Level(
            key=key, start=starts.get(number, 0), ips=ips, interval=(ips * (1 - spread), ips * (1 + spread), 10)
        )
        for number, ips in rates.items()
    }


def verdict(stretches, levels):
    return drift.judge(stretches, levels)["verdict"]


def test_a_machine_that_stays_the_same_is_steady() -> None:
    found = drift.judge([2, 4], known(STEADY))
    expected = {
        "verdict": "steady",
        "reason": None,
        "sentinel_key": "k",
        "stretches": [2, 4],
        "before": 100,
        "after": 100,
    }
    assert found == expected


@pytest.mark.parametrize(("stretch", "said"), [(0, "steady"), (2, "drifted"), (3, "drifted"), (4, "drifted")])
def test_stretches_at_the_odd_level_are_marked_and_those_that_touch_it(stretch, said) -> None:
    levels = known({0: 100, 1: 100, 2: 100, 3: 90, 4: 90, 5: 100})
    assert verdict([stretch], levels) == said


def test_what_most_sentinels_say_is_the_measure_even_if_the_first_is_the_odd_one() -> None:
    levels = known({0: 120, 1: 100, 2: 100, 3: 100})
    assert [verdict([stretch], levels) for stretch in (0, 1, 2)] == ["drifted", "steady", "steady"]


def test_the_reason_names_the_worst_end_and_the_figures_those_around_it() -> None:
    found = drift.judge([0, 2], known({0: 100, 1: 100, 2: 100, 3: 90}))
    assert found["reason"] == "the sentinel ran -10.0% off the sweep's median of 100 samples/s"
    assert (found["before"], found["after"]) == (100, 90)


def test_a_move_within_two_percent_or_within_chance_is_no_drift() -> None:
    assert verdict([0], known({0: 100, 1: 101.9})) == "steady"
    assert verdict([0], known({0: 100, 1: 110}, spread=0.2)) == "steady"
    assert verdict([0], known({0: 100, 1: 110})) == "drifted"


def test_a_sentinel_without_an_interval_proves_nothing() -> None:
    bare = {number: Level(key="k", start=0, ips=ips, interval=None) for number, ips in ((0, 100.0), (1, 50.0))}
    assert verdict([0], bare) == "steady"


def test_a_stretch_without_its_end_is_unknown_unless_its_beginning_was_odd() -> None:
    assert verdict([1], known({0: 100, 1: 100})) == "unknown"
    assert drift.judge([1], known({0: 100, 1: 100}))["after"] is None
    assert verdict([3], known({0: 100, 1: 100, 2: 100, 3: 80})) == "drifted"
    assert verdict([0, None], known({0: 100, 1: 100})) == "unknown"


def test_a_later_start_of_the_sweep_ends_no_stretch_and_is_measured_by_the_same_median() -> None:
    levels = known({0: 100, 1: 100, 2: 100, 3: 80, 4: 80}, starts={3: 1, 4: 1})
    assert verdict([1], levels) == "steady"
    assert verdict([2], levels) == "unknown"
    assert verdict([3], levels) == "drifted"


def test_sentinels_of_another_variant_are_not_compared() -> None:
    levels = known({0: 100, 1: 100}) | known({2: 900, 3: 900}, key="other")
    assert (verdict([0], levels), verdict([2], levels)) == ("steady", "steady")
    assert drift.judge([1], levels)["after"] is None


@pytest.mark.parametrize("stretches", [[], [None], [None, None], [7]])
def test_without_a_sentinel_there_is_no_verdict(stretches) -> None:
    assert drift.judge(stretches, known(STEADY)) is None


@given(st.lists(st.floats(10, 1000), min_size=2, max_size=9), st.floats(0.001, 0.3), st.data())
def test_the_verdict_knows_no_units_and_no_direction_of_time(rates, spread, data) -> None:
    stretch = data.draw(st.integers(0, len(rates) - 2))
    forward = known(dict(enumerate(rates)), spread=spread)
    scaled = known(dict(enumerate(rate * 8 for rate in rates)), spread=spread)
    mirrored = known(dict(enumerate(reversed(rates))), spread=spread)
    said = verdict([stretch], forward)
    assert said == verdict([stretch], scaled) == verdict([len(rates) - 2 - stretch], mirrored)


def run(rng, slower=1.0, count=2000, start=0):
    """A sentinel's closed loop with exponential service times."""
    done = np.cumsum(rng.exponential(slower * 5e5, count)).astype(np.int64)
    due = np.concatenate([[0], done[:-1]])
    return PointSamples(
        kind="closed",
        index=-1,
        repeat=start,
        batch=1,
        offered_rps=None,
        overloaded=False,
        complete=True,
        scheduled_ns=due,
        issued_ns=due,
        done_ns=done,
        slot_free=np.ones(count, dtype=bool),
        warmup=np.zeros(count, dtype=bool),
        stream=np.zeros(count, dtype=np.int16),
    )


def simulated(rng, speeds, count=2000):
    return {number: drift.level_of([run(rng, slower, count)], "k") for number, slower in enumerate(speeds)}


@pytest.mark.parametrize("sentinels", [2, 5, 12])
def test_a_sweep_of_a_steady_machine_is_called_drifted_in_at_most_5_percent(sentinels) -> None:
    rng = np.random.default_rng(sentinels)
    sweeps = 40
    false = 0
    for _ in range(sweeps):
        levels = simulated(rng, [1.0] * sentinels)
        false += any(verdict([stretch], levels) == "drifted" for stretch in range(sentinels - 1))
    assert false / sweeps <= 0.05


@pytest.mark.parametrize(("starts_cv", "sentinels"), [(0.01, 20), (0.02, 20), (0.02, 2)])
def test_starts_that_differ_are_no_drift_in_at_least_95_percent(starts_cv, sentinels) -> None:
    rng = np.random.default_rng(sentinels)
    rates = 100 * np.exp(starts_cv * rng.standard_normal((300, sentinels)))
    false = 0
    for sweep in rates.tolist():
        levels = known(dict(enumerate(sweep)), spread=0.001)
        false += verdict(list(range(sentinels - 1)), levels) == "drifted"
    assert false / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_a_step_of_5_percent_is_seen_by_20_sentinels_whose_starts_differ_by_half_a_percent() -> None:
    rng = np.random.default_rng(6)
    rates = 100 * np.exp(0.005 * rng.standard_normal((50, 20))) * np.where(np.arange(20) < 13, 1.0, 0.95)
    seen = [verdict([15], known(dict(enumerate(sweep)), spread=0.001)) == "drifted" for sweep in rates.tolist()]
    assert sum(seen) >= 45


def test_a_slowdown_of_a_fifth_in_mid_sweep_is_seen_in_at_least_90_percent() -> None:
    rng = np.random.default_rng(4)
    seen = sum(verdict([3], simulated(rng, [1, 1, 1, 1, 1.2, 1.2], 4000)) == "drifted" for _ in range(20))
    assert seen >= 18


def test_levels_are_read_from_the_folder_and_a_damaged_one_is_passed_over(tmp_path) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    for number in range(3):
        samples_file.save(store.sentinel_path(number, "abc"), [run(rng, start=number)])
    store.sentinel_path(1, "abc").write_bytes(b"damaged")
    found = drift.levels(store)
    assert {number: (level.key, level.start) for number, level in found.items()} == {0: ("abc", 0), 2: ("abc", 2)}
    assert found[0].ips == pytest.approx(2000, rel=0.15)
    assert drift.levels(Store(tmp_path / "none")) == {}

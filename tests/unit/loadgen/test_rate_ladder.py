"""Where rungs stand, how long they last, and that a budget is kept: on the virtual clock."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import LOAD, session

from sweep.analysis.measured_window import window_ips
from sweep.analysis.queue_model import Service
from sweep.loadgen import load_curve, rate_ladder
from sweep.loadgen.communicator import latest_now_ns


def service(streams=1, unloaded=1e6, saturated=1e6):
    return Service(streams=streams, unloaded_ns=np.full(9, unloaded), saturated_ns=np.full(9, saturated))


@pytest.mark.parametrize("points", [3, 4, 7, 12])
@pytest.mark.parametrize("streams", [1, 4])
def test_a_placed_ladder_starts_light_meets_80_percent_and_ends_past_the_knee(points, streams) -> None:
    load = dataclasses.replace(LOAD, points=points)
    peak = streams * 1000.0
    rates = rate_ladder.place_rungs(service(streams), load, peak, 1)
    assert len(rates) == points
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1.1 * peak)
    assert any(rate == pytest.approx(0.8 * peak) for rate in rates)
    assert rates[0] == pytest.approx(0.2 * peak)
    assert sum(rate < peak for rate in rates) == points - 1


@pytest.mark.parametrize(("service_ms", "lightest", "rungs"), [(1.0, 0.2, 7), (5.0, 0.331, 7), (11.0, 0.728, 7)])
def test_the_lowest_rung_reaches_its_count_within_max_s(service_ms, lightest, rungs) -> None:
    """At 5 ms a rung at 20% brings 400 requests in the longest window of 10 s: it would always end short."""
    rates = rate_ladder.place_rungs(
        service(unloaded=service_ms * 1e6, saturated=service_ms * 1e6), LOAD, 1000 / service_ms, 1
    )
    assert rates[0] == pytest.approx(lightest * 1000 / service_ms, rel=0.01)
    assert len(rates) == rungs
    assert all(rate * LOAD.max_s >= LOAD.min_requests - 1 for rate in rates)


def test_where_no_rung_below_80_percent_reaches_its_count_there_are_fewer() -> None:
    rates = rate_ladder.place_rungs(service(unloaded=50e6, saturated=50e6), LOAD, 20.0, 1)
    assert len(rates) < LOAD.points
    assert rates[0] == pytest.approx(0.8 * 20.0)


def test_rungs_are_dense_where_the_curve_is_steep() -> None:
    rates = np.array(rate_ladder.place_rungs(service(), LOAD, 1000.0, 1))
    gaps = np.diff(rates[:-1])
    assert gaps[0] == gaps.max()
    assert gaps[-1] < gaps[0] / 2


def test_the_ladder_stands_on_what_an_open_loop_can_take() -> None:
    """A closed loop at depth 2 overlaps copies and compute; its peak may lie past the open loop's knee."""
    rates = rate_ladder.place_rungs(service(saturated=2e6), LOAD, peak_ips=1000.0, batch=1)
    assert rates[-1] == pytest.approx(550)


def test_batches_count_in_samples() -> None:
    one, eight = (rate_ladder.place_rungs(service(), LOAD, batch * 1000.0, batch) for batch in (1, 8))
    assert eight == pytest.approx([8 * rate for rate in one])


def test_fractions_of_ones_own_stand_as_they_are() -> None:
    load = dataclasses.replace(LOAD, points=None, fractions=(0.5, 0.9))
    points = load_curve.measure(session(), load, batch=1)
    peak = window_ips(points[0])
    assert peak
    assert [point.offered_rps for point in points if point.index >= 0] == pytest.approx([0.5 * peak, 0.9 * peak])
    assert load_curve.point_count(load) == 3
    assert load_curve.point_count(LOAD) == 8


seconds = st.floats(0.1, 20.0)


@given(seconds, seconds, st.integers(1, 2000), st.floats(1.0, 200.0), st.floats(10.0, 1e5))
def test_windows_add_up_to_what_is_left_unless_every_one_is_full(min_s, more_s, least, left_s, peak) -> None:
    load = dataclasses.replace(LOAD, min_s=min_s, max_s=min_s + more_s, min_requests=least, budget_s=1.0)
    rates = [share * peak for share in (0.2, 0.6, 0.8, 0.9, 1.1)]
    windows = rate_ladder.windows_s(load, rates, peak, left_s)
    assert windows
    total = sum(windows) + load.warmup_s * len(rates)
    full = all(window >= load.max_s - 1e-6 for window in windows[:-1])
    tiny = any(window <= 0.05 for window in windows)
    assert full or tiny or total == pytest.approx(left_s, rel=1e-6)
    assert all(window <= load.max_s + 1e-6 for window in windows)


def test_spare_time_goes_to_the_knee_and_none_past_it() -> None:
    load = dataclasses.replace(LOAD, min_s=1.0, max_s=60.0, min_requests=100, budget_s=1.0)
    windows = rate_ladder.windows_s(load, [200, 600, 900, 1100], 1000, 30.0)
    assert windows
    assert windows[0] < windows[1] < windows[2]
    assert windows[3] == 1.0


def test_without_a_budget_each_point_keeps_its_own_limits() -> None:
    assert rate_ladder.windows_s(LOAD, [1.0], 1.0, 9.0) is None
    assert rate_ladder.closed_load(LOAD) is LOAD


@pytest.mark.parametrize("service_us", [50.0, 1000.0, 20_000.0])
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_budget_is_kept_within_a_fifth_whatever_the_speed(service_us, repeats) -> None:
    load = dataclasses.replace(LOAD, budget_s=25.0, repeats=repeats)
    spent, rates = 0.0, None
    for repeat in range(repeats):
        made = session(distribution="exponential", service_us=service_us)
        points = load_curve.measure(made, load, batch=1, repeat=repeat, rates_ips=rates)
        rates = [point.offered_rps for point in points if point.index >= 0]
        spent += latest_now_ns(made) / 1e9
    assert spent == pytest.approx(25.0, rel=0.2)

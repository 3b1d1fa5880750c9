"""A change of the service time is told from what a busy queue does on its own."""

import dataclasses

import numpy as np
import pytest
from test_point_summary import MS, loop, point

from sweep.analysis import point_summary, stability, verdicts


def times(seed=0, count=700):
    return np.random.default_rng(seed).gamma(100.0, 0.01, count)


@pytest.mark.parametrize(
    ("factor", "least"),
    [(np.repeat([1.0, 1.1], 350), 0.08), (np.linspace(1.0, 1.5, 700), 0.3), (np.repeat([1.2, 1.0], [200, 500]), 0.15)],
    ids=["step", "ramp", "late warm-up"],
)
def test_a_step_and_a_ramp_are_told_with_their_size(factor, least) -> None:
    assert least < stability.unsteady([times() * factor]) < 2 * least
    assert stability.unsteady([times()]) == 0


def test_a_change_below_5_percent_and_a_few_services_are_not_judged() -> None:
    assert stability.unsteady([times() * np.repeat([1.0, 1.03], 350)]) == 0
    assert stability.unsteady([np.repeat([1.0, 2.0], 20)]) == 0


def test_a_step_is_told_that_pauses_hide_from_means() -> None:
    """A pause of ten services in 150 has the standard deviation of eight steps; logarithms hardly see it."""
    rng = np.random.default_rng(3)
    paused = [times(seed) + 10 * (rng.random(700) < 1 / 150) for seed in range(20)]
    assert sum(stability.unsteady([each * np.repeat([1.0, 1.1], 350)]) > 0 for each in paused) >= 19
    assert sum(stability.unsteady([each]) > 0 for each in paused) <= 2


def test_constant_services_and_bursts_have_a_scale() -> None:
    """Rounding to nanoseconds is no correlation, and what is completed at once has no logarithm."""
    assert stability.unsteady([np.repeat([1.0, 1.1], 350)]) == pytest.approx(0.1, rel=0.01)
    assert stability.unsteady([np.ones(700)]) == 0
    bursts = np.tile([0.0, 0.0, 0.0, 4.0], 200)
    assert stability.unsteady([bursts]) == 0
    assert stability.unsteady([bursts * np.repeat([1.0, 1.3], 400)]) == pytest.approx(0.3, rel=0.01)


def test_all_passes_tell_how_strongly_services_hang_together() -> None:
    """One slow visit looks like a step in its pass; its like in other passes show that such a server is steady."""
    visit = np.ones(700)
    visit[500:560] = 1.5
    visits = [np.roll(visit, -70 * number) * times(number) for number in range(5)]
    assert stability.unsteady(visits) == 0


def test_a_state_that_comes_and_goes_is_no_change() -> None:
    """Sixty requests at each of random levels: five of them make no half slower than the other for good."""
    rng = np.random.default_rng(1)
    flagged = sum(
        stability.unsteady([np.repeat(rng.choice([1.0, 1.3], 12), 60) * times(seed, 720)]) > 0 for seed in range(60)
    )
    assert flagged <= 6


def test_many_passes_share_one_risk() -> None:
    rng = np.random.default_rng(2)
    flagged = sum(stability.unsteady(list(rng.exponential(1.0, (5, 500)))) > 0 for _ in range(100))
    assert flagged <= 6


def test_a_service_begins_when_the_one_before_it_on_its_stream_is_done() -> None:
    """Issued one ahead on two streams: each takes 2 ms, whatever it waited."""
    done = np.repeat(np.arange(1, 5) * MS * 2, 2)
    stream = (np.arange(8) % 2).astype(np.int16)
    due = done - 4 * MS
    samples = point([1.0] * 8, scheduled_ns=due, issued_ns=due, done_ns=done, stream=stream)
    assert stability.service_times_ms(samples)[2:] == pytest.approx(2.0)


def queued(load, count=1100):
    """A single server of 1 ms under steady arrivals."""
    due = (np.arange(count) * MS / load).astype(np.int64)
    done = np.maximum.accumulate(due - np.arange(count) * MS) + (np.arange(count) + 1) * MS
    return point(
        [1.0] * count, scheduled_ns=due, issued_ns=np.maximum(due, done - MS), done_ns=done, offered_rps=1e3 * load
    )


@pytest.mark.parametrize(("load", "verdict"), [(0.98, "ok"), (1.05, "overloaded"), (1.1, "overloaded")])
def test_a_rung_past_the_knee_is_overloaded_by_the_slope_of_its_backlog(load, verdict) -> None:
    busy = dataclasses.replace(queued(load), slot_free=np.zeros(1100, dtype=bool))
    found, reason = verdicts.open_verdict([busy])
    assert found == verdict
    assert reason is None or "behind the arrivals" in reason


def test_a_loop_that_stands_still_for_a_third_is_unstable_whatever_its_count() -> None:
    found = point_summary.closed_summary([loop([1.0] * 10 + [8.0] + [1.0] * 5)])
    assert found["verdict"] == "unstable"
    assert found["reason"] == "nothing was completed for 35% of the window"

"""A slice of the study in two halves, with fixed seeds and wide marks; `make bench-stats` prints it whole."""

import families
import halves
import numpy as np
import pytest

from sweep.analysis import percentiles, stability


@pytest.mark.parametrize("passes", [3, 5])
def test_the_p99_of_repeats_covers_that_of_a_typical_start(passes) -> None:
    held, null = halves.repeats_coverage(40, 0.99, draw=families.lognormal(0.1), passes=passes, between=0.02)
    assert held.value >= 0.85
    assert null.value <= 0.1


@pytest.mark.parametrize(
    ("draw", "fewest"), [(families.periodic_stalls(90, 20.0), 0.9), (families.lognormal(0.3), 0.85)]
)
def test_the_peak_covers_its_throughput_where_it_prints_one(draw, fewest) -> None:
    held, _ = halves.peak_coverage(40, draw=draw, passes=1, count=662)
    assert held.value >= fewest


def test_a_sticky_server_has_no_interval_rather_than_a_wrong_one() -> None:
    held, null = halves.peak_coverage(40, draw=families.clock_steps(60), passes=1, count=662)
    assert null.value >= 0.9
    assert held.of - held.count <= 2


def test_the_short_tail_of_a_busy_queue_is_marked() -> None:
    assert halves.tail_is_marked(40).value >= 0.95
    assert halves.tail_is_marked(40, load=0.001).value <= 0.1


def test_steady_queues_are_not_unstable_a_step_is_and_past_the_knee_is_overloaded() -> None:
    steady = halves.point_verdicts(15, draw=families.exponential, load=0.89, passes=5)
    assert steady.get("unstable", halves.Share(0, 15)).count <= 2
    assert halves.point_verdicts(15, draw=families.lognormal(0.1), load=0.8, step=0.1)["unstable"].count >= 12
    assert halves.point_verdicts(15, draw=families.constant, load=1.1) == {"overloaded": halves.Share(15, 15)}


def test_a_run_at_exactly_the_capacity_seldom_confirms_and_one_below_it_does() -> None:
    """M/M/1 with p99 <= 10 service times: 1 - ln(100) / 10."""
    rate = 1 - 0.4605
    same = {"draw": families.exponential, "limit": 10.0}
    assert halves.confirms(50, **same, rate=rate, count=2000).count <= 3
    assert halves.confirms(25, **same, rate=0.55 * rate, count=5000).count >= 20


def test_peers_call_what_their_rules_say() -> None:
    """Of equal variants whose starts differ by 1%, two figures alone are called different in half of all pairs."""
    equal, _ = halves.peer_calls(halves.perf_analyzer, 30, slower=1.0, between=0.01)
    slower, _ = halves.peer_calls(halves.pyperf, 15, slower=1.05, between=0.0)
    assert equal.value > 0.2
    assert slower.value > 0.9
    assert percentiles.slo_confidence(np.ones(7000), 0.99, 10.0) > 0.99


def test_the_oracle_of_a_step_knows_what_a_window_can_show() -> None:
    assert halves.step_oracle(draw=families.lognormal(0.1), load=0.5) > 0.99
    assert halves.step_oracle(draw=families.weibull(0.6), load=0.5) < 0.3
    assert stability.RISK <= 0.05

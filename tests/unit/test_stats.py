import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sweep import stats


@pytest.mark.parametrize(
    ("p", "over", "count"),
    [(0.9, 0, 44), (0.99, 0, 459), (0.999, 0, 4603), (0.9, 1, 64), (0.99, 1, 662), (0.999, 1, 6636), (0.99, 10, 2010)],
)
def test_min_count_is_loadgens_bound(p, over, count) -> None:
    assert stats.min_count(p, over) == count


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_percentile_is_the_smallest_value_that_covers_its_share(values, p) -> None:
    ordered = np.sort(np.array(values))
    found = stats.percentile(ordered, p)
    assert found in ordered
    assert np.mean(ordered <= found) >= p - 1e-12
    assert np.mean(ordered < found) < p


def test_a_percentile_is_printed_only_where_the_count_carries_it() -> None:
    few = stats.latency_summary(np.linspace(1, 2, 661))
    assert few["p99"] is None
    assert few["p95"] is not None
    enough = stats.latency_summary(np.linspace(1, 2, 662))
    assert enough["p99"] == pytest.approx(1.99, abs=0.01)
    assert enough["p999"] is None


def test_nothing_measured_is_null_and_not_zero() -> None:
    assert set(stats.latency_summary(np.empty(0)).values()) == {None}


def test_intervals_cover_the_truth_of_independent_samples() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        low, high = stats.percentile_intervals(rng.exponential(1.0, 2000), ("p99",))["p99"]
        hits += low <= -np.log(0.01) <= high
    assert hits >= 90


def test_intervals_of_correlated_samples_are_wider_than_the_binomial_ones() -> None:
    rng = np.random.default_rng(2)
    slow = np.repeat(rng.exponential(1.0, 50), 40)  # forty neighbours share each value
    low, high = stats.percentile_intervals(slow, ("p50",))["p50"]
    naive = stats.order_statistics(np.sort(slow), 0.5)
    assert high - low > 1.5 * (naive[1] - naive[0])


def test_slo_confidence_is_binomial() -> None:
    latency = np.full(662, 1.0)
    latency[0] = 9.0
    assert stats.slo_confidence(latency, 0.99, 5.0) == pytest.approx(0.9901, abs=1e-3)
    latency[1] = 9.0
    assert stats.slo_confidence(latency, 0.99, 5.0) < 0.99


def test_mean_interval_needs_two_values() -> None:
    assert stats.mean_interval(np.array([1.0])) is None
    low, high = stats.mean_interval(np.array([1.0, 2.0, 3.0]))
    assert low == pytest.approx(-0.484, abs=1e-3)
    assert high == pytest.approx(4.484, abs=1e-3)


@given(st.integers(1, 5000), st.floats(0.01, 0.99), st.floats(0.001, 0.999))
def test_binomial_quantile_is_the_smallest_that_covers(count, p, q) -> None:
    found = stats._binomial_quantile(q, count, p)
    assert scipy_stats.binom.cdf(found, count, p) >= q - 1e-9
    assert scipy_stats.binom.cdf(found - 1, count, p) < q + 1e-9

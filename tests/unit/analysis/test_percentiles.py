import lazy_loader
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.analysis import percentiles

stats = lazy_loader.load("scipy.stats", suppress_warning=True)  # most of a second, which a collection does without


@pytest.mark.parametrize(
    ("p", "over", "count"),
    [(0.9, 0, 44), (0.99, 0, 459), (0.999, 0, 4603), (0.9, 1, 64), (0.99, 1, 662), (0.999, 1, 6636), (0.99, 10, 2010)],
)
def test_min_count_is_loadgens_bound(p, over, count) -> None:
    assert percentiles.min_count(p, over) == count


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_percentile_is_the_smallest_value_that_covers_its_share(values, p) -> None:
    ordered = np.sort(np.array(values))
    found = percentiles.percentile(ordered, p)
    assert found in ordered
    assert np.mean(ordered <= found) >= p - 1e-12
    assert np.mean(ordered < found) < p


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.randoms(), st.floats(0.01, 0.99), st.floats(0.01, 0.99)
)
def test_percentiles_know_no_order_of_arrival_and_rise_with_their_level(values, rng, one, other) -> None:
    ordered = np.sort(np.array(values))
    shuffled = np.sort(np.array(rng.sample(values, len(values))))
    assert percentiles.percentile(ordered, one) == percentiles.percentile(shuffled, one)
    low, high = sorted((one, other))
    assert percentiles.percentile(ordered, low) <= percentiles.percentile(ordered, high)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200), st.floats(0.1, 10), st.floats(0.01, 0.99))
def test_a_percentile_in_other_units_is_the_same_percentile(values, scale, p) -> None:
    ordered = np.sort(np.array(values))
    assert percentiles.percentile(ordered * scale, p) == percentiles.percentile(ordered, p) * scale


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=400))
def test_a_summary_shows_what_the_count_carries_and_nothing_else(values) -> None:
    said = percentiles.latency_summary(np.array(values))
    for name, p in percentiles.PERCENTILES.items():
        assert (said[name] is None) == (len(values) < percentiles.min_count(p))
        assert said[name] is None or min(values) <= said[name] <= said["max"] == max(values)


@given(st.floats(0.5, 0.9995), st.integers(0, 8))
def test_min_count_is_the_first_count_that_carries(p, over) -> None:
    count = percentiles.min_count(p, over)
    assert stats.binom.cdf(over, count, 1 - p) <= 0.01 + 1e-12
    assert count == over + 1 or stats.binom.cdf(over, count - 1, 1 - p) > 0.01 - 1e-12


def test_a_percentile_is_printed_only_where_the_count_carries_it() -> None:
    few = percentiles.latency_summary(np.linspace(1, 2, 661))
    assert few["p99"] is None
    assert few["p95"] is not None
    enough = percentiles.latency_summary(np.linspace(1, 2, 662))
    assert enough["p99"] == pytest.approx(1.99, abs=0.01)
    assert enough["p999"] is None


def test_nothing_measured_is_null_and_not_zero() -> None:
    assert set(percentiles.latency_summary(np.empty(0)).values()) == {None}


def test_slo_confidence_is_binomial() -> None:
    latency = np.full(662, 1.0)
    latency[0] = 9.0
    assert percentiles.slo_confidence(latency, 0.99, 5.0) == pytest.approx(0.9901, abs=1e-3)
    latency[1] = 9.0
    assert percentiles.slo_confidence(latency, 0.99, 5.0) < 0.99

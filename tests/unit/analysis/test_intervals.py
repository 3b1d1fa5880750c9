"""Intervals at their edges, and what must hold for any series; how often they cover is in tests/statistics."""

import math

import lazy_loader
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.analysis import intervals, percentiles

stats = lazy_loader.load("scipy.stats", suppress_warning=True)  # most of a second, which a collection does without


def exponential(count, seed=0):
    return np.random.default_rng(seed).exponential(1.0, count)


def correlated(count, phi, seed=0):
    noise = np.random.default_rng(seed).standard_normal(count)
    for at in range(1, count):
        noise[at] = phi * noise[at - 1] + math.sqrt(1 - phi * phi) * noise[at]
    return np.exp(noise)


@pytest.mark.parametrize(("name", "count"), [("p50", 59), ("p99", 661)])
def test_too_few_requests_carry_no_interval(name, count) -> None:
    assert intervals.percentile_interval([exponential(count)], percentiles.PERCENTILES[name]) is None


def test_a_steady_series_has_both_intervals_around_its_percentiles() -> None:
    values = exponential(5000)
    found = intervals.percentile_intervals([values])
    ordered = np.sort(values)
    for name in ("p50", "p99"):
        low, high = found[name]
        assert low < percentiles.percentile(ordered, percentiles.PERCENTILES[name]) < high


def test_the_interval_is_the_binomial_one_where_batches_are_as_far_apart_as_chance_has_them() -> None:
    """Shares of ten batches whose variance is exactly binomial, and a Student quantile of ten thousand."""
    low, high = intervals._ranks(2000, 0.9, 0.95)
    ranks = stats.binom.ppf([0.025, 0.975], 2000, 0.9)
    assert low * 2001 == pytest.approx(ranks[0] + 0.5, abs=1)
    assert high * 2001 == pytest.approx(ranks[1] + 0.5, abs=1)


def test_correlation_widens_an_interval_and_in_the_end_withholds_it() -> None:
    free, tied, stuck = (intervals.percentile_interval([correlated(4000, phi)], 0.5) for phi in (0.0, 0.9, 0.995))
    assert math.log(tied[1] / tied[0]) > 2 * math.log(free[1] / free[0])
    assert stuck is None


def test_inflation_is_that_of_an_autoregression() -> None:
    """(1 + phi) / (1 - phi) for AR(1) itself; exp() of it is a little less correlated."""
    noise = np.log(correlated(200_000, 0.8))
    assert intervals.inflation_of_mean(noise) == pytest.approx(9.0, rel=0.15)
    assert intervals.inflation_of_mean(exponential(200_000)) < 1.05


@pytest.mark.parametrize("count", [1, 2, 5, 60, 2000])
def test_a_constant_series_is_no_accident(count) -> None:
    assert intervals.inflation_of_mean(np.full(count, 3.0)) == 1
    found = intervals.percentile_interval([np.full(count, 3.0)], 0.5)
    assert found == (None if count < 60 else (3.0, 3.0))


@given(st.integers(0, 2**32), st.sampled_from([0.5, 0.9, 0.99]), st.integers(1, 4), st.floats(0.1, 10))
def test_an_interval_holds_its_percentile_whatever_the_units_and_passes(seed, p, passes, scale) -> None:
    parts = np.array_split(exponential(3000, seed), passes)
    low, high = intervals.order_statistics(parts, p, 0.95)
    found = percentiles.percentile(np.sort(np.concatenate(parts)), p)
    assert low <= found <= high
    other = intervals.order_statistics([part * scale for part in parts], p, 0.95)
    assert other == pytest.approx((low * scale, high * scale))


@given(st.integers(0, 2**32))
def test_more_confidence_is_never_narrower(seed) -> None:
    values = [exponential(1000, seed)]
    narrow, wide = (intervals.order_statistics(values, 0.9, level) for level in (0.8, 0.99))
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_a_tail_beyond_the_longest_latency_has_no_upper_end() -> None:
    assert intervals.order_statistics([exponential(100)], 0.99, 0.95)[1] == math.inf


def completions(gaps):
    return np.concatenate([[0.0], np.cumsum(gaps)])


def test_a_rate_interval_is_students_on_the_log_rates_of_ten_batches() -> None:
    times = completions(exponential(1000))
    interval, batches = intervals.rate_interval(2.0, [times])
    logs = np.log(100 / np.diff(times[::100]))
    half = stats.t.ppf(0.975, 9) * logs.std(ddof=1) / math.sqrt(10)
    assert batches == 10
    assert interval == pytest.approx([2 * math.exp(-half), 2 * math.exp(half)])


@pytest.mark.parametrize(("passes", "batches"), [(1, 10), (2, 20), (3, 3), (5, 5)])
def test_from_three_passes_on_the_passes_are_the_batches(passes, batches) -> None:
    assert intervals.rate_interval(1.0, [completions(exponential(500, seed)) for seed in range(passes)])[1] == batches


@pytest.mark.parametrize("gaps", [[], [1.0], [1.0, 1.0], [1.0, 1.0, 1.0]])
def test_too_few_completions_have_no_rate_interval(gaps) -> None:
    assert intervals.rate_interval(1.0, [completions(np.array(gaps))])[0] is None


def test_completions_at_one_instant_have_no_rate() -> None:
    assert intervals.rate_interval(1.0, [np.zeros(100)])[0] is None


@given(st.integers(0, 2**32), st.floats(0.9, 1.1))
def test_apart_is_welchs_test_on_the_logs(seed, ratio) -> None:
    parts = [completions(exponential(400, seed)), completions(exponential(900, seed + 1) * ratio)]
    logs = [np.log((len(part) - 1) // 10 / np.diff(part[:: (len(part) - 1) // 10])) for part in parts]
    rates = [math.exp(log.mean()) for log in logs]
    found = [intervals.rate_interval(rate, [part]) for rate, part in zip(rates, parts, strict=True)]
    first, second = ((*interval, batches) for interval, batches in found)
    value = stats.ttest_ind(*logs, equal_var=False).pvalue
    for risk in (0.05, 0.3):
        assert abs(value - risk) < 1e-9 or intervals.apart(first, second, risk) == (value < risk)
        assert intervals.apart(first, second, risk) == intervals.apart(second, first, risk)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=8))
def test_paired_is_students_test_on_the_ratios(pairs) -> None:
    first, second = zip(*pairs, strict=True)
    logs = np.log(first) - np.log(second)
    if np.ptp(logs) < 1e-6:
        return
    value = stats.ttest_rel(np.log(first), np.log(second)).pvalue
    assert abs(value - 0.05) < 1e-6 or intervals.paired_apart(first, second, 0.05) == (value < 0.05)


def test_without_any_spread_only_equals_are_equal() -> None:
    assert not intervals.apart((5.0, 5.0, 10), (5.0, 5.0, 10))
    assert intervals.apart((5.0, 5.0, 10), (5.1, 5.1, 10))
    assert not intervals.paired_apart([4.0, 8.0, 2.0], [4.0, 8.0, 2.0])
    assert intervals.paired_apart([4.0, 8.0, 2.0], [2.0, 4.0, 1.0])

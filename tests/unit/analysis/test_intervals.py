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


def students_half(times, batches, freedom, level=0.95):
    edges = np.linspace(0, len(times) - 1, batches + 1).astype(int)
    logs = np.log(np.diff(edges) / np.diff(times[edges]))
    return stats.t.ppf((1 + level) / 2, freedom) * logs.std(ddof=1) / math.sqrt(batches)


def test_a_rate_interval_is_students_over_the_widest_of_three_batch_lengths() -> None:
    times = completions(exponential(1000))
    interval, batches = intervals.rate_interval(2.0, [times])
    half = intervals._WIDEST_OF_THREE * max(students_half(times, each, 9) for each in (7, 10, 16))
    assert batches == 10
    assert interval == pytest.approx([2 * math.exp(-half), 2 * math.exp(half)])


def test_a_stall_in_every_batch_of_one_length_is_seen_by_another() -> None:
    """Ten batches of 70 with one stall each agree to the last bit; so would three passes that began alike."""
    gaps = np.ones(700)
    gaps[35::70] = 20.0
    interval, _ = intervals.rate_interval(1.0, [completions(gaps)])
    assert math.log(interval[1]) > 0.02
    thrice, _ = intervals.rate_interval(1.0, [completions(gaps)] * 3)
    assert math.log(thrice[1]) > 0.01


def test_completions_that_hang_together_carry_no_interval_of_their_rate() -> None:
    stuck = completions(correlated(2000, 0.99))
    assert intervals.rate_interval(1.0, [stuck]) == (None, 10)
    assert intervals.rate_interval(1.0, [completions(np.ones(2000))])[0] == pytest.approx([1.0, 1.0])


def test_what_differs_between_passes_is_in_a_percentiles_interval_and_is_not_taken_for_correlation() -> None:
    """Twice the speed in one pass: over the concatenation that is a correlation that withholds the interval."""
    parts = [exponential(1000, seed) * (2 if seed == 4 else 1) for seed in range(5)]
    low, high = intervals.percentile_interval(parts, 0.99)
    each = np.log([percentiles.percentile(np.sort(part), 0.99) for part in parts])
    half = stats.t.ppf(0.975, 4) * each.std(ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((math.exp(each.mean() - half), math.exp(each.mean() + half)))
    assert intervals.correlation(parts, 0.99) < 2
    typical = percentiles.passes_summary(parts)
    assert typical["p99"] == pytest.approx(math.sqrt(low * high))
    assert typical["p999"] == percentiles.latency_summary(np.concatenate(parts))["p999"]


def test_a_pass_that_cannot_carry_the_percentile_withholds_its_interval() -> None:
    assert intervals.percentile_interval([exponential(661), *[exponential(900, n) for n in (1, 2)]], 0.99) is None
    stuck = [correlated(1000, 0.99, seed) for seed in range(3)]
    assert intervals.percentile_interval(stuck, 0.5) is None


def test_ticks_of_a_coarse_clock_hide_no_correlation() -> None:
    """Every slow request takes the longest time there is: none lies above it."""
    slow = np.repeat(np.random.default_rng(0).random(100) < 0.1, 30).astype(float) + 1
    assert intervals.correlation([slow], 0.99) > 10
    assert percentiles.inflation(slow, 0.99, 9.0) > 10


def test_requests_that_wait_for_one_another_count_as_few() -> None:
    free, stuck = (intervals.independent_counts([correlated(4000, phi)]) for phi in (0.0, 0.9))
    assert free["p99"] == pytest.approx(4000, rel=0.25)
    assert stuck["p50"] < 500
    assert intervals.independent_counts([exponential(4000), exponential(4000, 1), exponential(4000, 2)])["p50"] <= 4000


@pytest.mark.parametrize(("passes", "batches"), [(1, 10), (2, 20), (3, 3), (5, 5)])
def test_from_three_passes_on_the_passes_are_the_batches(passes, batches) -> None:
    assert intervals.rate_interval(1.0, [completions(exponential(500, seed)) for seed in range(passes)])[1] == batches


@pytest.mark.parametrize("gaps", [[], [1.0], [1.0, 1.0], [1.0, 1.0, 1.0]])
def test_too_few_completions_have_no_rate_interval(gaps) -> None:
    assert intervals.rate_interval(1.0, [completions(np.array(gaps))])[0] is None


def test_completions_at_one_instant_have_no_rate() -> None:
    assert intervals.rate_interval(1.0, [np.zeros(100)])[0] is None


@given(st.integers(0, 2**32))
def test_the_error_behind_an_interval_is_that_of_the_log_of_its_batches(seed) -> None:
    logs = np.random.default_rng(seed).normal(0.0, 0.1, 10)
    error = logs.std(ddof=1) / math.sqrt(10)
    half = stats.t.ppf(0.975, 9) * error
    assert intervals.log_error(math.exp(1 - half), math.exp(1 + half), 10) == pytest.approx(error)

"""Comparison with the best: the range of equal variants, and who is told from the fastest."""

import math

import numpy as np
import pytest
from scipy import stats

from sweep.analysis import best_comparison
from sweep.analysis.best_comparison import Entry


@pytest.mark.parametrize(
    ("variants", "freedom", "expected"),  # tables of the studentized range, upper 5%
    [(2, math.inf, 2.772), (2, 4, 3.927), (12, 20, 5.202), (12, math.inf, 4.622), (10, 10, 5.599)],
)
def test_the_range_is_that_of_the_tables(variants, freedom, expected) -> None:
    assert best_comparison.range_quantile(variants, freedom, 0.05) == pytest.approx(expected, rel=0.01)
    assert best_comparison.range_quantile(1, freedom, 0.05) == 0


def compared(logs):
    logs = np.asarray(logs)
    entries = [Entry(value=math.exp(row.mean()), starts=np.exp(row).tolist()) for row in logs]
    best = int(logs.mean(axis=1).argmax())
    return best, best_comparison.ratios(entries, best)


def test_two_variants_are_held_to_students_paired_test() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        logs = 0.01 * rng.standard_normal((2, 5)) + 0.3 * rng.standard_normal((1, 5))
        best, ratios = compared(logs)
        value = stats.ttest_rel(*logs).pvalue
        assert abs(value - 0.045) < 0.002 or ratios[1 - best].told_apart == (value < 0.045)


@pytest.mark.parametrize(
    ("variants", "starts", "slower", "least"), [(2, 5, 1.03, 0.85), (12, 5, 1.03, 0.8), (100, 3, 1.5, 1.0)]
)
def test_a_slower_variant_is_told_from_the_best_and_equal_ones_are_not(variants, starts, slower, least) -> None:
    """Starts differ by 1%, rounds by 5%; bounds leave room for the small number of tables."""
    rng, tables = np.random.default_rng(variants), 12 if variants > 12 else 80
    seen = false = 0
    for _ in range(tables):
        logs = 0.01 * rng.standard_normal((variants, starts)) + 0.05 * rng.standard_normal((1, starts))
        false += any(ratio.told_apart for ratio in compared(logs)[1])
        logs[0] -= math.log(slower)
        seen += compared(logs)[1][0].told_apart
    assert seen / tables >= least
    assert false / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5


def test_a_noisy_variant_is_not_called_with_the_certainty_of_its_steady_neighbours() -> None:
    rng = np.random.default_rng(8)
    deviations = np.array([[0.05], *[[0.001]] * 11])
    false = sum(
        any(ratio.told_apart for ratio in compared(deviations * rng.standard_normal((12, 5)))[1]) for _ in range(100)
    )
    assert false <= 9


def test_unequal_numbers_of_starts_are_compared_without_pairing() -> None:
    entries = [
        Entry(value=100, starts=[99, 100, 101, 100]),
        Entry(value=90, starts=[90, 90.5, 89.5]),
        Entry(value=99.5, starts=[99.5]),
    ]
    ratios = best_comparison.ratios(entries, 0)
    assert [ratio.told_apart for ratio in ratios] == [False, True, False]
    assert ratios[1].low < 0.9 < ratios[1].high


def test_starts_of_one_engine_are_one_figure() -> None:
    assert best_comparison.build_means([1, 10, 3, 12], 2) == [2, 11]
    assert best_comparison.build_means([1, 10, 3], 1) == [1, 10, 3]


def test_rates_of_a_damaged_record_that_are_nearly_zero_are_compared_without_an_error() -> None:
    """The ratio of 1e-320 and 1e6 is below the smallest float."""
    fast, still = (Entry(value=value, starts=(value,)) for value in (1e6, 1e-320))
    (_, ratio) = best_comparison.ratios([fast, still], 0)
    assert ratio.high < 1e-300
    assert best_comparison.band([fast, still], 0) == 1

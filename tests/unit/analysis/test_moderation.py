"""Variances of a few starts, moderated over the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from sweep.analysis import moderation


def drawn(rng, deviations, freedom):
    """Sample variances of normal values with these standard deviations."""
    return (np.asarray(deviations) ** 2 * rng.chisquare(freedom, len(deviations)) / freedom).tolist()


@given(st.floats(1e-4, 1e3))
def test_the_inverse_of_trigamma_inverts_it(value) -> None:
    assert special.polygamma(1, moderation._inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


def test_equal_variances_borrow_from_each_other_and_one_that_stands_out_does_not() -> None:
    rng = np.random.default_rng(3)
    sample = drawn(rng, [0.01] * 11, 4)
    sample.append(0.05**2)
    found = moderation.moderate(sample, [4] * 12)
    assert found.variances[:11].std() < np.std(sample[:11])
    assert found.variances[:11] == pytest.approx(1e-4, rel=1.5)
    assert (found.variances[11], found.freedom[11]) == (pytest.approx(0.05**2), 4)
    assert (found.freedom[:11] > 4).all()


def test_variances_as_different_as_chance_allows_have_no_weight_beyond_the_bound() -> None:
    sample = drawn(np.random.default_rng(5), [0.01] * 100, 2)
    found = moderation.moderate(sample, [2] * 100)
    assert found.freedom.max() <= 2 + moderation._MOST_PRIOR


def test_a_single_start_has_the_variance_of_the_table_and_two_mirrored_ones_their_own() -> None:
    found = moderation.moderate([0.0, 4.0], [0, 3])
    assert found.variances.tolist() == [4.0, 4.0]
    assert moderation.moderate([2.0, 2.0], [4, 4], 4).freedom.tolist() == [4, 4]
    assert moderation.moderate([0.0, 0.0], [4, 4]).variances.tolist() == [0, 0]

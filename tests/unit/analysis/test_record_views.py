"""Figures that tables read out of records."""

import pytest

from sweep.analysis import percentiles, record_views
from sweep.spec import slo


@pytest.mark.parametrize("name", slo.PERCENTILES)
def test_a_percentile_is_probably_higher_below_the_count_that_carries_it(name: str) -> None:
    """The formula that needs no scipy gives the count of the binomial bound."""
    fewest = percentiles.min_count(slo.PERCENTILES[name], 0)
    assert not record_views.probably_higher({"independent": {name: fewest}}, name)
    assert record_views.probably_higher({"independent": {name: fewest - 1}}, name)
    assert not record_views.probably_higher({}, name)

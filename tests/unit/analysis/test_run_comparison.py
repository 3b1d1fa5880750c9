"""Two measurements of the same variants: how often equal ones are told apart, and how often a slowdown is."""

import math

import numpy as np
import pytest

from sweep.analysis.best_comparison import Entry
from sweep.analysis.run_comparison import changes, factor_of
from sweep.analysis.start_spread import StartSpread

TABLES = 150


def entry(starts, **known):
    return Entry(value=float(np.exp(np.log(starts).mean())), starts=list(starts), **known)


def table(rng, rows, starts, cv, slowdown=0.0):
    """Pairs of equal variants, the first of which is slower by `slowdown`; their spreads differ by a factor of 2."""
    spreads = cv * np.exp(rng.normal(0, 0.7, rows))
    pairs = []
    for number, spread in enumerate(spreads):
        centre = math.log(1 - slowdown) if number == 0 else 0.0
        pairs.append((entry(np.exp(rng.normal(0, spread, starts))), entry(np.exp(rng.normal(centre, spread, starts)))))
    return pairs


@pytest.mark.parametrize(("rows", "starts", "limit"), [(1, 3, 0.09), (12, 3, 0.11), (12, 5, 0.09)])
def test_equal_measurements_are_told_apart_in_few_tables(rows: int, starts: int, limit: float) -> None:
    """5% are meant; of 150 tables, 2.5 standard deviations more are chance."""
    rng = np.random.default_rng(1)
    told = sum(any(c.slower or c.faster for c in changes(table(rng, rows, starts, 0.01))) for _ in range(TABLES))
    assert told / TABLES <= limit


def test_a_slowdown_of_ten_percent_is_called_and_one_of_three_often() -> None:
    rng = np.random.default_rng(2)
    called = {
        slowdown: sum(changes(table(rng, 6, 5, 0.01, slowdown))[0].slower for _ in range(60)) / 60
        for slowdown in (0.03, 0.1)
    }
    assert called[0.03] > 0.5
    assert called[0.1] > 0.95


def test_the_interval_holds_for_all_rows_together() -> None:
    assert factor_of(1, math.inf) == pytest.approx(2.005, abs=0.001)  # both sides of 4.5%
    assert factor_of(100, math.inf) == pytest.approx(3.62, abs=0.01)
    assert factor_of(12, 4) > factor_of(12, 40) > factor_of(12, math.inf)
    pairs = [(entry([100, 101, 99]), entry([97, 98, 96]))]
    alone, among = changes(pairs)[0], changes(pairs * 20)[0]
    assert alone.ratio == among.ratio == pytest.approx(97 / 100, rel=1e-3)
    assert alone.slower


@pytest.mark.parametrize(
    ("spread", "slowdown", "slower"),
    [
        (None, 0.06, False),
        (None, 0.08, True),
        (StartSpread(cv=0.002, freedom=30, source="the sentinel"), 0.01, True),
        (StartSpread(cv=0.05, freedom=30, source="the sentinel"), 0.1, False),
    ],
)
def test_single_starts_differ_only_beyond_what_starts_are_known_or_assumed_to_differ_by(
    spread, slowdown, slower
) -> None:
    pair = (entry([100.0], spread=spread), entry([100 * (1 - slowdown)], spread=spread))
    assert changes([pair])[0].slower is slower


def test_a_single_start_among_several_has_the_spread_of_the_table() -> None:
    several = (entry([100, 101, 99, 100.5]), entry([100.2, 99.1, 101.3, 100]))
    single = (entry([100.0]), entry([92.0]))
    told = changes([several, several, single])
    assert told[2].slower
    assert told[2].high - told[2].low > 1.5 * (told[0].high - told[0].low)
    assert changes([]) == []


def test_starts_that_agree_by_chance_prove_no_more_than_each_of_them_does() -> None:
    exact = entry([100.0] * 4), entry([98.0] * 4)
    told = changes([exact, (entry([100.0] * 4), entry([100.0] * 4))])
    assert told[0].slower
    assert (told[1].low, told[1].high) == (1, 1)
    known = [entry(item.starts, within_error=0.04) for item in exact]  # 2% of four starts
    change = changes([(known[0], known[1])])[0]
    assert not change.slower
    assert math.log(change.high / change.ratio) == pytest.approx(factor_of(1, 20) * 0.02 * math.sqrt(2), rel=1e-6)

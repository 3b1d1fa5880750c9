"""Keys of a search of the grid."""

from __future__ import annotations

import pytest

from sweep.config import variants
from sweep.config.schema import Config, LoadConfig, SearchConfig, SloConfig
from sweep.errors import ConfigError
from sweep.spec import GridSearch


def _config(search, slo=None, kind="curve"):
    return Config(search=SearchConfig(**search), slo=SloConfig(p99_ms=slo), load=LoadConfig(kind=kind), name="a")


def test_a_grid_is_no_search() -> None:
    assert variants.settings(_config({}), []).search is None


@pytest.mark.parametrize(
    ("values", "slo", "search"),
    [
        ({}, None, GridSearch(method="halving", objectives=("peak",))),
        ({}, 10.0, GridSearch(method="halving", objectives=("capacity",))),
        (
            {"objective": ["energy", "peak"], "budget_s": 9.0, "p99_ms": 3.0},
            None,
            GridSearch(method="halving", objectives=("energy", "peak"), budget_s=9.0, p99_ms=3.0),
        ),
    ],
)
def test_a_search_looks_for_what_it_is_given(values, slo, search) -> None:
    assert variants.settings(_config({"method": "halving", **values}, slo), []).search == search


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"method": "fast"}, "search.method=fast: give grid, halving, bayes"),
        ({"budget_s": 5.0}, "search.budget_s=5.0: search=grid measures every variant; add search=halving"),
        ({"method": "bayes", "budget_s": 0.0}, "search.budget_s=0: must be above 0"),
        ({"method": "bayes", "p99_ms": float("nan")}, "search.p99_ms=nan"),
        ({"method": "halving", "objective": "speed"}, "search.objective=speed: give peak, capacity"),
        ({"method": "halving", "objective": ["peak", "peak"]}, "each once"),
        ({"method": "halving", "objective": []}, "search.objective=: give peak"),
        ({"method": "halving", "objective": "capacity"}, "a capacity needs a limit and a curve, as in slo.p99_ms=10"),
    ],
)
def test_a_value_that_no_search_has_is_one_line(values, line) -> None:
    with pytest.raises(ConfigError, match=r"search\.") as raised:
        variants.settings(_config(values), [])

    assert line in str(raised.value)
    assert "\n" not in str(raised.value)

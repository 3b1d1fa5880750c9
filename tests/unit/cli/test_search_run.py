"""What a search refuses, and how its answer is worded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sweep.cli import search_run
from sweep.errors import ConfigError
from sweep.runner.search import Outcome, State


def test_a_network_beside_others_is_refused() -> None:
    variant = SimpleNamespace(load=SimpleNamespace(passes=1), session=SimpleNamespace(beside=("other",)))
    plan = SimpleNamespace(runnable=(SimpleNamespace(label="mlp b1", variant=variant),))

    with pytest.raises(ConfigError, match=r"mlp b1 runs beside other networks.*set search=grid"):
        search_run._refuse_rounds(plan)


def test_the_answer_says_what_was_tried_dropped_and_not_tried() -> None:
    states = {"a": State.MEASURED, "b": State.DROPPED, "c": State.UNTRIED, "d": State.PROBED}
    outcome = Outcome(
        best="a",
        front=("a",),
        confidence=0.934,
        states=states,
        reasons={"b": "failed: no kernel"},
        spent_s=12.4,
        ended="the budget is spent",
    )

    lines = search_run.outcome_lines(outcome, {"a": "fp16 b8", "b": "int8 b8", "c": "x", "d": "y"}, 13.0, "")

    assert lines[0].startswith(
        "search: 12 of 13 s for 4 variants: 1 measured, 1 only probed, 1 dropped after a probe, "
    )
    assert lines[0].endswith("1 not tried; it ended since the budget is spent")
    assert lines[1:] == [
        "search: fp16 b8 is within 2% of the grid's best at 93% confidence; search=grid measures the rest",
        "search: int8 b8: failed: no kernel",
    ]

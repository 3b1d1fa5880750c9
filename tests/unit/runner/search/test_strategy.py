"""A search of simulated grids whose best variant is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from sweep.runner.search import OBJECTIVES, Candidate, Goal, Observation, Search, State, replay
from sweep.runner.search.replay import Published
from sweep.spec import SEARCH_OBJECTIVES

PEAK = OBJECTIVES["peak"]
BUILD_S, PROBE_S, FULL_S = 5.0, 0.5, 2.0


def _grid(refused=(), seed=0):
    """Make a grid of 6 precisions, 4 batches, 3 streams and graphs; its best is fp16 b128 s4 graph, then its like."""
    speed = {"fp32": 1.0, "tf32": 1.9, "fp16": 3.0, "bf16": 2.8, "int8": 2.0, "fp8": 2.1}
    grid = {}
    for precision, factor in speed.items():
        for batch in (1, 8, 32, 128):
            for streams in (1, 2, 4):
                for graph in (False, True):
                    ips = 1000 * factor * batch / (batch + 6) * (2 - 1 / streams) * (1.04 if graph else 1.0)
                    key = f"{precision} b{batch} s{streams}{' graph' if graph else ''}"
                    candidate = Candidate(
                        key=key,
                        engine=f"{precision} {batch}",
                        label=key,
                        axes={"precision": precision, "batch": batch, "streams": streams, "cuda_graph": graph},
                    )
                    reason = "invalid: SQNR of 3 dB" if precision in refused else None
                    shown = Observation(
                        key=key, full=True, scores=(math.log(ips),), error=0.003, cost_s=FULL_S, reason=reason
                    )
                    grid[key] = Published(candidate=candidate, full=shown, engine_s=BUILD_S, probe_s=PROBE_S)
    return grid


def _search(grid, method="halving", budget_s=None, seed=0, objectives=(PEAK,)):
    goal = Goal(method=method, objectives=objectives, budget_s=budget_s, seed=seed, full_s=FULL_S)
    return Search([item.candidate for item in grid.values()], goal)


def _steps(search, grid, seed=0):
    rng, steps = np.random.default_rng(seed), []
    replay.run(search, grid, lambda item, full: rng.normal(0, 0.004), steps.append)
    return steps


WHOLE_S = 24 * BUILD_S + 144 * FULL_S


@pytest.mark.parametrize(("method", "share"), [("halving", 1 / 3), ("bayes", 1 / 5)])
def test_the_best_of_a_known_grid_is_found_for_a_third_of_its_time(method, share) -> None:
    grid = _grid()
    search = _search(grid, method, budget_s=WHOLE_S * share)

    _steps(search, grid)

    outcome = search.outcome()
    assert outcome.best in {"fp16 b128 s4 graph", "fp16 b128 s4"}
    assert math.exp(grid[outcome.best].full.scores[0] - grid["fp16 b128 s4 graph"].full.scores[0]) >= 0.96
    assert outcome.spent_s <= WHOLE_S * share
    assert sum(outcome.count(state) for state in State) == len(grid)


def test_a_search_without_a_budget_ends_when_it_is_sure() -> None:
    grid = _grid()
    search = _search(grid)

    _steps(search, grid)

    outcome = search.outcome()
    assert outcome.best == "fp16 b128 s4 graph"
    assert outcome.confidence > 0.9
    assert outcome.spent_s < WHOLE_S / 3
    assert outcome.ended.startswith("nothing left is more than 2% better")


def test_a_variant_that_cannot_win_is_not_the_answer() -> None:
    grid = _grid(refused=("fp16",))
    search = _search(grid)

    _steps(search, grid)

    outcome = search.outcome()
    assert outcome.best == "bf16 b128 s4 graph"
    assert "invalid: SQNR of 3 dB" in outcome.reasons.values()


@pytest.mark.parametrize("budget_s", [0.1, 8.0, 20.0])
def test_a_small_budget_is_kept_but_for_the_step_that_gives_an_answer(budget_s) -> None:
    grid = _grid()
    search = _search(grid, budget_s=budget_s)

    _steps(search, grid)

    assert search.spent_s <= max(budget_s, 0.0)
    assert search.ended == "the budget is spent"


def test_the_same_observations_give_the_same_decisions() -> None:
    grid = _grid()
    steps = _steps(_search(grid), grid, seed=4)

    assert _steps(_search(grid), grid, seed=4) == steps
    assert len(steps) > 3


def test_an_engine_that_does_not_build_is_tried_once() -> None:
    grid = _grid()
    for key, item in grid.items():
        if item.candidate.engine == "fp16 128":
            broken = dataclasses.replace(item.full, scores=(None,), reason="failed: no kernel")
            grid[key] = dataclasses.replace(item, full=broken)
    search = _search(grid)

    steps = _steps(search, grid)

    assert sum("fp16 b128" in key for step in steps for key in step.keys) <= 6
    assert search.outcome().best == "bf16 b128 s4 graph"
    assert search.outcome().states["fp16 b128 s1"] is State.DROPPED


def test_several_objectives_give_a_front() -> None:
    grid = _grid()
    for key, item in grid.items():
        batch = item.candidate.axes["batch"]
        scores = (item.full.scores[0], -math.log(10 + batch * item.candidate.axes["streams"]))
        grid[key] = dataclasses.replace(item, full=dataclasses.replace(item.full, scores=scores))
    search = _search(grid, budget_s=WHOLE_S / 3, objectives=(PEAK, OBJECTIVES["memory"]))

    _steps(search, grid)

    outcome = search.outcome()
    assert outcome.confidence is None
    assert len(outcome.front) >= 2
    for key in outcome.front:
        a = grid[key].full.scores
        assert not any(
            all(y > x + 0.02 for x, y in zip(a, grid[other].full.scores, strict=True)) for other in outcome.front
        )


def test_what_may_be_requested_is_what_there_is() -> None:
    assert tuple(OBJECTIVES) == SEARCH_OBJECTIVES

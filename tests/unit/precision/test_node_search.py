"""The search for nodes to keep, over judges that know the answer: which set it finds, how soon, and what it says."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import onnx
import pytest
from authored_graphs import Author
from onnx import TensorProto

from sweep.precision import Judgement, LayerError, SearchResult, exact_patterns, fewest_nodes, ranked_nodes
from sweep.precision.kept_nodes import matching_nodes

if TYPE_CHECKING:
    from pathlib import Path

RANKED = [f"n{number}" for number in range(12)]


def searched(needed: set[str], most: int = 64, refused_from: int = 99) -> SearchResult:
    """Search where exactly the sets that hold ``needed`` are good, and ``refused_from`` nodes leave nothing."""

    def judge(nodes: tuple[str, ...]) -> Judgement:
        assert list(nodes) == [name for name in RANKED if name in nodes], "in the order of the rank"
        if len(nodes) >= refused_from:
            return Judgement(reached=False, refused=True)
        return Judgement(reached=needed <= set(nodes), nearness=(len(needed & set(nodes)),), details=nodes)

    return fewest_nodes(lambda: RANKED, judge, most)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_exactly_the_nodes_that_are_needed_are_kept_wherever_they_rank(size: int) -> None:
    for needed in combinations(RANKED[:8], size):
        found = searched(set(needed))
        assert (found.nodes, found.last.reached, found.exhausted) == (needed, True, False)
        assert found.first.details == ()
        assert found.evaluations <= 1 + 4 + 2 + 4 * size, "itself, the bisection, and halves of a half around each"


def test_a_recipe_that_does_by_itself_costs_one_evaluation_and_no_ranking() -> None:
    found = fewest_nodes(lambda: pytest.fail("ranked"), lambda nodes: Judgement(reached=True, details=nodes), 1)
    assert (found.nodes, found.evaluations, found.first) == ((), 1, found.last)


@pytest.mark.parametrize("needed", [{"n11"}, {"n2", "n11"}])
def test_a_node_that_matters_most_may_rank_last(needed: set[str]) -> None:
    """Every prefix short of all falls short, and all is fp32: sets that are no prefix are tried."""
    found = searched(needed, refused_from=12)
    assert (set(found.nodes), found.last.reached, found.exhausted) == (needed, True, False)


@pytest.mark.parametrize("refused_from", [99, 12, 5])
def test_a_gate_that_no_set_reaches_gives_the_nearest_that_is_no_fp32(refused_from: int) -> None:
    found = searched({"n1", "n2", "elsewhere"}, refused_from=refused_from)
    assert not found.last.reached
    assert not found.exhausted
    assert {"n1", "n2"} <= set(found.nodes)
    assert len(found.nodes) < refused_from


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_the_limit_of_evaluations_holds_and_is_told(most: int) -> None:
    found = searched({"n0", "n7"}, most)
    assert (found.evaluations, found.last.reached, found.exhausted) == (most, most > 3, True)
    if most > 3:
        assert {"n0", "n7"} < set(found.nodes)


def test_without_a_candidate_the_recipe_stays_as_it_is() -> None:
    found = fewest_nodes(list, lambda nodes: Judgement(reached=False, details=nodes), 8)
    assert (found.nodes, found.evaluations, found.last.reached, found.exhausted) == ((), 1, False, False)


def test_nodes_are_ranked_by_the_error_they_cause_and_silent_ones_only_count_for_an_engine() -> None:
    ratios = {"silent": 0.0, "small": 1e-6, "unknown": math.nan, "overflow": math.inf, "large": 0.1}
    errors = [
        LayerError(
            node=name, op="Mul", tensor=name, input_noise_ratio=0.0, output_noise_ratio=1.0, local_noise_ratio=ratio
        )
        for name, ratio in ratios.items()
    ]
    assert ranked_nodes(errors, exact=False) == ["overflow", "large", "small", "unknown"]
    assert ranked_nodes(errors, exact=True) == ["overflow", "large", "small", "unknown", "silent"]


def test_an_entry_matches_its_node_alone_and_refers_to_no_other_key(tmp_path: Path) -> None:
    g = Author()
    x = "x"
    names = ["Relu", "a*", "ab", "a[b]", "${name}", "?", "plain/Relu_1"]
    for _ in names:
        x = g.op("Relu", x)
    for node, name in zip(g.nodes, names, strict=True):
        node.name = name
    model = g.model(x, {"x": (TensorProto.FLOAT, [2])}, [2])
    onnx.save(model, tmp_path / "net.onnx")
    patterns = exact_patterns(names, tmp_path / "net.onnx")
    assert [matching_nodes(model, [pattern], "net") for pattern in patterns] == [(name,) for name in names]
    assert patterns[-1] == "plain/Relu_1"
    assert not any("${" in pattern for pattern in patterns)

"""Search for the fewest nodes that have to stay in float32 for a recipe to reach an accuracy limit.

The nodes are ranked by the error that they cause (``layer_error``). A bisection finds the shortest prefix of the
ranking that reaches the limit, or leaves nothing in the recipe's type, which is fp32. Then nodes are dropped from it,
halves first and single nodes last, as long as the limit is reached. Every set of nodes is converted, run and judged as
a whole, since errors neither add up nor stay where they arise. The accuracy is taken to grow with the set; where it
does not, the result reaches the limit all the same, and fewer nodes may do.
"""

from __future__ import annotations

import glob
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.precision import onnx_graph
from sweep.system import nested_graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from sweep.precision.layer_error import LayerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Hold what became of one set of kept nodes.

    Attributes:
        reached: its outputs keep every gate.
        nearness: larger tuples are nearer to the gates; empty where nothing could be run or compared.
        refused: the recipe leaves nothing in its type with so many nodes in float32: the set is as good as fp32.
        details: what the caller wants to know of the set that is chosen.
    """

    reached: bool
    nearness: tuple[float, ...] = ()
    refused: bool = False
    details: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Hold the outcome of a search.

    Attributes:
        nodes: names of the nodes to keep; of the nearest set where none reaches the gates.
        first: judgement of the recipe as it is.
        last: judgement of `nodes`.
        evaluations: sets that were judged.
        exhausted: the search stopped at its limit of evaluations, so that a smaller set may do.
    """

    nodes: tuple[str, ...]
    first: Judgement
    last: Judgement
    evaluations: int
    exhausted: bool


def ranked_nodes(errors: Sequence[LayerError], *, exact: bool) -> list[str]:
    """Rank the nodes that may have to stay in float32, the largest error by itself first.

    Args:
        errors: of every node, in graph order.
        exact: include nodes that cause no error in the emulation, after all others: an engine may err elsewhere.
    """
    unknown = [item for item in errors if math.isnan(item.local_noise_ratio)]
    causing = [item for item in errors if item.local_noise_ratio > 0]
    causing.sort(key=lambda item: item.local_noise_ratio, reverse=True)
    silent = [item for item in errors if item.local_noise_ratio == 0] if exact else []
    return list(dict.fromkeys(item.node for item in (*causing, *unknown, *silent)))


def fewest_nodes(
    rank: Callable[[], Sequence[str]], judge: Callable[[tuple[str, ...]], Judgement], most: int
) -> SearchResult:
    """Find the fewest nodes to keep.

    Args:
        rank: returns the candidates, the most likely first; called only where the recipe by itself does not do.
        judge: judges a set of candidates, given in the order of their rank.
        most: limit of the calls of `judge`, 1 or more.
    """
    return _Search(judge, most).run(rank)


class _Search:
    def __init__(self, judge: Callable[[tuple[str, ...]], Judgement], most: int) -> None:
        self._judge = judge
        self._most = most
        self._judged: dict[tuple[str, ...], Judgement] = {}

    def run(self, rank: Callable[[], Sequence[str]]) -> SearchResult:
        first = self._evaluate(())
        if first.reached:
            return self._result((), first, exhausted=False)
        ranked = tuple(rank())
        size = self._shortest_prefix(ranked)
        if size is not None and ranked[:size] not in self._judged and not self._exhausted:
            self._evaluate(ranked[:size])
        exhausted = size is None or ranked[:size] not in self._judged
        if size is not None and self._does(ranked[:size]):
            nodes, exhausted = self._without_spare(ranked[:size])
            if self._judged[nodes].reached:
                return self._result(nodes, first, exhausted=exhausted)
        nearest = max(self._judged, key=lambda nodes: (self._judged[nodes].nearness, -len(nodes)))
        return self._result(nearest, first, exhausted=exhausted)

    def _shortest_prefix(self, ranked: tuple[str, ...]) -> int | None:
        """Return the length of the shortest prefix that does not fall short; None where the evaluations ran out first.

        The prefix of that length reaches the gates, or was refused because it leaves nothing in the recipe's type, or
        is all of `ranked` and not judged.
        """
        short, enough = 0, len(ranked)
        while enough - short > 1:
            if self._exhausted:
                return enough if self._does(ranked[:enough]) else None
            middle = (short + enough) // 2
            self._evaluate(ranked[:middle])
            if self._does(ranked[:middle]):
                enough = middle
            else:
                short = middle
        return enough

    def _without_spare(self, nodes: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        """Drop nodes that are not needed, halves first and single nodes last, those with the least error first.

        Returns:
            What is left, and whether the evaluations ran out.
        """
        size = max(len(nodes) // 2, 1)
        while size:
            end = len(nodes)
            while end > 0:
                start = max(end - size, 0)
                fewer = nodes[:start] + nodes[end:]
                if fewer and fewer not in self._judged:  # those that were judged fall short
                    if self._exhausted:
                        return nodes, True
                    if self._evaluate(fewer).reached:
                        nodes = fewer
                end = start
            size //= 2
        return nodes, False

    @property
    def _exhausted(self) -> bool:
        return len(self._judged) >= self._most

    def _does(self, nodes: tuple[str, ...]) -> bool:
        """Tell whether a set was seen to reach the gates, or to be as good as fp32."""
        return nodes in self._judged and (self._judged[nodes].reached or self._judged[nodes].refused)

    def _evaluate(self, nodes: tuple[str, ...]) -> Judgement:
        self._judged[nodes] = self._judge(nodes)
        return self._judged[nodes]

    def _result(self, nodes: tuple[str, ...], first: Judgement, *, exhausted: bool) -> SearchResult:
        return SearchResult(
            nodes=nodes,
            first=first,
            last=self._judged[nodes],
            evaluations=len(self._judged),
            exhausted=exhausted,
        )


def exact_patterns(names: Iterable[str], source: Path) -> tuple[str, ...]:
    """Return entries for ``Precision.keep`` that match nodes by name, and nothing else.

    Args:
        names: of the nodes.
        source: the fp32 ONNX file. An entry that equals one of its op types would keep all nodes of that type.
    """
    model = onnx_graph.load(source, weights=False)
    types = {node.op_type for graph in nested_graphs(model.graph) for node in graph.node}
    return tuple(_exact_pattern(name, types) for name in names)


def _exact_pattern(name: str, types: Collection[str]) -> str:
    if name in types:
        return f"[{name[0]}]{name[1:]}"
    return glob.escape(name).replace("${", "[$]{")  # in a YAML, `${` would begin a reference to another key

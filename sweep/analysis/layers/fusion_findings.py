"""Find groups of nodes that one kernel can compute, and that run as several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.layers import patterns
from sweep.analysis.layers.costs import MOVES
from sweep.analysis.layers.rule import GUIDE, Draft, Rule, count, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sweep.analysis.layers.rule import Seen

_CATALOG = f"{GUIDE}, Layer Fusion Catalog"
_LEAST = 2
_OWN_PASS = "a pass of your own (`graph=PACKAGE.MODULE:FUNCTION`)"  # noqa: S105 - no password


def _grouped(seen: Seen, groups: Iterable[Sequence[str]], what: str, plural: str) -> Iterator[Draft]:
    """Draft one finding of all groups that several layers compute; what fused with a product costs nothing."""
    places: list[int] = []
    nodes: list[str] = []
    number, saving = 0, 0.0
    for group in groups:
        apart = seen.without_products(seen.timed(group))
        if len(apart) < _LEAST:
            continue
        number += 1
        places += apart
        nodes += group
        saving += seen.time_us(apart) - max(seen.time_us([place]) for place in apart)
    if number:
        places = list(dict.fromkeys(places))
        yield Draft(
            title=f"{count(number, what, plural)} in {len(places)} layers",
            places=places,
            nodes=list(dict.fromkeys(nodes)),
            cost_us=seen.time_us(places),
            saving_us=saving,
            explanation=f"One kernel can compute each group; the first is {some(nodes, 4)}.",
        )


def _norms(seen: Seen) -> Iterator[Draft]:
    yield from _grouped(seen, patterns.layer_norms(seen.graph), "norm in primitives", "norms in primitives")


def _gelus(seen: Seen) -> Iterator[Draft]:
    yield from _grouped(seen, patterns.gelus(seen.graph), "GELU in primitives", "GELUs in primitives")


def _attentions(seen: Seen) -> Iterator[Draft]:
    places: list[int] = []
    nodes: list[str] = []
    number, saving = 0, 0.0
    for group, scores, softmax, context in patterns.attentions(seen.graph):
        ends = [seen.timed([name]) for name in (scores, softmax, context)]
        owners = [set(seen.graph.owners.get(name, [])) for name in (scores, softmax, context)]
        if not all(ends) or owners[0] & owners[1] & owners[2]:
            continue
        together = seen.timed(group)
        number += 1
        places += together
        nodes += group
        saving += seen.time_us(seen.without_products(together))
    if number:
        places = list(dict.fromkeys(places))
        yield Draft(
            title=f"{count(number, 'attention')} in {len(places)} layers",
            places=places,
            nodes=list(dict.fromkeys(nodes)),
            cost_us=seen.time_us(places),
            saving_us=saving,
            explanation="Scores are written to memory, read by the softmax and read again by the second product; the "
            f"first is {some(nodes, 4)}.",
        )


def _convolutions(seen: Seen) -> Iterator[Draft]:
    places: list[int] = []
    nodes: list[str] = []
    for name, tail in patterns.convolution_tails(seen.graph):
        own = set(seen.timed([name]))
        apart = [place for place in seen.timed(tail) if place not in own]
        apart = [place for place in apart if set(seen.rows[place].nodes) <= {name, *tail}]
        if own and apart:
            places += apart
            nodes += [name, *tail]
    if places:
        places = list(dict.fromkeys(places))
        cost = seen.time_us(places)
        yield Draft(
            title=f"{count(len(places), 'layer')} to normalise or activate what a convolution wrote",
            places=places,
            nodes=nodes,
            cost_us=cost,
            saving_us=cost,
            explanation=f"A convolution can do it while it writes its result: {some(nodes)}.",
        )


def _chains(seen: Seen) -> Iterator[Draft]:
    graph = seen.graph
    taken = {name for group in patterns.layer_norms(graph) for name in group}
    taken |= {name for group in patterns.gelus(graph) for name in group}
    taken |= {name for group, *_ in patterns.attentions(graph) for name in group}
    taken |= {name for _, tail in patterns.convolution_tails(graph) for name in tail}
    chains = [
        chain
        for chain in patterns.elementwise_chains(graph, taken)
        if any(set(seen.owned_ops(place)) - MOVES for place in seen.timed(chain))
    ]
    yield from _grouped(seen, chains, "chain of elementwise nodes", "chains of elementwise nodes")


FUSION_RULES = (
    Rule(
        kind="unfused_norm",
        title="Layer norms in primitives",
        meaning="A layer norm or RMS norm that the graph writes out (ReduceMean, Sub, Pow, Sqrt, Div, Mul, Add) runs "
        "as several layers, each a pass over memory.",
        advice="Export with opset 17 or later, which has LayerNormalization (RMSNormalization from 23), or write it "
        f"by {_OWN_PASS}.",
        source=_CATALOG,
        detect=_norms,
    ),
    Rule(
        kind="unfused_attention",
        title="Attention that did not fuse",
        meaning="The two products of an attention and the softmax between them run as several layers, which write the "
        "scores to memory.",
        advice="Scale the query or key before the first product, keep all of it in one type (`precision.keep`), and "
        f"leave nothing but scale and mask between; or write Attention (opset 23) by {_OWN_PASS}.",
        source=f"{GUIDE}, Fused Attention",
        detect=_attentions,
    ),
    Rule(
        kind="unfused_gelu",
        title="GELUs in primitives",
        meaning="A GELU that the graph writes out (Div, Erf, Add, Mul, or by Tanh) runs as several layers.",
        advice="`graph=simplify` writes Gelu where it recognises it; or export with opset 20, which has Gelu.",
        source=f"{_CATALOG} (GELU)",
        detect=_gelus,
    ),
    Rule(
        kind="unfused_convolution",
        title="BatchNormalization and activations beside their convolution",
        meaning="A BatchNormalization or activation that reads a convolution alone runs as a layer of its own.",
        advice="`graph=simplify` folds BatchNormalization into the weights; an activation fuses where it follows the "
        "convolution directly and in one type.",
        source=f"{_CATALOG} (convolution and scale, convolution and activation)",
        detect=_convolutions,
    ),
    Rule(
        kind="unfused_chain",
        title="Chains of elementwise nodes in several layers",
        meaning="Elementwise nodes that follow one another run as several layers, each a pass over memory.",
        advice="Remove what stands between them (casts by `precision.keep`, reshapes by `graph=simplify`); on "
        "onnxruntime, write one operator for them by " + _OWN_PASS + ".",
        source=f"{_CATALOG} (pointwise fusion)",
        detect=_chains,
    ),
)

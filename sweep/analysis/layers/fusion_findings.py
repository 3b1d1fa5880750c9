"""Find groups of nodes that one kernel can compute, and that run as several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.layers import patterns
from sweep.analysis.layers.costs import MOVES, QUANTISERS
from sweep.analysis.layers.rule import GUIDE, Draft, Rule, count, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sweep.analysis.layers.rule import Seen

_CATALOG = f"{GUIDE}, Layer Fusion Catalog"
_LEAST = 2
_CONVERSIONS = QUANTISERS | {"Cast"}
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


def _epilogues(seen: Seen) -> Iterator[Draft]:
    graph = seen.graph
    attentions = {name for group, *_ in patterns.attentions(graph) for name in group}
    tails = {name: tail for name, tail in patterns.epilogues(graph) if name not in attentions}
    following = {name for tail in tails.values() for name in tail}
    places: list[int] = []
    nodes: list[str] = []
    for name, tail in tails.items():
        owners = graph.owners.get(name, [])
        # The library names the product at its epilogue too, where it adds the bias or restores the scale there.
        apart = [place for place in seen.timed([name, *tail]) if place not in owners]
        apart = [place for place in apart if _is_epilogue(seen, place, following)]
        if apart and any(seen.rows[place].time_us for place in owners):
            places += apart
            nodes += [name, *tail]
    if places:
        places = sorted(set(places))
        cost = seen.time_us(places)
        yield Draft(
            title=f"{count(len(places), 'layer')} to finish what a convolution or product wrote",
            places=places,
            nodes=list(dict.fromkeys(nodes)),
            cost_us=cost,
            saving_us=cost,
            explanation="A convolution or product can add, activate and quantise while it writes its result: "
            f"{some([seen.rows[place].name for place in places])}.",
        )


def _is_epilogue(seen: Seen, place: int, following: set[str]) -> bool:
    """Return whether all that counts to a layer follows products, and none of it is a product."""
    graph = seen.graph
    owned = [name for name in seen.rows[place].nodes if place in graph.owners.get(name, [])]
    others = [name for name in owned if name not in following and graph.op(name) not in _CONVERSIONS]
    return not others and any(name in following for name in owned)


def _chains(seen: Seen) -> Iterator[Draft]:
    graph = seen.graph
    taken = {name for group in patterns.layer_norms(graph) for name in group}
    taken |= {name for group in patterns.gelus(graph) for name in group}
    taken |= {name for group, *_ in patterns.attentions(graph) for name in group}
    taken |= {name for _, tail in patterns.epilogues(graph) for name in tail}
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
        "leave nothing but scale and mask between, the softmax one node; or write Attention (opset 23) by "
        f"{_OWN_PASS}.",
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
        kind="unfused_epilogue",
        title="Bias, activation or quantisation beside its convolution or product",
        meaning="A bias, BatchNormalization, sum, activation or quantisation that alone follows a convolution or "
        "product runs as a layer of its own: the result is written, read and written again. With int8 and fp8 it is "
        "the usual reason for a variant that is slower than fp16.",
        advice="`graph=simplify` folds BatchNormalization into the weights; keep what follows a product in its type "
        "(`precision.rest=fp16`), and leave products of which none fuses out of `precision.quantize_ops`.",
        source=f"{_CATALOG} (convolution and activation, Q/DQ fusion)",
        detect=_epilogues,
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

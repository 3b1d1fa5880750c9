"""Find time that goes into types: quantisation that fused nothing, and nodes in a wider type than the variant wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.layers.costs import COMPUTES, MOVES, QUANTISERS
from sweep.analysis.layers.graph import is_product
from sweep.analysis.layers.rule import GUIDE, Draft, Rule, count, removable, some
from sweep.analysis.layers.types import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweep.analysis.layers.rule import Seen

_NARROW = frozenset({"fp16", "bf16", "fp8", "int8"})
_PLACEMENT = f"{GUIDE}, Q/DQ Layer-Placement Recommendations"


def _requantised_pairs(seen: Seen) -> list[tuple[str, str]]:
    graph = seen.graph
    return [
        (name, reader)
        for name in graph.nodes
        if graph.op(name) == "DequantizeLinear" and not graph.is_constant(graph.nodes[name]["inputs"][0])
        for reader in graph.after(name)
        if graph.op(reader) == "QuantizeLinear"
    ]


def _requantised(seen: Seen) -> Iterator[Draft]:
    groups: list[tuple[list[int], list[str]]] = []
    for first, second in _requantised_pairs(seen):
        places = [place for place in seen.timed([first, second]) if set(seen.owned_ops(place)) <= MOVES | QUANTISERS]
        if places:
            groups.append((places, [first, second]))
    title = f"{count(len(groups), 'quantisation')} of what was just dequantised"
    yield from removable(seen, groups, title, "Nothing is computed between, so that one scale for both needs neither")


def _alone(seen: Seen) -> Iterator[Draft]:
    again = {name for pair in _requantised_pairs(seen) for name in pair}
    unused = {place for place, _ in _high_products(seen)}
    feeding = {node for place in unused for name in seen.rows[place].nodes for node in _dequantisers(seen, name)}
    places = [
        row.index
        for row in seen.rows
        if row.category == "quantisation" and row.time_us and not set(row.nodes) & (again | feeding)
    ]
    if not places:
        return
    places.sort(key=lambda place: -(seen.rows[place].time_us or 0.0))
    cost = seen.time_us(places)
    yield Draft(
        title=f"{count(len(places), 'layer')} that only quantise or dequantise",
        places=places,
        nodes=[name for place in places for name in seen.rows[place].nodes],
        cost_us=cost,
        saving_us=cost,
        explanation=f"They fused with no layer that computes: {some([seen.rows[place].name for place in places])}.",
    )


def _dequantisers(seen: Seen, name: str) -> list[str]:
    """Return the nodes that dequantise the inputs of a node, with the quantising ones before them.

    None of a node whose data are not quantised: weights alone may be, to take less memory.
    """
    graph = seen.graph
    if name not in graph.nodes or not any(graph.op(node) == "DequantizeLinear" for node in graph.before(name, 0)):
        return []
    first = [node for node in graph.before(name) if graph.op(node) == "DequantizeLinear"]
    return [*first, *(node for one in first for node in graph.before(one, 0) if graph.op(node) == "QuantizeLinear")]


def _high_products(seen: Seen) -> list[tuple[int, str]]:
    """Return the products that take a dequantised input and compute in a wider type, by layer and node."""
    graph = seen.graph
    return [
        (place, name)
        for name in graph.nodes
        if is_product(graph.op(name)) and graph.op(name) != "Attention" and _dequantisers(seen, name)
        for place in graph.owners.get(name, [])
        if seen.rows[place].time_us and seen.rows[place].dtype in {"fp32", "tf32", "fp16", "bf16"}
    ]


def _unused(seen: Seen) -> Iterator[Draft]:
    high = _high_products(seen)
    if not high:
        return
    places = sorted({place for place, _ in high}, key=lambda place: -(seen.rows[place].time_us or 0.0))
    names = [name for _, name in high]
    quantisers = [node for name in names for node in _dequantisers(seen, name)]
    beside = [place for place in seen.timed(quantisers) if seen.rows[place].category == "quantisation"]
    kinds = sorted({seen.rows[place].dtype or "" for place in places})
    cost = seen.time_us([*places, *beside])
    savings = [_narrower_us(seen, place, "int8") for place in places]
    saving = sum(value or 0.0 for value in savings) + seen.time_us(beside) if any(savings) or beside else None
    yield Draft(
        title=f"{count(len(names), 'product')} of quantised inputs in {' and '.join(kinds)}",
        places=[*places, *beside],
        nodes=list(dict.fromkeys([*names, *quantisers])),
        cost_us=cost,
        saving_us=saving,
        explanation=f"Their inputs are dequantised before {some(names)}, so that quantising costs time and saves none.",
    )


def _wide(seen: Seen) -> Iterator[Draft]:
    if not _asks_for_less(seen):
        return
    places = [
        row.index
        for row in seen.rows
        if row.dtype == "fp32"
        and row.time_us
        and row.category not in {"data movement", "quantisation", "other"}
        and seen.owned_ops(row.index)
    ]
    high = {place for place, _ in _high_products(seen)}
    places = sorted(set(places) - high, key=lambda place: -(seen.rows[place].time_us or 0.0))
    if not places:
        return
    names = [name for place in places for name in seen.rows[place].nodes]
    savings = [_narrower_us(seen, place, "fp16") for place in places]
    yield Draft(
        title=f"{count(len(places), 'layer')} in fp32",
        places=places,
        nodes=names,
        cost_us=seen.time_us(places),
        saving_us=sum(value or 0.0 for value in savings) if any(savings) else None,
        explanation=f"The variant asks for {seen.profile['precision']}; longest: "
        f"{some([seen.rows[place].name for place in places])}.",
    )


def _asks_for_less(seen: Seen) -> bool:
    """Return whether the precision asks for a narrower type than fp32: by its name, else by what the graph has."""
    name = seen.profile["precision"]
    if name.startswith(("fp32", "tf32")):
        return False
    wanted = _NARROW & set(COMPUTES)
    return any(kind in name for kind in wanted) or any(
        (seen.graph.dtype(tensor) or "").split("_")[0] in wanted for tensor in seen.profile["tensors"]
    )


def _narrower_us(seen: Seen, place: int, dtype: str) -> float | None:
    """Return the time that a layer would save in a narrower type: by peaks for one bound by compute; else by bytes."""
    row, peaks = seen.rows[place], seen.peaks
    if row.time_us is None or row.dtype is None:
        return None
    if row.bound == "compute" and peaks is not None and row.category in PRODUCTS:
        now, then = peaks.of_type(row.dtype), peaks.of_type(dtype)
        return row.time_us * (1 - now / then) if now and then and then > now else None
    if row.bound == "memory" and _widths(row.dtype, dtype):
        return row.time_us / 2
    return None


def _widths(wide: str, narrow: str) -> bool:
    order: Sequence[str] = COMPUTES
    return order.index(narrow) > order.index(wide)


PRECISION_RULES = (
    Rule(
        kind="requantised",
        title="A quantise right after a dequantise",
        meaning="A tensor is dequantised and quantised again with nothing between, and this runs as layers of its own.",
        advice="Give both sides one scale: quantise the outputs of the two neighbours alike "
        "(`precision.quantize_ops`), or mend the Q/DQ nodes of the file.",
        source=_PLACEMENT,
        detect=_requantised,
    ),
    Rule(
        kind="quantised_in_vain",
        title="Products of quantised inputs that compute in a wider type",
        meaning="A convolution or matrix product takes a dequantised input, but its layer reads and computes fp16, "
        "bf16 or fp32: no kernel of the narrow type fused with the Q/DQ nodes.",
        advice="Quantise its weights too, symmetrically; or leave the operator out of `precision.quantize_ops`, or the "
        "node to `precision.keep`.",
        source=_PLACEMENT,
        detect=_unused,
    ),
    Rule(
        kind="quantisers_alone",
        title="Layers that only quantise or dequantise",
        meaning="Q/DQ nodes that fused with no layer that computes: each is a pass over memory.",
        advice="Quantise fewer kinds of operators (`precision.quantize_ops`), so that islands of few nodes stay in "
        "`precision.rest`; the first quantisation of an input cannot be saved.",
        source=_PLACEMENT,
        detect=_alone,
    ),
    Rule(
        kind="stayed_fp32",
        title="Nodes that stayed in fp32 although the variant asks for less",
        meaning="Layers compute in fp32: the guard or `precision.keep` kept their nodes, the recipe does not reach "
        "them, or the device has no narrower kernel.",
        advice="`precision.rest=fp16` for what int8 and fp8 leave in fp32; `precision.search` keeps the fewest nodes "
        "that the accuracy needs; `precision.guard=false` shows what the guard costs.",
        source=f"{GUIDE}, Strongly Typed Networks",
        detect=_wide,
    ),
)

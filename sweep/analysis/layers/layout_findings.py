"""Find time that goes into the layout of tensors: reformats, transposes, casts, and dimensions out of alignment."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sweep.analysis.layers.costs import MOVES
from sweep.analysis.layers.patterns import transpose_pairs
from sweep.analysis.layers.rule import GUIDE, Draft, Rule, count, removable, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.analysis.layers.rule import Seen
    from sweep.storage import LayerTensor

ALIGNMENT = {"tf32": 4, "fp16": 8, "bf16": 8, "fp8": 16, "int8": 32}
"""Elements of which a dimension of a product should be a multiple, by type."""
SPARSE_ALIGNMENT = 16
_SPARSE = ("fp16", "bf16")
_ADDED = {"reformat": "to reformat", "copy": "to copy", "cast": "to cast"}
_HOLDS = {("fp32", "fp16"), ("fp32", "bf16"), ("fp64", "fp32"), ("fp64", "fp16"), ("fp64", "bf16")}


def _added_layers(seen: Seen) -> Iterator[Draft]:
    places: dict[str, list[int]] = defaultdict(list)
    for row in seen.rows:
        if row.added is not None and row.time_us:
            places[row.added].append(row.index)
    for kind, group in places.items():
        group.sort(key=lambda place: -(seen.rows[place].time_us or 0.0))
        cost, layer = seen.time_us(group), seen.profile["layers"][group[0]]
        read, write = (tensors[0] if tensors else None for tensors in (layer["inputs"], layer["outputs"]))
        change = "" if read is None or write is None else f", from {_described(read)} to {_described(write)}"
        yield Draft(
            title=f"{count(len(group), 'layer')} only {_ADDED.get(kind, 'to prepare')} tensors",
            places=group,
            nodes=(),
            cost_us=cost,
            saving_us=cost,
            explanation=f"No node asks for {some([seen.rows[place].name for place in group])}. "
            f"The longest takes {seen.rows[group[0]].time_us:,.1f} us{change}.",
        )


def _described(tensor: LayerTensor) -> str:
    shape = None if tensor["shape"] is None else "x".join(map(str, tensor["shape"])) or "scalar"
    return " ".join(filter(None, (tensor["dtype"], shape, tensor.get("format")))) or "a tensor"


def _unaligned(seen: Seen) -> Iterator[Draft]:
    if not seen.on_gpu:
        return
    groups: dict[tuple[int, int, str], list[tuple[int, str, str]]] = defaultdict(list)
    for name in seen.graph.nodes:
        for place in seen.graph.owners.get(name, []):
            dtype, multiple = seen.rows[place].dtype, _multiple(seen, place)
            if dtype is None or multiple is None or not seen.rows[place].time_us:
                continue
            for what, size in _dimensions(seen, name).items():
                if size % multiple:
                    groups[size, multiple, dtype].append((place, name, what))
    for (size, multiple, dtype), members in groups.items():
        yield _unaligned_draft(seen, (size, multiple), dtype, members)


def _multiple(seen: Seen, place: int) -> int | None:
    """Return the elements of which the dimensions of a layer should be a multiple; None where it is of no matter."""
    dtype, tactic = seen.rows[place].dtype, seen.profile["layers"][place]["tactic"]
    if dtype in _SPARSE and tactic is not None and "sparse" in tactic.lower():
        return SPARSE_ALIGNMENT
    return None if dtype is None else ALIGNMENT.get(dtype)


def _unaligned_draft(seen: Seen, sizes: tuple[int, int], dtype: str, members: list[tuple[int, str, str]]) -> Draft:
    size, multiple = sizes
    places, nodes, kinds = (list(dict.fromkeys(column)) for column in zip(*members, strict=True))
    padded = {to for place in places for to in _padded(seen, place, size)}
    padding = [place for place in seen.timed(nodes) if place not in places and _pads(seen, place, padded)]
    by_builder = f" The builder pads it to {max(padded)}." if padded else ""
    cost = f" The padding takes {seen.time_us(padding):,.1f} us in layers of its own." if padding else ""
    return Draft(
        title=f"{' and '.join(kinds)} of {size}: no multiple of {multiple} ({dtype})",
        places=[*places, *padding],
        nodes=nodes,
        cost_us=seen.time_us([*places, *padding]),
        saving_us=seen.time_us(padding) if padding else None,
        explanation=f"Tensor Cores take {dtype} in multiples of {multiple} elements: {some(nodes)}.{by_builder}{cost}",
        advice=f"Author the network with {-(-size // multiple) * multiple} in place of {size} here, zeros in the added "
        "weights: a pass of your own (`graph=PACKAGE.MODULE:FUNCTION`) can write it.",
    )


def _dimensions(seen: Seen, name: str) -> dict[str, int]:
    """Return the dimensions of a product that Tensor Cores want aligned: those that it sums over and writes."""
    graph, op = seen.graph, seen.graph.op(name)
    node = graph.nodes[name]
    shapes = [graph.shape(tensor) for tensor in node["inputs"]]
    output = graph.shape(node["outputs"][0])
    if op in {"Conv", "QLinearConv", "ConvInteger"}:
        weights = shapes[3 if op == "QLinearConv" else 1] if len(shapes) > 1 else None
        if weights is None or (node["attributes"].get("group", 1) > 1 and weights[1] == 1):
            return {}  # a depthwise convolution runs on the CUDA cores
        return {"input channels": weights[1], "output channels": weights[0]}
    if op in {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"} and shapes[0] and output:
        inner = shapes[0][-2 if op == "Gemm" and node["attributes"].get("transA") else -1]
        return {"summed dimension": inner, "output dimension": output[-1]}
    return {}


def _padded(seen: Seen, place: int, size: int) -> set[int]:
    """Return to what a layer's operands were padded: a constant with a little more than `size` in its second axis."""
    layer = seen.profile["layers"][place]
    return {
        shape[axis]
        for tensor in layer["constants"]
        if (shape := tensor["shape"]) and len(shape) >= 3  # noqa: PLR2004 - weights of a convolution
        for axis in (0, 1)
        if size < shape[axis] < size + SPARSE_ALIGNMENT and not _same_weights(seen, place, shape)
    }


def _same_weights(seen: Seen, place: int, shape: list[int]) -> bool:
    """Return whether the graph has weights of this very shape at the layer, so that nothing was padded."""
    names = [name for name in seen.rows[place].nodes if name in seen.graph.nodes]
    return any(seen.graph.shape(t) == tuple(shape) for name in names for t in seen.graph.nodes[name]["inputs"])


def _pads(seen: Seen, place: int, padded: set[int]) -> bool:
    """Return whether a layer writes a tensor with a dimension that the builder padded to."""
    outputs = seen.profile["layers"][place]["outputs"]
    return any(set(tensor["shape"] or ()) & padded for tensor in outputs)


def _transposes(seen: Seen) -> Iterator[Draft]:
    graph = seen.graph
    pairs: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for first, between, second in transpose_pairs(graph):
        pairs[second].append((first, between))
    groups: list[tuple[list[int], list[str]]] = []
    for second, before in pairs.items():
        alone = [first for first, between in before if set(graph.after(first)) <= {*between[:1], second}]
        places = _moving(seen, [*alone, second])
        if places:  # else all are part of layers that compute
            between = [name for _, names in before for name in names]
            groups.append((places, list(dict.fromkeys([*(first for first, _ in before), *between, second]))))
    title = f"{count(len(groups), 'transpose')} that undo an earlier one"
    yield from removable(
        seen, groups, title, "Only elementwise nodes stand between, and layers of their own move the data"
    )


def _moving(seen: Seen, names: list[str]) -> list[int]:
    """Return the timed layers of some nodes that only move data."""
    return [place for place in seen.timed(names) if set(seen.owned_ops(place)) <= MOVES]


def _casts(seen: Seen) -> Iterator[Draft]:
    groups: list[tuple[list[int], list[str]]] = []
    for name in seen.graph.nodes:
        nodes = _needless_casts(seen, name)
        places = _moving(seen, nodes)
        if places:
            groups.append((places, nodes))
    title = f"{count(len(groups), 'cast')} without effect"
    yield from removable(seen, groups, title, "To the same type, or to a wider one and back")


def _needless_casts(seen: Seen, name: str) -> list[str]:
    """Return a cast to its own type, or one to a wider type with those that undo it; nothing for any other node."""
    graph = seen.graph
    if graph.op(name) != "Cast":
        return []
    source, target = graph.dtype(graph.nodes[name]["inputs"][0]), graph.dtype(graph.nodes[name]["outputs"][0])
    if source is None or target is None or source == target:
        return [name] if source is not None and source == target else []
    back = [node for node in graph.after(name) if graph.op(node) == "Cast"]
    undone = [node for node in back if graph.dtype(graph.nodes[node]["outputs"][0]) == source]
    return [name, *undone] if undone and (target, source) in _HOLDS else []


LAYOUT_RULES = (
    Rule(
        kind="added_layer",
        title="Reformat and copy layers that no node asks for",
        meaning="The builder chose implementations whose layouts or types do not meet, and put layers between them "
        "that only move data; or inputs and outputs of the network have another type than the layers beside them.",
        advice="At inputs and outputs let them have the engine's type (`precision.keep_io=false`); between layers, "
        "keep neighbours in one type (`precision.keep`, `precision.rest`).",
        source=f"{GUIDE}, I/O Formats",
        detect=_added_layers,
    ),
    Rule(
        kind="unaligned",
        title="Dimensions that Tensor Cores do not like",
        meaning="A dimension of a convolution or matrix product is no multiple of what Tensor Cores take of its type "
        "(TF32 4, fp16 and bf16 8, with 2:4 sparsity 16, fp8 16, int8 32 elements): the builder pads it, or falls back "
        "to slower kernels.",
        advice="Author the network with the next multiple, zeros in the added weights: a pass of your own "
        "(`graph=PACKAGE.MODULE:FUNCTION`) can write it.",
        source=f"{GUIDE}, Optimizing for Tensor Cores",
        detect=_unaligned,
    ),
    Rule(
        kind="transpose_pair",
        title="Transposes that undo one another",
        meaning="Two transposes, with nothing or only elementwise nodes between them, restore the order of the axes, "
        "and at least one of them runs as a layer of its own.",
        advice="`graph=simplify` removes pairs that touch; across other nodes, export the network in one layout, or "
        "remove them by a pass of your own (`graph=PACKAGE.MODULE:FUNCTION`).",
        source=f"{GUIDE}, Layer Fusion Catalog (shuffle and shuffle)",
        detect=_transposes,
    ),
    Rule(
        kind="redundant_cast",
        title="Casts that change nothing",
        meaning="A cast to the type that the tensor has, or to a wider one and back, runs as a layer of its own.",
        advice="`graph=simplify`, or remove them by a pass of your own (`graph=PACKAGE.MODULE:FUNCTION`); where "
        "`precision.keep` makes them, keep neighbouring nodes together.",
        source=f"{GUIDE}, Strongly Typed Networks",
        detect=_casts,
    ),
)

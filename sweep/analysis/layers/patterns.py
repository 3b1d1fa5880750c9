"""Match groups of ONNX nodes that a library can compute in one kernel: norms, GELU, attention, Conv+BN+ReLU, chains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.analysis.layers.costs import ELEMENTWISE, QUANTISERS, UNARY, VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.analysis.layers.graph import Graph

TRANSPARENT = frozenset({"Cast", "Identity", "Dropout"}) | QUANTISERS
"""Operators that a pattern may have between its nodes."""
_ACTIVATIONS = UNARY - {"Sqrt", "Reciprocal", "Erf", "Exp", "Log", "Neg", "Not", "IsNaN", "IsInf"}
_BETWEEN_PRODUCTS = frozenset({"Mul", "Div", "Add", "Where", "Sub", "Clip"}) | TRANSPARENT | VIEWS
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})
_FARTHEST = 12  # nodes between two ends of a pattern


def layer_norms(graph: Graph) -> Iterator[list[str]]:
    """Yield the nodes of each layer norm or RMS norm that is written out in primitives."""
    for name in graph.nodes:
        if graph.op(name) == "Sqrt" and (group := _norm(graph, name)):
            yield group


def _norm(graph: Graph, root: str) -> list[str] | None:
    """Match mean((x - mean(x))^2) + eps before a square root, and the division after it."""
    epsilon, between = _step_back(graph, root, {"Add"})
    mean, more = _step_back(graph, epsilon, {"ReduceMean"}) if epsilon else (None, [])
    square, most = _step_back(graph, mean, {"Pow", "Mul"}) if mean else (None, [])
    if epsilon is None or mean is None or square is None:
        return None
    group = [square, *most, mean, *more, epsilon, *between, root]
    centred, casts = _step_back(graph, square, {"Sub"})
    if centred is not None:
        group = [centred, *casts, *group]
        first, casts = _step_back(graph, centred, {"ReduceMean"})
        group = [first, *casts, *group] if first is not None else group
    tail = _tail(graph, root, ({"Div", "Reciprocal"}, {"Mul"}, {"Mul", "Add"}, {"Add"}))
    return [*group, *tail] if tail and graph.op(_solid(graph, tail)[0]) in {"Div", "Reciprocal"} else None


def gelus(graph: Graph) -> Iterator[list[str]]:
    """Yield the nodes of each GELU that is written out in primitives, by Erf or by Tanh."""
    for name in graph.nodes:
        if graph.op(name) not in {"Erf", "Tanh"}:
            continue
        tail = _tail(graph, name, ({"Add"}, {"Mul"}, {"Mul"}))
        scale, casts = _step_back(graph, name, {"Div", "Mul"})
        if len(_solid(graph, tail)) < 2 or scale is None or not _has_constant(graph, scale):  # noqa: PLR2004 - Add, Mul
            continue
        group = [scale, *casts, name, *tail]
        if graph.op(name) == "Tanh":  # 0.5 x (1 + tanh(c (x + 0.044715 x^3)))
            inner, casts = _step_back(graph, scale, {"Add"})
            if inner is None:
                continue
            cubic = [writer for writer in graph.before(inner) if graph.op(writer) in {"Mul", "Pow"}]
            powers = [writer for first in cubic for writer in graph.before(first) if graph.op(writer) in {"Mul", "Pow"}]
            group = [*powers, *cubic, inner, *casts, *group]
        yield list(dict.fromkeys(group))


def attentions(graph: Graph) -> Iterator[tuple[list[str], str, str, str]]:
    """Yield the nodes of each attention in primitives, with its scores, softmax and context among them.

    The softmax may be written out too, and is named by its last node then.
    """
    for name in graph.nodes:
        softmax = [name] if graph.op(name) == "Softmax" else _softmax(graph, name)
        if not softmax:
            continue
        before, scores = _search(graph, softmax[0], forward=False)
        after, context = _search(graph, name, forward=True)
        if scores is not None and context is not None:
            yield [scores, *before, *softmax, *after, context], scores, name, context


def _softmax(graph: Graph, root: str) -> list[str]:
    """Match Exp, ReduceSum and Div, with what shifts the values before; return nothing where `root` ends no such."""
    if graph.op(root) != "Div":
        return []
    total, casts = _step_back(graph, root, {"ReduceSum"})
    powers, more = _step_back(graph, root, {"Exp"})
    if total is None or powers is None or _step_back(graph, total, {"Exp"})[0] != powers:
        return []
    shifted = _step_back(graph, powers, {"Sub"})[0]
    largest = None if shifted is None else _step_back(graph, shifted, {"ReduceMax"})[0]
    shift = [largest, shifted] if largest is not None and shifted is not None else []
    return [*shift, powers, *more, total, *casts, root]


def _search(graph: Graph, start: str, *, forward: bool) -> tuple[list[str], str | None]:
    """Walk from a softmax to the nearest product, over what may stand between; return the nodes and the product."""
    between: list[str] = []
    at = start
    for _ in range(_FARTHEST):
        steps = graph.after(at) if forward else graph.before(at)
        product = next((name for name in steps if graph.op(name) in _PRODUCTS), None)
        if product is not None:
            return between, product
        onward = [name for name in steps if graph.op(name) in _BETWEEN_PRODUCTS]
        if not onward:
            break
        # Of an Add of scores and mask, the branch with the greater tensor is that of the scores.
        at = max(onward, key=lambda name: math.prod(graph.shape(graph.nodes[name]["outputs"][0]) or (0,)))
        between.append(at)
    return between, None


def epilogues(graph: Graph) -> Iterator[tuple[str, list[str]]]:
    """Yield each convolution or product with the bias, norm, sum, activation and quantisation that follow it alone."""
    steps = ({"BatchNormalization"}, {"Add"}, {"Add"}, set(_ACTIVATIONS))
    for name in graph.nodes:
        if graph.op(name) in _CONVOLUTIONS | _PRODUCTS:
            tail = _tail(graph, name, steps)
            last = tail[-1] if tail else name  # several may quantise it, for several readers
            tail += [reader for reader in graph.after(last) if graph.op(reader) == "QuantizeLinear"]
            if tail:
                yield name, tail


def elementwise_chains(graph: Graph, taken: set[str]) -> Iterator[list[str]]:
    """Yield each longest run of elementwise nodes, of which every one but the last has a single reader."""
    chained = ELEMENTWISE | {"Cast"}
    done = set(taken)
    for name in graph.nodes:
        if name in done or graph.op(name) not in chained:
            continue
        chain = [name]
        while True:
            after = graph.after(chain[-1])
            if len(after) != 1 or after[0] in done or graph.op(after[0]) not in chained:
                break
            chain.append(after[0])
        done |= set(chain)
        if len(chain) > 1:
            yield chain


def transpose_pairs(graph: Graph) -> Iterator[tuple[str, list[str], str]]:
    """Yield each two transposes that undo one another, with the elementwise nodes between them."""
    for name in graph.nodes:
        if graph.op(name) != "Transpose":
            continue
        between: list[str] = []
        first, at = _permutation(graph, name), name
        for _ in range(_FARTHEST):
            onward = graph.after(at)
            second = next((node for node in onward if graph.op(node) == "Transpose"), None)
            if second is not None:
                last = _permutation(graph, second)
                if first and last and len(first) == len(last) and _undo(first, last):
                    yield name, between, second
                break
            passing = [node for node in onward if _keeps_order(graph, node, first)]
            if len(onward) != 1 or not passing:
                break
            at = passing[0]
            between.append(at)


def _permutation(graph: Graph, name: str) -> tuple[int, ...] | None:
    node = graph.nodes[name]
    order = node["attributes"].get("perm")
    if order:
        return tuple(order)
    shape = graph.shape(node["inputs"][0])
    return None if shape is None else tuple(reversed(range(len(shape))))


def _undo(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    return all(first[axis] == place for place, axis in enumerate(second))


def _keeps_order(graph: Graph, name: str, order: tuple[int, ...] | None) -> bool:
    """Return whether a node gives the same values in whatever order its axes are."""
    op = graph.op(name)
    if op in (UNARY - {"PRelu"}) | TRANSPARENT:
        inputs = graph.nodes[name]["inputs"]
        return op not in QUANTISERS or all(math.prod(graph.shape(scale) or (0,)) == 1 for scale in inputs[1:2])
    if op not in ELEMENTWISE:
        return False
    others = [writer for writer in graph.before(name) if graph.op(writer) == "Transpose"]
    constants = [tensor for tensor in graph.nodes[name]["inputs"] if graph.is_constant(tensor)]
    scalars = all(math.prod(graph.shape(tensor) or (0,)) == 1 for tensor in constants)
    alike = all(_permutation(graph, writer) == order for writer in others)
    return scalars and alike and len(constants) + max(len(others), 1) >= len(graph.nodes[name]["inputs"])


def _step_back(graph: Graph, name: str, ops: set[str]) -> tuple[str | None, list[str]]:
    """Return the node before `name` that has one of these operators, and the transparent ones between."""
    between: list[str] = []
    at = name
    for _ in range(_FARTHEST):
        writers = graph.before(at)
        match = next((writer for writer in writers if graph.op(writer) in ops), None)
        if match is not None:
            return match, between[::-1]
        through = [writer for writer in writers if graph.op(writer) in TRANSPARENT]
        if not through:
            break
        at = through[0]
        between.append(at)
    return None, []


def _tail(graph: Graph, name: str, steps: tuple[set[str], ...]) -> list[str]:
    """Return the nodes after `name` that take these steps in their order, as far as each is the only reader.

    A step that does not match is left out.
    """
    nodes: list[str] = []
    trailing: list[str] = []
    at = name
    for ops in steps:
        while True:
            after = graph.after(at)
            if len(after) != 1:
                return nodes
            if graph.op(after[0]) in ops:
                nodes += [*trailing, after[0]]
                at, trailing = after[0], []
                break
            if graph.op(after[0]) not in TRANSPARENT:
                break
            at = after[0]
            trailing.append(at)
    return nodes


def _solid(graph: Graph, names: list[str]) -> list[str]:
    return [name for name in names if graph.op(name) not in TRANSPARENT]


def _has_constant(graph: Graph, name: str) -> bool:
    return any(graph.is_constant(tensor) for tensor in graph.nodes[name]["inputs"])

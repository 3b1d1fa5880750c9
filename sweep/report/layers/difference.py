"""Explain the difference between two engines of one network layer by layer, joined by the ONNX nodes they compute.

A library fuses nodes into layers as it likes, so layers of two engines have no names in common. Their nodes do: layers
of the two sides that share a node form one group, and with them the layers that share a node with these, until none
is left (the connected components of the graph of layers and nodes). The nodes of a group are the same work on both
sides, unless one side alone has it: a reformat, a cast, a quantisation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sweep.report.layers.headline import OUTSIDE, SAME, headline
from sweep.report.layers.names import ADDED, scope_of
from sweep.report.layers.wording import types_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.analysis.layers import LayerRow
    from sweep.report.layers.profiles import Source

Presence = Literal["both", "A", "B"]
_MOST_SHARED = (
    4  # layers of one side that compute one node, above which it joins nothing: a scale that all of them read
)
_OP_RANK = (  # what a group is called by: the first of these that it computes
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"),
    *("Attention", "Einsum", "LSTM", "GRU", "LayerNormalization", "BatchNormalization", "Softmax"),
)
_LIGHT = frozenset(
    {
        *("Cast", "QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
        *("Identity", "Slice", "Concat", "Split", "Expand", "Shape", "Constant"),
    }
)
_QUANTISE = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Hold layers of two engines that compute the same nodes.

    Attributes:
        name: what it is called: its main node, else its layer.
        op: operator of the main node, or why the library added the layer.
        what: words for the kind of layer, as ``quantise/dequantise`` or ``Conv``.
        nodes: the nodes, those that both sides compute first.
        a, b: layers of each side; empty for a side that lacks them.
        a_us, b_us: their time, us, in the unit of the difference; 0 for a side that lacks them.
    """

    name: str
    op: str
    what: str
    nodes: tuple[str, ...]
    a: tuple[LayerRow, ...]
    b: tuple[LayerRow, ...]
    a_us: float
    b_us: float

    @property
    def change_us(self) -> float:
        """Return how much longer B takes, us."""
        return self.b_us - self.a_us

    @property
    def ratio(self) -> float | None:
        """Return the time of B over that of A; None where a side has none."""
        return self.b_us / self.a_us if self.a and self.b and self.a_us > 0 else None

    @property
    def presence(self) -> Presence:
        """Return which sides have it."""
        return "both" if self.a and self.b else "A" if self.a else "B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Hold one cause of the difference: layers that do the same.

    Attributes:
        what: words for what the layers do; ``outside the layers`` for the rest.
        presence: which sides have these layers.
        fused: the other side computes their nodes too, inside of other layers.
        layers: how many layers; of ``both``, those of B.
        a_us, b_us: time of each side, us.
        types: what they read and write on each side, where that differs.
    """

    what: str
    presence: Presence
    fused: bool
    layers: int
    a_us: float
    b_us: float
    types: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """Return what a row of a table is called: ``elementwise (only B: fused in A)``."""
        if self.presence == "both":
            return f"{self.what} ({self.types[0]}; {self.types[1]})" if self.types else self.what
        other = "B" if self.presence == "A" else "A"
        return f"{self.what} (only {self.presence}{f': fused in {other}' if self.fused else ''})"

    @property
    def change_us(self) -> float:
        """Return how much longer B takes, us."""
        return self.b_us - self.a_us


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDifference:
    """Hold two engines side by side.

    Attributes:
        a, b: the profiles.
        names: what each side is called, as ``A (fp16 b8)``.
        per_sample: times are divided by the batch, since the batches differ.
        a_us, b_us: time of an inference, or of a sample, without the profiler, us.
        groups: groups of layers, the largest difference first.
        causes: kinds of layers, the largest difference first.
        headline: the answer, in one sentence.
        notes: what a reader has to know, in whole sentences.
    """

    a: Source
    b: Source
    names: tuple[str, str]
    per_sample: bool
    a_us: float
    b_us: float
    groups: tuple[LayerGroup, ...]
    causes: tuple[Cause, ...]
    headline: str
    notes: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Return what the times are of: an inference or a sample."""
        return "a sample" if self.per_sample else "an inference"


def differ(a: Source, b: Source) -> LayerDifference:
    """Join the layers of two engines, and name what makes one slower than the other."""
    per_sample = a.profile["batch"] != b.profile["batch"]
    scales = tuple(1 / side.profile["batch"] if per_sample else 1.0 for side in (a, b))
    groups = _groups(a, b, scales)
    a_us, b_us = (side.profile["timed_us"] * scale for side, scale in zip((a, b), scales, strict=True))
    causes = _causes(groups, a, b, scales)
    names = _names(a, b)
    return LayerDifference(
        a=a,
        b=b,
        names=names,
        per_sample=per_sample,
        a_us=a_us,
        b_us=b_us,
        groups=tuple(sorted(groups, key=lambda group: -abs(group.change_us))),
        causes=tuple(causes),
        headline=headline(causes, a_us, b_us, names, per_sample=per_sample),
        notes=tuple(_notes(a, b, groups)),
    )


def by_scope(difference: LayerDifference, depth: int = 2) -> list[tuple[str, float, float]]:
    """Return the time of each scope on both sides, us, the largest difference first.

    Args:
        difference: the two engines.
        depth: parts of a node's name that are its scope.
    """
    times: dict[str, list[float]] = {}
    scales = (difference.a_us / difference.a.profile["timed_us"], difference.b_us / difference.b.profile["timed_us"])
    for side, (source, scale) in enumerate(zip((difference.a, difference.b), scales, strict=True)):
        for row in source.analysis.rows:
            name = "/".join(scope_of(row)[:depth])
            times.setdefault(name, [0.0, 0.0])[side] += (row.time_us or 0.0) * scale
    return sorted(((name, a, b) for name, (a, b) in times.items()), key=lambda item: -abs(item[2] - item[1]))


def _groups(a: Source, b: Source, scales: Sequence[float]) -> list[LayerGroup]:
    sides = (a.analysis.rows, b.analysis.rows)
    ops = {node["name"]: node["op"] for side in (b, a) for node in side.profile["nodes"]}
    known = [{node for row in rows for node in row.nodes} for rows in sides]
    union = _Union()
    for side, rows in enumerate(sides):
        counts = Counter(node for row in rows for node in set(row.nodes))
        crowded = {node for node, count in counts.items() if count > _MOST_SHARED}
        for row in rows:
            names = [node for node in row.nodes if node not in crowded] or list(row.nodes)
            union.add((side, row.index))
            for name in names:
                union.join((side, row.index), ("node", name))
            if not names:  # what the library added has no node, but a name
                union.join((side, row.index), ("layer", row.name))
    members: dict[object, tuple[list[LayerRow], list[LayerRow]]] = {}
    for side, rows in enumerate(sides):
        for row in rows:
            members.setdefault(union.root((side, row.index)), ([], []))[side].append(row)
    return [_group(first, second, ops, known, scales) for first, second in members.values()]


def _group(
    a: Sequence[LayerRow],
    b: Sequence[LayerRow],
    ops: dict[str, str],
    known: Sequence[set[str]],
    scales: Sequence[float],
) -> LayerGroup:
    nodes = list(dict.fromkeys(node for row in (*a, *b) for node in row.nodes))
    nodes.sort(key=lambda node: not (node in known[0] and node in known[1]))
    main = min(nodes, key=lambda node: _rank(ops.get(node, "")), default=None)
    if main is None:
        row = (*a, *b)[0]
        name, op = row.name, ADDED.get(row.added or "", row.kind)
    else:
        name, op = main, ops.get(main, "?")
    times = [sum(row.time_us or 0.0 for row in rows) * scale for rows, scale in zip((a, b), scales, strict=True)]
    return LayerGroup(
        name=name,
        op=op,
        what=_what(op, [ops.get(node, "?") for node in nodes]),
        nodes=tuple(nodes),
        a=tuple(a),
        b=tuple(b),
        a_us=times[0],
        b_us=times[1],
    )


def _rank(op: str) -> int:
    """Return the place of an operator among those that a layer is called by."""
    if op in _OP_RANK:
        return _OP_RANK.index(op)
    return len(_OP_RANK) + (op in _LIGHT) + (op in _QUANTISE)


def _what(op: str, ops: Sequence[str]) -> str:
    if ops and set(ops) <= _QUANTISE:
        return "quantise/dequantise"
    if ops and set(ops) <= _QUANTISE | {"Cast"}:
        return "cast" if set(ops) == {"Cast"} else "quantise/dequantise"
    return op


class _Union:
    """Hold sets that are joined step by step."""

    def __init__(self) -> None:
        self._parents: dict[object, object] = {}

    def add(self, item: object) -> None:
        self._parents.setdefault(item, item)

    def root(self, item: object) -> object:
        self.add(item)
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def join(self, item: object, other: object) -> None:
        self._parents[self.root(item)] = self.root(other)


def _causes(groups: Iterable[LayerGroup], a: Source, b: Source, scales: Sequence[float]) -> list[Cause]:
    """Return what makes the difference, by what layers do and by side; the largest difference first.

    Within a group, layers are told apart by what they do: of a convolution that A ends with its Relu and B without it,
    the Relu of B is a layer that A fuses into another, and the convolutions are compared with one another.
    """
    parts: dict[tuple[str, Presence, bool], tuple[list[LayerRow], list[LayerRow]]] = {}
    for group in groups:
        kinds: dict[str, tuple[list[LayerRow], list[LayerRow]]] = {}
        for side, rows in enumerate((group.a, group.b)):
            for row in rows:
                kinds.setdefault(_does(row), ([], []))[side].append(row)
        for what, (first, second) in kinds.items():
            presence: Presence = "both" if first and second else "A" if first else "B"
            fused = presence != "both" and group.presence == "both"
            sides = parts.setdefault((what, presence, fused), ([], []))
            sides[0].extend(first)
            sides[1].extend(second)
    causes = []
    for (what, presence, fused), (first, second) in parts.items():
        types = (_types(a, first), _types(b, second))
        causes.append(
            Cause(
                what=what,
                presence=presence,
                fused=fused,
                layers=len(first if presence == "A" else second),
                a_us=_time_us(first) * scales[0],
                b_us=_time_us(second) * scales[1],
                types=types if presence == "both" and types[0] != types[1] and all(types) else None,
            )
        )
    totals = (a.profile["timed_us"] * scales[0], b.profile["timed_us"] * scales[1])
    sums = (sum(cause.a_us for cause in causes), sum(cause.b_us for cause in causes))
    rests = [round(total - layers_us, 6) + 0.0 for total, layers_us in zip(totals, sums, strict=True)]
    causes.append(Cause(what=OUTSIDE, presence="both", fused=False, layers=0, a_us=rests[0], b_us=rests[1]))
    return sorted(causes, key=lambda cause: -abs(cause.change_us))


def _does(row: LayerRow) -> str:
    """Return words for what a layer does: the operator of a product, else its category."""
    from sweep.analysis.layers import PRODUCTS

    if not row.nodes:
        return ADDED.get(row.added or "", row.kind)
    if row.op_kinds and set(row.op_kinds) <= _QUANTISE | {"Cast"}:
        return "cast" if set(row.op_kinds) == {"Cast"} else "quantise/dequantise"
    return min(row.op_kinds, key=_rank) if row.category in PRODUCTS and row.op_kinds else row.category


def _types(source: Source, rows: Iterable[LayerRow]) -> str:
    """Return the types that most of the time of some layers goes to: ``fp8 > fp32``."""
    times: Counter[str] = Counter()
    for row in rows:
        times[types_text(source, row)] += row.time_us or 0.0  # type: ignore[assignment]  # a counter of us
    return max(times, key=lambda text: times[text], default="")


def _time_us(rows: Iterable[LayerRow]) -> float:
    return sum(row.time_us or 0.0 for row in rows)


def _names(a: Source, b: Source) -> tuple[str, str]:
    """Return what the sides are called: their labels, without the words that both have, unless nothing is left."""
    labels = [side.profile["label"].split() for side in (a, b)]
    texts = [" ".join(word for word in labels[n] if word not in labels[1 - n]) for n in range(2)]
    if not any(texts):
        devices = [side.profile["device"] or side.profile["backend"] for side in (a, b)]
        texts = devices if devices[0] != devices[1] else ["", ""]
    first, second = (f"{side} ({text})" if text else side for side, text in zip("AB", texts, strict=True))
    return first, second


def _notes(a: Source, b: Source, groups: Sequence[LayerGroup]) -> list[str]:
    notes = []
    if a.profile["batch"] != b.profile["batch"]:
        notes.append(
            f"The batches differ ({a.profile['batch']} and {b.profile['batch']}): all times are of one sample."
        )
    if a.profile["source"] != b.profile["source"]:
        notes.append(
            f"The layers were timed in two ways ({a.profile['source']} and {b.profile['source']}), whose overheads "
            "differ: small layers are not comparable."
        )
    for name, side in (("A", a), ("B", b)):
        if side.analysis.totals.rest_us < -SAME * side.profile["timed_us"]:
            notes.append(
                f"The layers of {name} add up to more than its inference ({side.analysis.totals.rest_name}): "
                f"what lies outside of them is below 0."
            )
    if a.profile["cuda_graph"] != b.profile["cuda_graph"]:
        notes.append("One side ran under a CUDA graph, the other launched each kernel.")
    if not any(group.presence == "both" and group.nodes for group in groups):
        notes.append("No layer of A computes a node that B has: these are two networks, or their nodes were renamed.")
    untimed = sum(row.time_us is None for side in (a, b) for row in side.analysis.rows)
    if untimed:
        notes.append(f"{untimed} layers have no time, and count as 0.")
    return notes

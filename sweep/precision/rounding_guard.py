"""Find the nodes whose rounding to 16 bits would destroy the outputs, though every value fits.

A difference of two large means, or a reciprocal of what is left of it, amplifies the rounding of a few nodes until
nothing else remains. One such form is known by its graph: a variance as mean(x^2) - mean(x)^2, which some exporters
write for each layer normalization, and which only inputs with constant parts destroy. Any other is looked for on the
calibration data: a graph in which a switch per node turns its rounding on and off shows what each node costs.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.precision import activation_ranges, cast, onnx_graph
from sweep.precision.emulation import EXACT_OPS
from sweep.precision.notes import count_of, first_names
from sweep.precision.onnx_tools import quiet_onnxruntime
from sweep.system import subgraphs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto

LEAST_DB = {"fp16": 30.0, "bf16": 15.0}
"""Set the SQNR of emulated rounding below which nodes are looked for, dB: networks that bear it have 10 dB more."""

_GAIN_DB = 6.0  # above that limit, so that other inputs than the calibration's pass it too
_MOST_RUNS = 120
_MOST_NODES = 32  # that are looked for: a network that needs more loses a little everywhere
_SHARE = 0.25  # of all nodes: a network of which more has to stay in fp32 is not one of this type
_FEW_NODES = 8  # that may stay whatever the share
_NOTHING = 1e-6  # outputs that are no larger have no error that says anything
_MEANS = ("ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool")
_SAME_VALUES = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose")
_SQUARED_MEANS = ("ReduceSumSquare",)
_SCALES = ("Mul", "Div")
_TWO = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingLoss:
    """Describe what rounding to 16 bits does to the outputs on the calibration data.

    Attributes:
        nodes: names of the nodes that have to stay in float32, in graph order; empty where none do or none help.
        before_db: SQNR with all nodes rounded, dB; ``inf`` where the outputs are equal.
        after_db: SQNR with these nodes in float32, dB.
    """

    nodes: tuple[str, ...]
    before_db: float
    after_db: float


def variance_nodes(graph: GraphProto) -> tuple[str, ...]:
    """Name the nodes that compute a variance as the mean of the squares less the square of the mean.

    The difference cancels wherever the mean is larger than the deviation. 16 bits then leave noise, of which a
    normalization takes the root and divides by it; 24 bits leave enough.

    Args:
        graph: the outermost graph, in canonical form.

    Returns:
        Names of the differences and of the squares, sums and means behind them, in graph order.
    """
    return _Variances(graph).names()


class _Variances:
    """Trace the operands of each difference back to the tensor whose mean and squares they are."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def names(self) -> tuple[str, ...]:
        """Return the names of the nodes of every such variance, in graph order."""
        kept: set[str] = set()
        for node in self._graph.node:
            if node.op_type == "Sub":
                behind = self._behind(*node.input)
                kept.update((node.name, *behind) if behind else ())
        return tuple(node.name for node in self._graph.node if node.name in kept)

    def _behind(self, squares: str, mean: str) -> list[str] | None:
        """Return the nodes from x to both operands; None where these are not mean(x^2) and mean(x)^2."""
        left, right = self._mean_of_squares(squares), self._square_of_mean(mean)
        return left[1] + right[1] if left and right and left[0] == right[0] else None

    def _mean_of_squares(self, name: str) -> tuple[str, list[str]] | None:
        node, path = self._unscaled(name)
        if node is not None and node.op_type in _SQUARED_MEANS:
            return self._root(node.input[0]), [*path, node.name]
        if node is None or node.op_type not in _MEANS:
            return None
        square, between = self._same(node.input[0])
        root = None if square is None else self._squared(square)
        return None if root is None or square is None else (self._root(root), [*path, node.name, *between, square.name])

    def _square_of_mean(self, name: str) -> tuple[str, list[str]] | None:
        square, path = self._unscaled(name)
        root = None if square is None else self._squared(square)
        if root is None or square is None:
            return None
        node, between = self._unscaled(root)
        if node is None or node.op_type not in _MEANS:
            return None
        return self._root(node.input[0]), [*path, square.name, *between, node.name]

    def _squared(self, node: NodeProto) -> str | None:
        """Return the tensor that a node squares."""
        from onnx import numpy_helper

        if node.op_type == "Mul" and node.input[0] == node.input[1]:
            return node.input[0]
        if node.op_type == "Pow" and node.input[1] in self._constants:
            exponent = numpy_helper.to_array(self._constants[node.input[1]])
            return node.input[0] if exponent.size == 1 and float(exponent.reshape(-1)[0]) == _TWO else None
        return None

    def _unscaled(self, name: str) -> tuple[NodeProto | None, list[str]]:
        """Follow a tensor back through changes of shape and products with constants; return where that ends."""
        path: list[str] = []
        while True:
            node, between = self._same(name)
            path += between
            if node is None or node.op_type not in _SCALES:
                return node, path
            operands = [item for item in node.input if item not in self._constants]
            if len(operands) != 1:
                return node, path
            path.append(node.name)
            name = operands[0]

    def _same(self, name: str) -> tuple[NodeProto | None, list[str]]:
        """Follow a tensor back through nodes that change its shape alone."""
        path: list[str] = []
        node = self._producers.get(name)
        while node is not None and node.op_type in _SAME_VALUES:
            path.append(node.name)
            node = self._producers.get(node.input[0])
        return node, path

    def _root(self, name: str) -> str:
        node = self._producers.get(name)
        while node is not None and node.op_type in _SAME_VALUES:
            name = node.input[0]
            node = self._producers.get(name)
        return name


def rounding_loss(
    model: ModelProto, dtype: str, calibration: Sequence[Mapping[str, np.ndarray]], kept: Collection[str] = ()
) -> RoundingLoss | None:
    """Measure what rounding leaves of the outputs, and find the fewest nodes that have to stay in float32.

    Nodes are found by halves: a group of nodes that is rounded alone, everything else in float32, and costs little is
    not looked into. Then each node that the result can do without is rounded again.

    Args:
        model: a float32 graph in canonical form with its weights loaded and its types inferred; unchanged afterwards.
        dtype: ``fp16`` or ``bf16``.
        calibration: batches, each an array for every graph input by name; the first is used.
        kept: names of nodes that stay in float32 anyway.

    Returns:
        The loss; None where nothing can be said: no float output, outputs of nothing, or no batch.
    """
    switched = _switched_graph(model, dtype, kept)
    if switched is None or not calibration:
        return None
    with quiet_onnxruntime(), activation_ranges.temporary_model_file(switched.model) as path:
        noise_of = _noise_function(str(path), switched, calibration[0])
    if noise_of is None:
        return None
    nodes = list(switched.switches)
    before = noise_of(nodes)
    if before <= _power(-LEAST_DB[dtype]):
        return RoundingLoss(nodes=(), before_db=_db(before), after_db=_db(before))
    high = _search(nodes, noise_of, _power(-LEAST_DB[dtype] - _GAIN_DB), _most_nodes(len(nodes)))
    after = noise_of([name for name in nodes if name not in high])
    if after > _power(-LEAST_DB[dtype]):
        return RoundingLoss(nodes=(), before_db=_db(before), after_db=_db(after))
    return RoundingLoss(nodes=tuple(name for name in nodes if name in high), before_db=_db(before), after_db=_db(after))


def _most_nodes(count: int) -> int:
    return min(max(_FEW_NODES, int(_SHARE * count)), _MOST_NODES)


def _search(nodes: Sequence[str], noise_of: Callable[[Sequence[str]], float], target: float, most: int) -> set[str]:
    """Return the nodes whose rounding costs most, as many as keep the rest within `target`, `most` at most."""
    high: set[str] = set()
    runs, reached = 0, False
    groups: list[tuple[float, int, Sequence[str]]] = [(-math.inf, 0, nodes)]
    while groups and not reached and len(high) < most and runs < _MOST_RUNS:
        _, start, group = heapq.heappop(groups)
        if len(group) == 1:
            high.add(group[0])
        else:
            middle = len(group) // 2
            for offset, half in ((start, group[:middle]), (start + middle, group[middle:])):
                heapq.heappush(groups, (-noise_of(half), offset, half))
            runs += 2
        if len(high) + sum(-item[0] > target for item in groups) > most:
            break  # each of these groups alone costs too much
        if -sum(item[0] for item in groups) <= target:
            runs += 1
            reached = noise_of([name for name in nodes if name not in high]) <= target
    if not reached:
        return high
    for name in sorted(high, key=nodes.index, reverse=True):  # one of them may have cost what another mends
        without = high - {name}
        if noise_of([item for item in nodes if item not in without]) <= target:
            high = without
    return high


@dataclass(frozen=True, slots=True)
class _Switched:
    """Hold a graph in which each node rounds or does not.

    Attributes:
        model: the graph; its outputs are the float ones of the original.
        switches: name of the boolean input that turns rounding on, by node name.
    """

    model: ModelProto
    switches: dict[str, str]


def _switched_graph(model: ModelProto, dtype: str, kept: Collection[str]) -> _Switched | None:
    """Write the graph with a switch for each node of the outermost graph that would be cast to 16 bits.

    A tensor has a rounded version beside it. A node that is switched on reads the rounded versions and hands on its
    own, as a node between two Casts does.
    """
    from onnx import ModelProto, TensorProto, helper

    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    scope = onnx_graph.element_types(graph)
    outputs = [value for value in graph.output if scope.get(value.name) == TensorProto.FLOAT]
    if not outputs:
        return None
    fresh = onnx_graph.FreshNames(graph)
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[dtype]
    is_low = cast.low_operands(result, dtype)
    rounded: dict[str, str] = {}
    nodes: list[NodeProto] = []
    switches: dict[str, str] = {}

    def round_tensor(name: str, source: str) -> str:
        if name not in rounded:
            low, rounded[name] = fresh.take(f"{name}__low"), fresh.take(f"{name}__rounded")
            nodes.append(helper.make_node("Cast", [source], [low], to=kind))
            nodes.append(helper.make_node("Cast", [low], [rounded[name]], to=TensorProto.FLOAT))
        return rounded[name]

    for node in graph.node:
        floats = [name for name in (*node.input, *node.output) if scope.get(name) == TensorProto.FLOAT]
        if node.name in kept or not floats or any(subgraphs(node)):
            nodes.append(node)
            continue
        switch = fresh.take(f"{node.name}__is_low")
        for index, name in enumerate(node.input):
            if scope.get(name) == TensorProto.FLOAT and is_low(node, index, "input"):
                node.input[index] = fresh.take(f"{name}__read")
                nodes.append(helper.make_node("Where", [switch, round_tensor(name, name), name], [node.input[index]]))
        nodes.append(node)
        for index, name in enumerate(node.output):
            low = scope.get(name) == TensorProto.FLOAT and is_low(node, index, "output")
            if low and node.op_type not in EXACT_OPS:
                exact = node.output[index] = fresh.take(f"{name}__exact")
                nodes.append(helper.make_node("Where", [switch, round_tensor(name, exact), exact], [name]))
        switches[node.name] = switch
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in switches.values())
    return _Switched(result, switches)


def _noise_function(
    path: str, switched: _Switched, batch: Mapping[str, np.ndarray]
) -> Callable[[Sequence[str]], float] | None:
    """Return a function from the nodes that round to noise power over signal power; None for outputs of nothing."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in switched.model.graph.output]

    def run(low: Collection[str]) -> list[np.ndarray]:
        states = {switch: np.array(node in low) for node, switch in switched.switches.items()}
        return [value.astype(np.float64) for value in session.run(names, {**batch, **states})]

    reference = run(())
    finite = all(np.all(np.isfinite(value)) for value in reference)
    if not finite or max((float(np.max(np.abs(value))) for value in reference if value.size), default=0.0) < _NOTHING:
        return None
    signal = sum(float(np.sum(value**2)) for value in reference)

    def noise_of(low: Sequence[str]) -> float:
        pairs = zip(run(frozenset(low)), reference, strict=True)
        with np.errstate(all="ignore"):
            noise = sum(
                float(np.sum((value - exact) ** 2)) if value.shape == exact.shape else math.inf
                for value, exact in pairs
            )
        return noise / signal if math.isfinite(noise) else math.inf

    return noise_of


def _power(decibels: float) -> float:
    return float(10 ** (decibels / 10))


def _db(noise: float) -> float:
    if noise == 0:
        return math.inf
    return -math.inf if math.isinf(noise) else -10 * math.log10(noise)


def rounding_notes(dtype: str, variances: Sequence[str], loss: RoundingLoss | None) -> tuple[str, ...]:
    """Word the notes about nodes that rounding would destroy.

    Args:
        dtype: ``fp16`` or ``bf16``.
        variances: names of the nodes that compute a variance as a difference.
        loss: what was measured on the calibration data; None where nothing was.

    Returns:
        One note for each of the two that kept nodes, or that could not help.
    """
    return tuple(_notes(dtype, variances, loss))


def _notes(dtype: str, variances: Sequence[str], loss: RoundingLoss | None) -> Iterator[str]:
    if variances:
        yield (
            f"{count_of(len(variances), 'node')} kept in fp32 by the rounding guard, since they compute a variance as "
            f"the difference of two means: {first_names(variances)}"
        )
    if loss is not None and loss.nodes:
        yield (
            f"{count_of(len(loss.nodes), 'node')} kept in fp32 by the rounding guard, since rounding to {dtype} left "
            f"{_words(loss.before_db)} of the outputs on the calibration data, and leaves {_words(loss.after_db)} "
            f"without: {first_names(loss.nodes)}"
        )
    elif loss is not None and loss.before_db < LEAST_DB[dtype]:
        yield (
            f"rounding to {dtype} leaves {_words(loss.before_db)} of the outputs on the calibration data, and no few "
            "nodes in fp32 mend it; precision=fp32 or tf32 keeps them"
        )


def _words(decibels: float) -> str:
    return "nothing finite" if math.isinf(decibels) else f"{decibels:.1f} dB"

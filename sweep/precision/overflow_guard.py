"""Find the nodes that have to stay in float32 because float16 cannot hold what they read, give or compute.

Three things are looked at: tensors over the calibration data, weights in the file, and values that an operator computes
inside itself, such as the squares of a normalization.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.precision.cast import FP16_MAX
from sweep.precision.notes import count_of, first_names
from sweep.system import nested_graphs, subgraphs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

LIMIT = FP16_MAX / 2
"""Set the threshold at half of float16's range: other inputs than the calibration's may well give twice as much."""

SQUARE_LIMIT = FP16_MAX / 4
"""Set the threshold of squares: inputs that are twice as large give four times as much."""

SMALLEST = 2.0**-24
"""Give the smallest positive float16, a subnormal; a weight that lies below it everywhere becomes zero."""

_SMALLEST_NORMAL = 2.0**-14
_SATURATING_OPS = ("Clip", "Min", "Max", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_SQUARES_INPUT = (  # operators that square what they read
    *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization"),
    *("MeanVarianceNormalization", "SimplifiedLayerNormalization"),
)
_ROOT_OF_SQUARES = ("ReduceL2", "LpPool")
_SUMS = ("ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool")


def overflowing_nodes(
    model: ModelProto, largest: Mapping[str, float], quantized: Collection[str] = ()
) -> tuple[str, ...]:
    """Name the nodes that produce, read or compute what float16 does not hold.

    A tensor that is infinite in float32 already is left alone: float16 holds infinity as well. Tensors inside control
    flow are not examined, the weights there are.

    Args:
        model: a graph with every node named.
        largest: the largest |x| of its tensors by name.
        quantized: weights that become int8 or fp8.

    Returns:
        Node names, in graph order.
    """
    squares = _squares(model.graph)
    overflowing = {
        name for name, size in largest.items() if (SQUARE_LIMIT if name in squares else LIMIT) < size < math.inf
    }
    unfit = {node.name for node in _nodes_with_unfit_weights(model.graph, {}, quantized)}
    return tuple(
        node.name
        for graph in nested_graphs(model.graph)
        for node in graph.node
        if node.name in unfit
        or (graph is model.graph and (overflowing & {*node.input, *node.output} or _overflows_inside(node, largest)))
    )


def _squares(graph: GraphProto) -> set[str]:
    """Name the tensors that are squares of others, or sums and means of squares."""
    from onnx import TensorProto, numpy_helper

    numbers = (TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64)
    twos = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type in numbers
        and math.prod(tensor.dims) == 1
        and float(numpy_helper.to_array(tensor).reshape(-1)[0]) == 2.0  # noqa: PLR2004 - the exponent
    }
    squares: set[str] = set()
    for node in graph.node:
        if (
            node.op_type == "ReduceSumSquare"
            or (node.op_type == "Mul" and node.input[0] == node.input[1])
            or (node.op_type == "Pow" and node.input[1] in twos)
            or (node.op_type in _SUMS and node.input[0] in squares)
        ):
            squares.update(node.output)
    return squares


def _overflows_inside(node: NodeProto, largest: Mapping[str, float]) -> bool:
    """Tell whether an operator computes too large a value on the way to its output, as the standard defines it."""
    read, given = (largest.get(names[0], 0.0) if names else 0.0 for names in (node.input, node.output))
    if node.op_type in _SQUARES_INPUT:
        return SQUARE_LIMIT < read**2 < math.inf
    if node.op_type in _ROOT_OF_SQUARES:
        power = next((item.i for item in node.attribute if item.name == "p"), 2)
        return SQUARE_LIMIT < given**power < math.inf
    if node.op_type == "ReduceLogSumExp":
        return math.log(LIMIT) < given < math.inf
    return False


def _nodes_with_unfit_weights(
    graph: GraphProto, outer: Mapping[str, tuple[bool, bool]], quantized: Collection[str]
) -> Iterator[NodeProto]:
    """Yield the nodes that read a weight which float16 cannot hold, and the Constant nodes that give one."""
    from onnx import TensorProto

    unfit = dict(outer)
    constants = [
        (node.output[0], item.t) for node in graph.node if node.op_type == "Constant" for item in node.attribute
    ]
    for name, tensor in (*((tensor.name, tensor) for tensor in graph.initializer), *constants):
        if tensor.data_type == TensorProto.FLOAT and name not in quantized:
            large, small = _faults(tensor)
            if large or small:
                unfit[name] = (large, small)
    for node in graph.node:
        names = node.output if node.op_type == "Constant" else node.input
        saturates = node.op_type in _SATURATING_OPS  # the largest float16 bounds and compares as a larger one would
        if any(name in unfit and (unfit[name][1] or not saturates) for name in names):
            yield node
        for inner in subgraphs(node):
            yield from _nodes_with_unfit_weights(inner, unfit, quantized)


def _faults(tensor: TensorProto) -> tuple[bool, bool]:
    """Tell whether a weight has a finite value beyond float16, and whether all of its values are lost below it."""
    import numpy as np
    from onnx import numpy_helper

    values = np.abs(numpy_helper.to_array(tensor))
    largest = float(np.max(values, initial=0.0, where=np.isfinite(values)))
    return largest > FP16_MAX, 0 < largest < SMALLEST


def fold_variances(graph: GraphProto) -> tuple[str, ...]:
    """Fold the variance of each BatchNormalization whose factors float16 cannot hold into its scale, in float64.

    The node computes the same function: its scale becomes ``scale / sqrt(variance + epsilon)``, its variance 1 and its
    epsilon 0. A node whose folded scale float16 cannot hold either is left alone.

    Args:
        graph: the outermost graph, in canonical form. It is modified.

    Returns:
        Names of the rewritten nodes.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    rewritten = []
    for node in graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if (
            node.op_type != "BatchNormalization"
            or not {node.input[1], node.input[4]} <= stored.keys()
            or attributes.get("training_mode")
        ):
            continue
        scale, variance = (numpy_helper.to_array(stored[node.input[index]]).astype(np.float64) for index in (1, 4))
        folded = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        if (_is_held(scale) and _is_held(variance)) or not _is_held(folded):
            continue
        base = node.output[0]  # which no other node has
        for index, name, values in ((1, f"{base}__gain", folded), (4, f"{base}__unit", np.ones_like(folded))):
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
            node.input[index] = name
        kept = [item for item in node.attribute if item.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend((*kept, helper.make_attribute("epsilon", 0.0)))
        rewritten.append(node.name)
    return tuple(rewritten)


def _is_held(values: np.ndarray) -> bool:
    """Tell whether float16 holds every value with all of its bits; zero is such a value."""
    import numpy as np

    sizes = np.abs(values[values != 0])
    return bool(np.all((sizes >= _SMALLEST_NORMAL) & (sizes <= FP16_MAX)))


def guard_notes(names: tuple[str, ...], folded: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Word the notes about guarded nodes.

    Args:
        names: of the guarded nodes.
        folded: of the normalizations whose variance was folded.

    Returns:
        One note for each of the two; none where there are no such nodes.
    """
    notes = []
    if names:
        notes.append(f"{count_of(len(names), 'node')} kept in fp32 by the range guard: {first_names(names)}")
    if folded:
        notes.append(
            f"{count_of(len(folded), 'variance')} beyond fp16 folded into the scale beside it: {first_names(folded)}"
        )
    return tuple(notes)

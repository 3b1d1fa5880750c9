"""fp32 graph -> int8 or fp8 Q/DQ graph by TensorRT's rules: symmetric, weights per channel and stored in the type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import compute_types
from sweep.precision import graph as graphs
from sweep.precision.canonicalize import channel_axis, drop_unread
from sweep.precision.cast import plural, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto

    from sweep.spec import Precision

LARGEST = {"int8": 127.0, "fp8": 448.0}
"""The largest magnitude of symmetric int8 and of float8 e4m3."""

LEAST_FP16_SCALE = 6.2e-5
"""Below float16's smallest normal number a scale loses its bits, and TensorRT refuses one that is 0."""

_LEAST_SCALE = 1e-12
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pair goes: operand ``index`` of ``node`` reads ``tensor``; a weight keeps its channels along ``axis``."""

    node: str
    index: int
    tensor: str
    axis: int | None


def places(graph: GraphProto, ops: Sequence[str]) -> list[Place]:
    """Both operands of every product among ``ops``, and the skip branch of an Add behind a quantised Conv.

    A node with a constant operand that has no channel is left out: a vector, a batch of matrices, one on the left. So
    is one whose convolution weights are computed. TensorRT fuses an Add into the convolution before it only if the
    other branch is quantised too, so a branch that is quantised for another reader is for the Add as well.

    Source:
        TensorRT developer guide, "Q/DQ Layer-Placement Recommendations".
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found = [
        Place(node.name, index, name, channel_axis(node, index, ranks.get(name, 0)))
        for node in graph.node
        if node.op_type in ops and _takes_pairs(node, ranks)
        for index, name in enumerate(node.input[:2])
    ]
    quantised = {place.tensor for place in found if place.tensor not in ranks}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    return found + [
        Place(node.name, index, name, None)
        for node in graph.node
        if node.op_type == "Add" and "Conv" in {makers.get(name) for name in node.input}
        for index, name in enumerate(node.input)
        if name in quantised
    ]


def _takes_pairs(node: NodeProto, ranks: Mapping[str, int]) -> bool:
    if "Conv" in node.op_type and node.input[1] not in ranks:
        return False
    return all(
        channel_axis(node, index, ranks[name]) is not None for index, name in enumerate(node.input[:2]) if name in ranks
    )


def quantised(model: ModelProto, precision: Precision, largest: Mapping[str, float]) -> tuple[str, ...]:
    """Puts symmetric Q/DQ pairs on the inputs of the ops that ``precision`` names, in place.

    Weights become int8 or fp8 initialisers behind a DequantizeLinear, scaled per output channel; biases and everything
    else stay float32. Scales are ones that the rest's type can hold, so that lowering the rest changes none.

    Args:
        model: an fp32 graph as ``prepared`` gives it.
        precision: its ``dtype``, ``rest``, ``quantize_ops`` and ``per_channel`` count here.
        largest: the largest |x| of every activation among the ``places``.

    Returns:
        What to tell about it.

    Raises:
        ConversionError: a range is not finite.
    """
    writer = _Writer(model.graph, precision, largest)
    chosen = places(model.graph, precision.quantize_ops)
    writer.write(chosen)
    named = {place.node for place in chosen}
    left = [node.name for node, _ in graphs.typed_nodes(model.graph) if node.op_type in compute_types.COMPUTE]
    left = [name for name in left if name not in named]
    if not left:
        return ()
    shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
    return (f"{plural(len(left), 'node')} kept in {precision.rest or 'fp32'}: {shown}",)


def wide_nodes(graph: GraphProto) -> frozenset[str]:
    """The products with a quantised weight, and what dequantises their operands: to be kept in float32 in a mix.

    TensorRT-RTX 1.7 multiplies with the scales in a kernel of its own behind the product, and holds the unscaled sum in
    the type that the product gives. In float16 a sum of 768 products of int8 or fp8 overflows. A product of two
    activations goes on inside one attention kernel, which float32 between would take apart.
    """
    stored = {tensor.name for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [
        node for node in graph.node if any(name in makers and makers[name].input[0] in stored for name in node.input)
    ]
    pairs = (makers[name].name for node in products for name in node.input if name in makers)
    return frozenset((*pairs, *(node.name for node in products)))


def high_softmaxes(graph: GraphProto) -> frozenset[str]:
    """The Softmax nodes whose output is quantised: beside int8 in bfloat16 they are to be kept in float32.

    TensorRT-RTX 1.6's int8 attention kernel gives wrong sums on an H200 where its Softmax is in bfloat16 and what it
    gives is quantised again (docs/decisions/0033); with a float32 or float16 Softmax it is right.
    """
    quantised_names = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return frozenset(
        node.name for node in graph.node if node.op_type == "Softmax" and quantised_names.intersection(node.output)
    )


def check_ops(precision: Precision) -> None:
    """Refuses op types that hold no product, or none at all.

    Raises:
        ConversionError: what was asked and what there is.
    """
    odd = [op for op in precision.quantize_ops if op not in compute_types.COMPUTE]
    if odd or not precision.quantize_ops:
        asked = ", ".join(odd) or "nothing"
        raise ConversionError(
            f"precision {precision.name} quantises {asked}: set quantize_ops to some of "
            f"{', '.join(compute_types.COMPUTE)}"
        )


class _Writer:
    """Writes pairs into one graph."""

    def __init__(self, graph: GraphProto, precision: Precision, largest: Mapping[str, float]) -> None:
        self._graph = graph
        self._precision = precision
        self._largest = largest
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._typed: dict[str, tuple[str, str, str]] = {}

    def write(self, chosen: Sequence[Place]) -> None:
        """Every pair before its reader; a weight's pair is its DequantizeLinear alone."""
        before: dict[str, list[NodeProto]] = {}
        readers = {node.name: node for node in self._graph.node}
        for place in chosen:
            pair = list(self._pair(place))
            readers[place.node].input[place.index] = pair[-1].output[0]
            before.setdefault(place.node, []).extend(pair)
        nodes = [one for node in self._graph.node for one in (*before.get(node.name, ()), node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        drop_unread(self._graph)

    def _pair(self, place: Place) -> list[NodeProto]:
        from onnx import helper

        base = f"{place.tensor}__{place.node}_{place.index}"
        if place.tensor in self._stored:
            typed, *rest = self._weight(place)
            node = helper.make_node("DequantizeLinear", [typed, *rest], [f"{base}_dq"], name=f"{base}_dq")
            if place.axis is not None and self._precision.per_channel:
                node.attribute.append(helper.make_attribute("axis", place.axis))
            return [node]
        _, *rest = self._activation(place.tensor)
        return [
            helper.make_node("QuantizeLinear", [place.tensor, *rest], [f"{base}_q"], name=f"{base}_q"),
            helper.make_node("DequantizeLinear", [f"{base}_q", *rest], [f"{base}_dq"], name=f"{base}_dq"),
        ]

    def _weight(self, place: Place) -> tuple[str, str, str]:
        """Names of the typed weight, its scales and its zero points, stored once."""
        import numpy as np
        from onnx import numpy_helper

        if place.tensor not in self._typed:
            values = numpy_helper.to_array(self._stored[place.tensor])
            others = tuple(axis for axis in range(values.ndim) if axis != place.axis or not self._precision.per_channel)
            scale = self._scale(np.abs(values).max(axis=others, keepdims=True))
            shape = (-1,) if self._precision.per_channel else ()
            self._store(place.tensor, scale.reshape(shape), self._cast(values / scale))
        return self._typed[place.tensor]

    def _activation(self, tensor: str) -> tuple[str, str, str]:
        import numpy as np

        if tensor not in self._typed:
            size = self._largest[tensor]
            if not np.isfinite(size):
                raise ConversionError(
                    f"precision {self._precision.name}: the float32 graph gives NaN or Inf in {tensor} over the "
                    "calibration data and has no range: narrow those of the inputs, or quantise other ops"
                )
            self._store(tensor, self._scale(np.asarray(size)), None)
        return self._typed[tensor]

    def _store(self, tensor: str, scale: np.ndarray, values: np.ndarray | None) -> None:
        import numpy as np
        from onnx import numpy_helper

        names = (f"{tensor}__{self._precision.dtype}", f"{tensor}__scale", f"{tensor}__zero")
        zero = self._cast(np.zeros(scale.shape, np.float32))
        for name, array in zip(names, (values, scale, zero), strict=True):
            if array is not None:
                self._graph.initializer.append(numpy_helper.from_array(array, name))
        self._typed[tensor] = names

    def _scale(self, size: np.ndarray) -> np.ndarray:
        import numpy as np

        rest = self._precision.rest
        scale = size.astype(np.float64) / LARGEST[self._precision.dtype]
        scale = np.where(scale < _LEAST_SCALE, 1.0, np.maximum(scale, LEAST_FP16_SCALE if rest == "fp16" else 0.0))
        scale = scale.astype(np.float32)
        return scale if rest is None else rounded(scale, rest)[0].astype(np.float32)

    def _cast(self, values: np.ndarray) -> np.ndarray:
        import ml_dtypes
        import numpy as np

        largest = LARGEST[self._precision.dtype]
        if self._precision.dtype == "fp8":
            return np.asarray(np.clip(values, -largest, largest).astype(ml_dtypes.float8_e4m3fn))
        return np.asarray(np.clip(np.rint(values), -largest, largest), np.int8)

"""Quantize an fp32 graph to int8 or fp8 by TensorRT's rules: symmetric, weights per channel and stored in the type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import activation_ranges, compute_types, onnx_graph
from sweep.precision.canonical_form import channel_axis, drop_unread_initializers
from sweep.precision.cast import round_to_dtype
from sweep.precision.notes import count_of, first_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto

    from sweep.spec import Precision

LARGEST_MAGNITUDE = {"int8": 127.0, "fp8": 448.0}
"""Give the largest magnitude of symmetric int8 and of float8 e4m3."""

MIN_FP16_SCALE = 6.2e-5
"""Bound scales from below: under float16's smallest normal number they lose bits, and TensorRT refuses a scale of 0."""

_MIN_SCALE = 1e-12


@dataclass(frozen=True, slots=True)
class QdqPlacement:
    """Place one Q/DQ pair.

    Attributes:
        node: name of the node that reads the pair.
        index: which of its operands.
        tensor: the tensor that is quantized.
        axis: the channel axis of a weight; None for an activation.
    """

    node: str
    index: int
    tensor: str
    axis: int | None


def qdq_placements(graph: GraphProto, ops: Sequence[str], kept: Collection[str] = ()) -> list[QdqPlacement]:
    """List the operands that get a pair: both operands of every product among ``ops``, and the skip branch of an Add.

    A node with a constant operand that has no channel is left out: a vector, a batch of matrices, one on the left. So
    is one whose convolution weights are computed. TensorRT fuses an Add into the convolution before it only if the
    other branch is quantized too, so a branch that is quantized for another reader is quantized for the Add as well.

    Args:
        graph: the outermost graph, in canonical form.
        ops: op types to quantize.
        kept: names of nodes that are not quantized.

    Returns:
        The placements: products in graph order, then the Adds.

    Source:
        TensorRT developer guide, "Q/DQ Layer-Placement Recommendations".
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    products = [
        QdqPlacement(node.name, index, name, channel_axis(node, index, ranks.get(name, 0)))
        for node in graph.node
        if node.op_type in ops and node.name not in kept and _is_quantizable(node, ranks)
        for index, name in enumerate(node.input[:2])
    ]
    quantized = {place.tensor for place in products if place.tensor not in ranks}
    producers = {name: node.op_type for node in graph.node for name in node.output}
    return products + [
        QdqPlacement(node.name, index, name, None)
        for node in graph.node
        if node.op_type == "Add" and node.name not in kept and "Conv" in {producers.get(name) for name in node.input}
        for index, name in enumerate(node.input)
        if name in quantized
    ]


def _is_quantizable(node: NodeProto, ranks: Mapping[str, int]) -> bool:
    if "Conv" in node.op_type and node.input[1] not in ranks:
        return False
    return all(
        channel_axis(node, index, ranks[name]) is not None for index, name in enumerate(node.input[:2]) if name in ranks
    )


def insert_qdq_pairs(
    model: ModelProto, precision: Precision, largest: Mapping[str, float], kept: Collection[str] = ()
) -> tuple[str, ...]:
    """Insert symmetric Q/DQ pairs on the inputs of the ops that a precision names, in place.

    Weights become int8 or fp8 initializers behind a DequantizeLinear, scaled per output channel; biases and everything
    else stay float32. Scales are values that the rest's type can hold, so that casting the rest changes none.

    Args:
        model: an fp32 graph in canonical form. It is modified.
        precision: the recipe; ``dtype``, ``rest``, ``quantize_ops`` and ``per_channel`` are used.
        largest: the largest |x|, by name, of every activation among the ``qdq_placements``.
        kept: names of nodes that are not quantized.

    Returns:
        Notes for the record: products that are not quantized, besides those that are kept.

    Raises:
        ConversionError: a range is not finite.
    """
    writer = _QdqWriter(model.graph, precision, largest)
    placements = qdq_placements(model.graph, precision.quantize_ops, kept)
    writer.write(placements)
    quantized = {*kept, *(place.node for place in placements)}
    products = (*compute_types.COMPUTE_OPS, *compute_types.FLOAT_OPS)
    unquantized = [
        node.name or node.output[0] for node, _ in onnx_graph.typed_nodes(model.graph) if node.op_type in products
    ]
    unquantized = [name for name in unquantized if name not in quantized]
    if not unquantized:
        return ()
    return (f"{count_of(len(unquantized), 'node')} kept in {precision.rest or 'fp32'}: {first_names(unquantized)}",)


def wide_product_nodes(graph: GraphProto, ops: Collection[str] | None = None) -> frozenset[str]:
    """Name the products with a quantized weight, and what dequantizes their operands: a mix keeps them in float32.

    TensorRT-RTX 1.7 multiplies with the scales in a kernel of its own behind the product, and holds the unscaled sum in
    the type that the product gives. In float16 a sum of 768 products of int8 or fp8 overflows. A product of two
    activations goes on inside one attention kernel, which float32 between would take apart.

    Args:
        graph: a graph with its pairs inserted.
        ops: op types of the products to name; None for all.

    Returns:
        Node names.
    """
    stored = {tensor.name for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [
        node
        for node in graph.node
        if (ops is None or node.op_type in ops)
        and any(name in producers and producers[name].input[0] in stored for name in node.input)
    ]
    pairs = (producers[name].name for node in products for name in node.input if name in producers)
    return frozenset((*pairs, *(node.name for node in products)))


def fp32_softmax_nodes(graph: GraphProto) -> frozenset[str]:
    """Name the Softmax nodes whose output is quantized: beside int8 in bfloat16 they stay in float32.

    TensorRT-RTX 1.6's int8 attention kernel gives wrong sums on an H200 where its Softmax is in bfloat16 and its output
    is quantized again (docs/decisions/0033); with a float32 or float16 Softmax it is right.

    Args:
        graph: a graph with its pairs inserted.

    Returns:
        Node names.
    """
    quantized_tensors = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return frozenset(
        node.name for node in graph.node if node.op_type == "Softmax" and quantized_tensors.intersection(node.output)
    )


def check_quantize_ops(precision: Precision) -> None:
    """Refuse op types that hold no product, or an empty list.

    Args:
        precision: the recipe.

    Raises:
        ConversionError: the message has the op types that were requested and those that exist.
    """
    unknown = [op for op in precision.quantize_ops if op not in compute_types.COMPUTE_OPS]
    if unknown or not precision.quantize_ops:
        request = ", ".join(unknown) or "nothing"
        raise ConversionError(
            f"precision {precision.name} quantizes {request}: set quantize_ops to some of "
            f"{', '.join(compute_types.COMPUTE_OPS)}"
        )


class _QdqWriter:
    """Write pairs into one graph."""

    def __init__(self, graph: GraphProto, precision: Precision, largest: Mapping[str, float]) -> None:
        self._graph = graph
        self._precision = precision
        self._largest = largest
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._fresh = onnx_graph.FreshNames(graph)
        self._qdq_names: dict[str, tuple[str, str, str]] = {}

    def write(self, placements: Sequence[QdqPlacement]) -> None:
        """Write every pair before its reader; a weight's pair is its DequantizeLinear alone.

        Args:
            placements: where the pairs go.
        """
        before: dict[str, list[NodeProto]] = {}
        readers = {node.name: node for node in self._graph.node}
        for place in placements:
            pair = list(self._pair(place))
            readers[place.node].input[place.index] = pair[-1].output[0]
            before.setdefault(place.node, []).extend(pair)
        nodes = [one for node in self._graph.node for one in (*before.get(node.name, ()), node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        drop_unread_initializers(self._graph)

    def _pair(self, place: QdqPlacement) -> list[NodeProto]:
        from onnx import helper

        base = f"{place.tensor}__{place.node}_{place.index}"
        if place.tensor in self._stored:
            typed, *rest = self._weight(place)
            name = self._fresh.take(f"{base}_dq")
            node = helper.make_node("DequantizeLinear", [typed, *rest], [name], name=name)
            if place.axis is not None and self._precision.per_channel:
                node.attribute.append(helper.make_attribute("axis", place.axis))
            return [node]
        _, *rest = self._activation(place.tensor)
        quantized, result = self._fresh.take(f"{base}_q"), self._fresh.take(f"{base}_dq")
        return [
            helper.make_node("QuantizeLinear", [place.tensor, *rest], [quantized], name=quantized),
            helper.make_node("DequantizeLinear", [quantized, *rest], [result], name=result),
        ]

    def _weight(self, place: QdqPlacement) -> tuple[str, str, str]:
        """Store a typed weight with its scales and zero points once, and return their names."""
        import numpy as np
        from onnx import numpy_helper

        if place.tensor not in self._qdq_names:
            values = numpy_helper.to_array(self._stored[place.tensor])
            others = tuple(axis for axis in range(values.ndim) if axis != place.axis or not self._precision.per_channel)
            scale = self._scale(np.abs(values).max(axis=others, keepdims=True))
            shape = (-1,) if self._precision.per_channel else ()
            self._store(place.tensor, scale.reshape(shape), self._cast(values / scale))
        return self._qdq_names[place.tensor]

    def _activation(self, tensor: str) -> tuple[str, str, str]:
        import numpy as np

        if tensor not in self._qdq_names:
            size = self._largest[tensor]
            if size == activation_ranges.UNSEEN:
                readers = [node.name for node in self._graph.node if tensor in node.input]
                raise ConversionError(
                    f"precision {self._precision.name}: {tensor} is empty over all calibration data, so it has no "
                    "range: give samples that fill it (model.calibration=), or leave what reads it unquantized "
                    f"(precision.keep=[{','.join(readers)}])"
                )
            if not np.isfinite(size):
                raise ConversionError(
                    f"precision {self._precision.name}: the float32 graph gives NaN or Inf in {tensor} over the "
                    "calibration data, so it has no range: narrow the ranges of the inputs, or quantize other ops"
                )
            self._store(tensor, self._scale(np.asarray(size)), None)
        return self._qdq_names[tensor]

    def _store(self, tensor: str, scale: np.ndarray, values: np.ndarray | None) -> None:
        import numpy as np
        from onnx import numpy_helper

        typed, scale_name, zero_name = (f"{tensor}__{suffix}" for suffix in (self._precision.dtype, "scale", "zero"))
        names = (self._fresh.take(typed), self._fresh.take(scale_name), self._fresh.take(zero_name))
        zero = self._cast(np.zeros(scale.shape, np.float32))
        for name, array in zip(names, (values, scale, zero), strict=True):
            if array is not None:
                self._graph.initializer.append(numpy_helper.from_array(array, name))
        self._qdq_names[tensor] = names

    def _scale(self, size: np.ndarray) -> np.ndarray:
        import numpy as np

        rest = self._precision.rest
        scale = size.astype(np.float64) / LARGEST_MAGNITUDE[self._precision.dtype]
        scale = np.where(scale < _MIN_SCALE, 1.0, np.maximum(scale, MIN_FP16_SCALE if rest == "fp16" else 0.0))
        scale = scale.astype(np.float32)
        return scale if rest is None else round_to_dtype(scale, rest)[0].astype(np.float32)

    def _cast(self, values: np.ndarray) -> np.ndarray:
        import ml_dtypes
        import numpy as np

        largest = LARGEST_MAGNITUDE[self._precision.dtype]
        if self._precision.dtype == "fp8":
            return np.asarray(np.clip(values, -largest, largest).astype(ml_dtypes.float8_e4m3fn))
        return np.asarray(np.clip(np.rint(values), -largest, largest), np.int8)

"""Read what a graph computes in from the types in the graph, never from its file name or its label."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import onnx_graph
from sweep.system import element_type

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto

    from sweep.spec import Precision

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""List the op types that hold a network's multiplications, and whose types are its precision."""

QUANTIZED_DTYPES = ("int8", "fp8")
"""List the precisions that are expressed by Q/DQ pairs."""

FLOAT_OPS = ("LSTM", "GRU", "RNN", "Einsum")
"""List further op types that hold multiplications, and that are never quantized."""

OPS_WITHOUT_DTYPE = {
    "bf16": ("ConvTranspose", "GRU", "HardSigmoid", "HardSwish", "LpNormalization", "Mish", "Shrink"),
}
"""Name the operators that the ONNX standard has in a type and TensorRT-RTX 1.6 or 1.7 has not: they stay in fp32."""

_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")
_QUANTIZING_OPS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantize",
    "QLinear",
    "QGemm",
    "QAttention",
    "MatMulNBits",
)
_NARROW_FLOATS = ("fp16", "bf16", "fp8")
_FLOAT_DTYPES = ("fp16", "bf16", "fp32")
_NOT_REST_OPS = (*COMPUTE_OPS, "DequantizeLinear", "QuantizeLinear", "Cast", "Identity")
_REPORTED_DTYPES = ("int8", "fp8", "fp16", "bf16", "fp32")
_DTYPE_OF_LABEL = {"fp32": "fp32", "tf32": "fp32"}
_NO_COMPUTE_OPS = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear", "Shape", "If", "Loop", "Scan")
_LAYOUT_OPS = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")


def count_compute_types(path: Path) -> dict[str, int]:
    """Count the compute nodes of a file by the type that they compute in.

    Compute nodes are Conv, ConvTranspose, Gemm and MatMul (and LSTM, GRU, RNN, Einsum, where a network has them), those
    inside control flow included. A node whose two operands both come out of DequantizeLinear computes in the type that
    went into it; any other in the type of its operands.

    Args:
        path: an ONNX file; its external weights are not read.

    Returns:
        ``{"int8": 21, "fp8": 0, "fp16": 0, "bf16": 0, "fp32": 1}``: always these five keys, others (fp64, unknown, ...)
        only where the graph has them.

    Raises:
        ConversionError: ``path`` cannot be read as ONNX.
    """
    return count_model_types(onnx_graph.infer_types(onnx_graph.load(path, weights=False)))


def count_model_types(model: ModelProto, left_out: Collection[str] = ()) -> dict[str, int]:
    """Count the compute nodes of a model in memory, as ``count_compute_types`` does for a file.

    Args:
        model: a graph with its types inferred.
        left_out: op types whose nodes are not counted where they compute in fp32.

    Returns:
        Number of compute nodes by type.
    """
    counts = Counter(
        dtype for node, dtype in _typed_compute_nodes(model) if dtype != "fp32" or node.op_type not in left_out
    )
    return {name: counts.pop(name, 0) for name in _REPORTED_DTYPES} | dict(sorted(counts.items()))


def count_label_types(model: ModelProto, precision: Precision) -> dict[str, int]:
    """Count the compute nodes that a label has to answer for: all but those that stay in fp32 beside others.

    Args:
        model: a graph with its types inferred.
        precision: the label.

    Returns:
        Number of compute nodes by type; all of them where the label would be left with none.
    """
    counts = count_model_types(model, fp32_ops(precision))
    return counts if counts[_DTYPE_OF_LABEL.get(precision.dtype, precision.dtype)] else count_model_types(model)


def fp32_ops(precision: Precision) -> tuple[str, ...]:
    """Return the op types that stay in fp32 because TensorRT has no kernel of the type that a recipe casts to."""
    dtype = precision.rest if precision.dtype in QUANTIZED_DTYPES else precision.dtype
    return OPS_WITHOUT_DTYPE.get(dtype or "", ())


def node_compute_types(model: ModelProto) -> list[tuple[str, str]]:
    """List the compute type of every compute node.

    Args:
        model: a graph with its types inferred.

    Returns:
        (node name, type) pairs, in graph order.
    """
    return [(node.name or node.output[0], dtype) for node, dtype in _typed_compute_nodes(model)]


def _typed_compute_nodes(model: ModelProto) -> list[tuple[NodeProto, str]]:
    return [
        (node, _node_dtype(node, scope, producers))
        for node, scope, producers in _nodes_with_producers(model.graph)
        if node.op_type in (*COMPUTE_OPS, *FLOAT_OPS, *_INTEGER_OPS)
    ]


def is_typed(path: Path) -> bool:
    """Tell whether a file rounds by itself: it holds 16-bit or 8-bit floats, or operators that quantize.

    Such a file has no float32 graph, so that its outputs on onnxruntime are no float32 reference. An integer input that
    is cast to float rounds nothing.

    Args:
        path: an ONNX file; its external weights are not read.

    Raises:
        ConversionError: ``path`` cannot be read as ONNX.
    """
    model = onnx_graph.infer_types(onnx_graph.load(path, weights=False))
    return any(
        node.op_type.startswith(_QUANTIZING_OPS)
        or node.op_type in _INTEGER_OPS
        or any(dtype_name(scope.get(name, 0)) in _NARROW_FLOATS for name in (*node.input, *node.output))
        for node, scope in onnx_graph.typed_nodes(model.graph)
    )


def _nodes_with_producers(graph: GraphProto) -> list[tuple[NodeProto, dict[str, int], dict[str, NodeProto]]]:
    producers: dict[str, NodeProto] = {}
    rows = []
    for node, scope in onnx_graph.typed_nodes(graph):
        producers.update((name, node) for name in node.output)
        rows.append((node, scope, producers))
    return rows


def _node_dtype(node: NodeProto, scope: Mapping[str, int], producers: Mapping[str, NodeProto]) -> str:
    if node.op_type in _INTEGER_OPS:
        return "int8"
    operands = [name for name in node.input[:2] if name]
    quantized = [_quantized_dtype(name, scope, producers) for name in operands]
    if all(quantized):
        return str(quantized[0])
    typed = [scope[name] for name in (*operands, *node.output) if scope.get(name)]
    return dtype_name(typed[0]) if typed else "unknown"


def _quantized_dtype(name: str, scope: Mapping[str, int], producers: Mapping[str, NodeProto]) -> str | None:
    """Return the type under the DequantizeLinear that ``name`` comes from; None where it comes from elsewhere."""
    node = producers.get(name)
    while node is not None and node.op_type in _LAYOUT_OPS:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return dtype_name(scope.get(node.input[0], 0))


def dtype_name(elem_type: int) -> str:
    """Name an ONNX element type as the table does; eight-bit integers are ``int8``, signed or not.

    Args:
        elem_type: a value of ``onnx.TensorProto.DataType``; 0 is unknown.

    Returns:
        A name such as ``fp32``, ``fp8`` or ``int8``.
    """
    special = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "uint8": "int8"}
    name = (element_type(elem_type) or f"type {elem_type}").lower() if elem_type else "unknown"
    return "fp8" if name.startswith("float8") else special.get(name, name)


def check_label(path: Path, precision: Precision, advice: str | None = None, name: str | None = None) -> None:
    """Refuse a file whose types do not carry its precision label.

    Every reduced precision requires a node in its type. fp32 and tf32 require float32 compute nodes only, fp16 and bf16
    their own type only, int8 and fp8 at least one quantized node and, beside those, nothing but the type of the rest. A
    recipe with the range guard, or with nodes to keep, may have float32 beside it.

    Args:
        path: the ONNX file.
        precision: the label.
        advice: what to do about a mismatch; None advises what fits the type.
        name: what errors call the file, which may be a copy in a cache; None for its own name.

    Raises:
        ConversionError: the types differ; the message has the types of the file and what to do.
    """
    model = onnx_graph.infer_types(onnx_graph.load(path, weights=False))
    name = name or path.name
    check_evidence(model, precision, name)
    check_counts(count_label_types(model, precision), precision, name, advice)
    check_rest(model, precision, name)


def check_evidence(model: ModelProto, precision: Precision, file_name: str) -> None:
    """Refuse a graph in which no node is in the type of a reduced precision: its label would have no evidence.

    A network of Add and Relu has no products, but computes in fp16 where its tensors are fp16. A LinearClassifier of
    ai.onnx.ml takes float32 alone and computes in it whatever its neighbours are cast to.

    Args:
        model: a graph with its types inferred.
        precision: the label.
        file_name: what the error message calls the graph.

    Raises:
        ConversionError: no node is in the type; the message has the op types of the graph.
    """
    if precision.dtype == "fp32" or any(
        count for name, count in count_model_types(model).items() if name != "unknown"
    ):  # products tell, see ``check_counts``
        return
    dtype = _DTYPE_OF_LABEL.get(precision.dtype, precision.dtype)
    nodes = [
        (node, scope)
        for node, scope in onnx_graph.typed_nodes(model.graph)
        if node.op_type not in {*_NO_COMPUTE_OPS, *_LAYOUT_OPS}
    ]
    if dtype not in QUANTIZED_DTYPES and any(dtype in _tensor_dtypes(node, scope) for node, scope in nodes):
        return
    op_types = ", ".join(
        f"{name} {count}" for name, count in sorted(Counter(node.op_type for node, _ in nodes).items())
    )
    raise ConversionError(
        f"precision {precision.name} asks for {dtype} compute, but no node of {file_name} computes in {dtype}: it has "
        f"{op_types or 'no nodes that compute'}; leave this precision out, or give a float32 export that is built of "
        f"{', '.join(COMPUTE_OPS)}"
    )


def _tensor_dtypes(node: NodeProto, scope: Mapping[str, int]) -> set[str]:
    return {dtype_name(scope[name]) for name in (*node.input, *node.output) if scope.get(name)}


def check_rest(model: ModelProto, precision: Precision, file_name: str) -> None:
    """Refuse a quantized graph whose rest is of another type than the label's.

    The rest is what is dequantized to; where products are wide, it is the output of all nodes that are no product.

    Args:
        model: a graph with its types inferred.
        precision: the label.
        file_name: what the error message calls the graph.

    Raises:
        ConversionError: the rest is of another type.
    """
    if precision.dtype not in QUANTIZED_DTYPES:
        return
    rest = precision.rest or "fp32"
    node_counts = Counter(
        dtype_name(scope.get(node.output[0], 0))
        for node, scope in onnx_graph.typed_nodes(model.graph)
        if (node.op_type not in _NOT_REST_OPS if precision.wide else node.op_type == "DequantizeLinear")
    )
    counts = {name: node_counts[name] for name in _FLOAT_DTYPES if node_counts[name]}
    kept = (
        precision.guard
        or precision.wide
        or precision.keep
        or any(node.op_type in fp32_ops(precision) for node in model.graph.node)
    )
    allowed = {rest, *(["fp32"] if kept else [])}
    if set(counts) - allowed or (counts and rest not in counts):
        raise ConversionError(
            f"precision {precision.name} asks for {precision.dtype} and {rest} beside it, but {file_name} holds "
            f"{format_counts(counts)} beside it: set precision.rest to what the file has"
        )


def check_counts(counts: Mapping[str, int], precision: Precision, file_name: str, advice: str | None = None) -> None:
    """Refuse compute types that a precision label does not allow.

    Args:
        counts: number of compute nodes by type.
        precision: the label.
        file_name: what the error message calls the graph.
        advice: what to do about a mismatch; None advises what fits the type.

    Raises:
        ConversionError: the types differ.
    """
    dtype = _DTYPE_OF_LABEL.get(precision.dtype, precision.dtype)
    allowed = {dtype, "unknown", *(["fp32"] if (precision.guard or precision.keep) and counts.get(dtype) else [])}
    others = {name: count for name, count in counts.items() if count and name not in allowed}
    if dtype in QUANTIZED_DTYPES:
        mismatch = not counts.get(dtype) or bool(others.keys() - {precision.rest or "fp32"})
    else:
        mismatch = bool(others)
    if mismatch:
        raise ConversionError(
            f"precision {precision.name} asks for {dtype} compute, but {file_name} computes in "
            f"{format_counts(counts)}: "
            f"{advice or _advice(precision)}"
        )


def _advice(precision: Precision) -> str:
    if precision.dtype in _DTYPE_OF_LABEL:
        return (
            "give the float32 export of the model, or ask for the precision that the file has, "
            "or for precision=native, which takes any file as it is"
        )
    *usable, last = (name for name in COMPUTE_OPS if name not in fp32_ops(precision))
    return f"give a float32 export that is built of {', '.join(usable)} and {last} outside control flow"


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts for a message: ``fp16 21, fp32 1``; ``no compute nodes`` for none.

    Args:
        counts: number of compute nodes by type.

    Returns:
        The counts above 0.
    """
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "no compute nodes"

"""Report the node types and data types that an optimised graph computes in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sweep.system import element_type, nested_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sweep.spec import JsonDict

_COMPUTE = ("Conv", "MatMul", "Gemm", "Attention")  # op types of the layers that carry the arithmetic
_INTEGER = ("QLinear", "QGemm", "QAttention", "DynamicQuantize")


def inspect_inputs(path: Path, shapes: Mapping[str, tuple[int, ...]], batch: int) -> tuple[dict[str, int], bool]:
    """Read the symbolic dimensions of a graph's inputs and whether its weights are external.

    A symbol that is the first dimension of an input and has the batch's size is the batch: it is left symbolic.

    Args:
        path: the ONNX file.
        shapes: concrete shape of each input.
        batch: samples in those shapes.

    Returns:
        {symbolic dimension: size}, and whether any weight lies in another file.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    dims = {
        dim.dim_param: size
        for value in graph.input
        if value.name in shapes
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True)
        if dim.dim_param
    }
    for value in graph.input:
        first = next((dim.dim_param for dim in value.type.tensor_type.shape.dim), "")
        if dims.get(first) == batch:
            del dims[first]
    return dims, any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)


def holds_float8(path: Path) -> bool:
    """Tell whether any initializer of a graph is in an eight-bit float, as the zero points of fp8 pairs are."""
    import onnx

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return any((element_type(tensor.data_type) or "").startswith("FLOAT8") for tensor in tensors)


def collect_type_evidence(path: Path) -> JsonDict:
    """Count the types that the optimised graph computes in.

    Args:
        path: the optimised ONNX file.

    Returns:
        {precision: {type: compute layers}, quantised_tensors: tensors that are dequantised, rounded_tensors: tensors
        that are cast to bfloat16}; compute layers are convolutions and matrix products.
    """
    import onnx

    names: dict[int, str] = {
        onnx.TensorProto.FLOAT: "fp32",
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.DOUBLE: "fp64",
    }
    graph = onnx.load(path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    counts: Counter[str] = Counter()
    for node in _nodes(graph):
        to = next((item.i for item in node.attribute if item.name == "to"), None)
        floats = [types[name] for name in node.input if types.get(name) in names]
        types |= dict.fromkeys(node.output, to if to is not None else next(iter(floats), onnx.TensorProto.FLOAT))
        if any(word in node.op_type for word in _COMPUTE):
            integer = node.op_type.startswith(_INTEGER) or "Integer" in node.op_type
            counts["int8" if integer else names[next(iter(floats), onnx.TensorProto.FLOAT)]] += 1
    quantised = sum(node.op_type == "DequantizeLinear" for node in _nodes(graph))
    rounded = sum(
        node.op_type == "Cast" and any(item.i == onnx.TensorProto.BFLOAT16 for item in node.attribute)
        for node in _nodes(graph)
    )
    return {"precision": dict(counts), "quantised_tensors": quantised, "rounded_tensors": rounded}


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of the graph, and of the branches and loop bodies inside it."""
    for inner in nested_graphs(graph):
        yield from inner.node

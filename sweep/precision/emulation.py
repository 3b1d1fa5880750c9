"""Rewrite a typed graph as a float32 graph that rounds where the typed one does.

onnxruntime's CPU provider has no bfloat16 products, and computes float16 ones in float32 from end to end, so that what
overflows on a GPU does not overflow there. In the emulated graph every tensor that the typed one holds in 16 bits is
rounded to them, and all arithmetic between is float32, as in a tensor core. Fused kernels may round less often than
this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, NodeProto

_EXACT_OPS = (  # hands on values that are rounded already
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather", "Expand", "Concat"),
    *("Split", "Relu", "MaxPool", "Max", "Min", "Pad", "DepthToSpace", "SpaceToDepth", "Tile", "Where"),
    *("If", "Loop", "Scan"),
)


def emulate(source: Path, target: Path) -> int:
    """Write a float32 version of a typed graph, rounded wherever that one holds 16 bits.

    Args:
        source: the typed ONNX file.
        target: the file to write.

    Returns:
        Number of tensors that are rounded.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX, or contradicts itself.
    """
    model = onnx_graph.infer_types(onnx_graph.load(source))
    count = _emulate_graph(model.graph, {}, onnx_graph.FreshNames(model.graph))
    onnx_graph.save(model, target)
    return count


def _emulate_graph(graph: GraphProto, outer: dict[str, int], fresh: onnx_graph.FreshNames) -> int:
    nodes: list[NodeProto] = []
    scope, count = onnx_graph.element_types(graph, outer), 0
    low = {name: kind for name, kind in scope.items() if kind in _half_types()}
    for value in graph.input:
        if value.name in low and value.name not in outer:
            fed = fresh.take(f"{value.name}__fed")
            nodes.extend(_rounding_casts(value.name, fed, low[value.name], fresh))
            value.name = fed
    for node in graph.node:
        count += sum(_emulate_graph(inner, scope, fresh) for inner in onnx_graph.subgraphs(node))
        roundings = list(_roundings_of(node, low, fresh))
        count += len(roundings) // 2
        _widen_attributes(node)
        nodes.extend((node, *roundings))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _widen_tensors(graph)
    return count


def _half_types() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.FLOAT16, TensorProto.BFLOAT16


def _roundings_of(node: NodeProto, low: dict[str, int], fresh: onnx_graph.FreshNames) -> Iterator[NodeProto]:
    """Rename the outputs of a node and yield the Casts that round them to their former names."""
    for index, name in enumerate(node.output):
        if name in low and node.op_type not in _EXACT_OPS:
            node.output[index] = fresh.take(f"{name}__exact")
            yield from _rounding_casts(name, node.output[index], low[name], fresh)


def _rounding_casts(name: str, exact: str, kind: int, fresh: onnx_graph.FreshNames) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper

    rounded = fresh.take(f"{name}__16")
    yield helper.make_node("Cast", [exact], [rounded], name=fresh.take(f"{name}__round"), to=kind)
    yield helper.make_node("Cast", [rounded], [name], name=fresh.take(f"{name}__widen"), to=TensorProto.FLOAT)


def _widen_attributes(node: NodeProto) -> None:
    """Change attributes that name a 16-bit type to name float32."""
    from onnx import TensorProto, numpy_helper

    for item in node.attribute:
        if item.name in {"to", "dtype"} and item.i in _half_types():
            item.i = TensorProto.FLOAT
        elif item.name == "value" and item.t.data_type in _half_types():
            item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t).astype("float32"), item.t.name))


def _widen_tensors(graph: GraphProto) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type in _half_types():
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _half_types():
            value.type.tensor_type.elem_type = TensorProto.FLOAT

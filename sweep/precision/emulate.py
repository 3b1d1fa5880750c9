"""A typed graph -> a float32 graph that rounds where the typed one does.

onnxruntime's CPU provider has no bfloat16 products, and computes float16 ones in float32 from end to end: what would
overflow on a GPU does not. Here every tensor that is held in 16 bits is rounded to them, and all arithmetic between
is float32, as in a tensor core. Fused kernels may round less often than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import graph as graphs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, NodeProto

_MOVES = (  # hands on values that are rounded already
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather", "Expand", "Concat"),
    *("Split", "Relu", "MaxPool", "Max", "Min", "Pad", "DepthToSpace", "SpaceToDepth", "Tile", "Where"),
    *("If", "Loop", "Scan"),
)


def emulate(source: Path, target: Path) -> int:
    """Writes ``target``: the graph in ``source`` in float32, rounded wherever that one holds 16 bits.

    Returns:
        Number of tensors that are rounded.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX, or contradicts itself.
    """
    model = graphs.inferred(graphs.load(source))
    rounded = _emulate(model.graph, {})
    graphs.save(model, target)
    return rounded


def _emulate(graph: GraphProto, outer: dict[str, int]) -> int:
    nodes: list[NodeProto] = []
    scope, rounded = graphs.types(graph, outer), 0
    low = {name: kind for name, kind in scope.items() if kind in _low_types()}
    for value in graph.input:
        if value.name in low and value.name not in outer:
            nodes.extend(_rounding(value.name, f"{value.name}__fed", low[value.name]))
            value.name += "__fed"
    for node in graph.node:
        rounded += sum(_emulate(inner, scope) for inner in graphs.subgraphs(node))
        after = list(_after(node, low))
        rounded += len(after) // 2
        _widen(node)
        nodes.extend((node, *after))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _widen_values(graph)
    return rounded


def _low_types() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.FLOAT16, TensorProto.BFLOAT16


def _after(node: NodeProto, low: dict[str, int]) -> Iterator[NodeProto]:
    """Roundings of what ``node`` gives, which is renamed."""
    for index, name in enumerate(node.output):
        if name in low and node.op_type not in _MOVES:
            node.output[index] = f"{name}__exact"
            yield from _rounding(name, f"{name}__exact", low[name])


def _rounding(name: str, exact: str, kind: int) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper

    yield helper.make_node("Cast", [exact], [f"{name}__16"], name=f"{name}__round", to=kind)
    yield helper.make_node("Cast", [f"{name}__16"], [name], name=f"{name}__widen", to=TensorProto.FLOAT)


def _widen(node: NodeProto) -> None:
    """Attributes that name a 16-bit type name float32."""
    from onnx import TensorProto, numpy_helper

    for item in node.attribute:
        if item.name in {"to", "dtype"} and item.i in _low_types():
            item.i = TensorProto.FLOAT
        elif item.name == "value" and item.t.data_type in _low_types():
            item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t).astype("float32"), item.t.name))


def _widen_values(graph: GraphProto) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type in _low_types():
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _low_types():
            value.type.tensor_type.elem_type = TensorProto.FLOAT

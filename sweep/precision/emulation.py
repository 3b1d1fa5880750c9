"""Rewrite a typed graph as a float32 graph that rounds where the typed one does.

onnxruntime's CPU provider has no bfloat16 products, and computes float16 ones in float32 from end to end, so that what
overflows on a GPU does not overflow there. In the emulated graph every tensor that the typed one holds in 16 bits is
rounded to them, and all arithmetic between is float32, as in a tensor core. Fused kernels may round less often than
this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import onnx_graph
from sweep.system import nested_graphs, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, NodeProto, ValueInfoProto

EXACT_OPS = (
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather", "Expand", "Concat"),
    *("Split", "Relu", "MaxPool", "Max", "Min", "Pad", "DepthToSpace", "SpaceToDepth", "Tile", "Where"),
    *("If", "Loop", "Scan"),
)
"""Name the operators that hand on values as they are: from rounded inputs they need no rounding."""


def emulate(source: Path, target: Path, *, float_io: bool = False) -> int:
    """Write a float32 version of a typed graph, rounded wherever that one holds 16 bits.

    Its inputs and outputs keep their names, and float16 ones their type, so that it takes what the typed graph takes.
    bfloat16 ones are float32, because NumPy has no such type to feed.

    Args:
        source: the typed ONNX file.
        target: the file to write.
        float_io: also make float16 inputs and outputs float32.

    Returns:
        Number of tensors that are rounded.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX, or contradicts itself.
    """
    model = onnx_graph.infer_types(onnx_graph.load(source))
    fresh = onnx_graph.FreshNames(model.graph)
    entries, exits = _split_io(model.graph, fresh, float_io=float_io)
    count = _emulate_graph(model.graph, {}, fresh, typed_io=not float_io)
    nodes = [*entries, *model.graph.node, *exits]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx_graph.save(model, target)
    return count


def _split_io(
    graph: GraphProto, fresh: onnx_graph.FreshNames, *, float_io: bool
) -> tuple[list[NodeProto], list[NodeProto]]:
    """Give each 16-bit input and output of the outermost graph a float32 tensor inside it.

    Returns:
        The Casts that go before all nodes and after them, between the two.
    """
    from onnx import TensorProto, helper

    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in stored and _is_half(value)}
    outputs = {value.name: value for value in graph.output if _is_half(value) and value.name not in inputs}
    inside = {name: fresh.take(f"{name}__inside") for name in (*inputs, *outputs)}
    entries, exits = [], []
    for name, value in inputs.items():
        kind = value.type.tensor_type.elem_type
        if kind == TensorProto.FLOAT16 and not float_io:
            cast = fresh.take(f"{name}__fed")
            entries.append(helper.make_node("Cast", [name], [inside[name]], name=cast, to=TensorProto.FLOAT))
        else:
            entries.extend(_rounding_casts(inside[name], name, kind, fresh))
    for name, value in outputs.items():
        to = value.type.tensor_type.elem_type
        to = TensorProto.FLOAT if to != TensorProto.FLOAT16 or float_io else to
        exits.append(helper.make_node("Cast", [inside[name]], [name], name=fresh.take(f"{name}__given"), to=to))
    for nested in nested_graphs(graph):
        for node in nested.node:
            node.input[:] = [inside.get(name, name) for name in node.input]
            node.output[:] = [inside[name] if name in outputs else name for name in node.output]
        for value in (*nested.value_info, *(nested.output if nested is not graph else ())):
            if value.name in inputs or value.name in outputs:
                value.name = inside[value.name]
    for value in (*inputs.values(), *outputs.values()):
        info = graph.value_info.add()
        info.CopyFrom(value)
        info.name = inside[value.name]
    return entries, exits


def _is_half(value: ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _half_types()


def _emulate_graph(graph: GraphProto, outer: dict[str, int], fresh: onnx_graph.FreshNames, *, typed_io: bool) -> int:
    nodes: list[NodeProto] = []
    scope, count = onnx_graph.element_types(graph, outer), 0
    low = {name: kind for name, kind in scope.items() if kind in _half_types()}
    for value in graph.input if outer else ():  # those of the body of a Loop or Scan are bound by their position
        if value.name in low and value.name not in outer:
            fed = fresh.take(f"{value.name}__fed")
            nodes.extend(_rounding_casts(value.name, fed, low[value.name], fresh))
            value.name = fed
    for node in graph.node:
        count += sum(_emulate_graph(inner, scope, fresh, typed_io=False) for inner in subgraphs(node))
        roundings = list(_roundings_of(node, low, fresh))
        count += len(roundings) // 2
        _widen_attributes(node)
        nodes.extend((node, *roundings))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _widen_tensors(graph, typed_io=typed_io)
    return count


def _half_types() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.FLOAT16, TensorProto.BFLOAT16


def _roundings_of(node: NodeProto, low: dict[str, int], fresh: onnx_graph.FreshNames) -> Iterator[NodeProto]:
    """Rename the outputs of a node and yield the Casts that round them to their former names."""
    for index, name in enumerate(node.output):
        if name in low and node.op_type not in EXACT_OPS:
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


def _widen_tensors(graph: GraphProto, *, typed_io: bool) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type in _half_types():
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        kept = (TensorProto.FLOAT16,) if typed_io else ()
        if _is_half(value) and value.type.tensor_type.elem_type not in kept:
            value.type.tensor_type.elem_type = TensorProto.FLOAT

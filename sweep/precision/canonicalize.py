"""Puts an fp32 graph in the form in which every weight can be quantised on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import graph as graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

OPSET = 13
"""The first opset whose QuantizeLinear and DequantizeLinear know a channel axis."""

_MATRIX = 2
_IR_VERSION = 10  # knows every type that a converter writes


def prepared(model: ModelProto, ops: Sequence[str], opset: int = OPSET) -> ModelProto:
    """The same function, in opset ``opset`` or later, every node named, weights that are initialisers of their own.

    Constants become initialisers; Identity and Transpose of an initialiser are folded; a weight that
    several nodes read in different ways (a tied embedding) gets one copy per way. onnxruntime's
    quantiser sees only initialisers, and replaces a quantised one for every node that reads it.

    Args:
        model: an fp32 graph with its weights loaded; used up.
        ops: op types that will be quantised.
        opset: the least opset that the result may have.
    """
    if next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}) < opset:
        model = _lifted(model, opset)
    _fold(model.graph)
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = _free(f"{node.op_type}_{index}", taken)
    _split(model.graph, ops)
    return model


def _lifted(model: ModelProto, opset: int) -> ModelProto:
    """The model in a later opset; large weights sit out the conversion, which copies them several times."""
    from onnx import version_converter

    taken = {
        tensor.name: data
        for tensor, data in zip(graphs.tensors(model.graph), graphs.take_weights(model), strict=True)
        if data is not None
    }
    result: ModelProto = version_converter.convert_version(model, opset)
    for tensor in graphs.tensors(result.graph):
        if tensor.name in taken:
            tensor.raw_data = taken[tensor.name]
    result.ir_version = max(result.ir_version, _IR_VERSION)
    return result


def _fold(graph: GraphProto) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        tensor = None if set(node.output) & outputs else _constant(node, stored)
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            stored[tensor.name] = tensor
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: NodeProto, stored: dict[str, TensorProto]) -> TensorProto | None:
    """What ``node`` yields, if that is known without running the graph."""
    import numpy as np
    from onnx import helper, numpy_helper

    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Constant":
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        (key, value), *_ = values.items()
        if key in kinds:
            return numpy_helper.from_array(np.asarray(value, kinds[key]))
        return _copy(value) if key == "value" else None
    if node.op_type == "Identity" and node.input[0] in stored:
        return _copy(stored[node.input[0]])
    if node.op_type == "Transpose" and node.input[0] in stored:
        array = numpy_helper.to_array(stored[node.input[0]])
        return numpy_helper.from_array(np.ascontiguousarray(array.transpose(values.get("perm"))))
    return None


def _copy(tensor: TensorProto) -> TensorProto:
    result = type(tensor)()
    result.CopyFrom(tensor)
    return result


def _split(graph: GraphProto, ops: Sequence[str]) -> None:
    """Gives each initialiser one copy for every channel axis (or none) along which it is read."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names: dict[tuple[str, int | None], str] = {}
    first: set[str] = set()
    taken = set(stored) | {name for node in graph.node for name in node.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name not in stored:
                continue
            way = (name, channel_axis(node, index, len(stored[name].dims)) if node.op_type in ops else None)
            if way not in names:
                names[way] = _free(f"{name}_axis{way[1]}", taken) if name in first else name
                first.add(name)
                if names[way] != name:
                    graph.initializer.append(_copy(stored[name]))
                    graph.initializer[-1].name = names[way]
            node.input[index] = names[way]
    drop_unread(graph)


def drop_unread(graph: GraphProto) -> None:
    """Leaves out initialisers that nothing reads since they were folded or copied."""
    read = {name for node in graph.node for name in graphs.reads(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def channel_axis(node: NodeProto, index: int, rank: int) -> int | None:
    """The axis of a weight that lives on in the node's output, along which its scales may vary.

    None where operand ``index`` is no such weight: not the right operand, a vector, or a batch of matrices.
    """
    if index != 1 or rank < _MATRIX:
        return None
    if node.op_type == "MatMul":
        return 1 if rank == _MATRIX else None
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return 0 if transposed else 1
    return 1 if node.op_type == "ConvTranspose" else 0

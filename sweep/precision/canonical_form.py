"""Bring an fp32 graph into the form in which every weight can be quantized on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import onnx_graph
from sweep.system import make_node_names_unique, nested_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MIN_OPSET = 13
"""Name the first opset whose QuantizeLinear and DequantizeLinear have a channel axis."""

_MATRIX = 2
_IR_VERSION = 10  # the first whose types include every one that a converter writes


def canonicalize(model: ModelProto, ops: Sequence[str], opset: int = MIN_OPSET) -> ModelProto:
    """Rewrite a model as the same function in a later opset, every node named, each weight an initializer of its own.

    Constants become initializers; Identity and Transpose of an initializer are folded; a weight that several nodes read
    in different ways (a tied embedding) gets one copy per way; declared shapes that the nodes contradict are
    corrected. The quantizer handles initializers only, and replaces a
    quantized one for every node that reads it.

    Args:
        model: an fp32 graph with its weights loaded. It is modified.
        ops: op types that will be quantized.
        opset: the least opset that the result may have.

    Returns:
        The rewritten model.
    """
    version = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), None)
    if version is None:  # it has operators of other domains only, and the converters write standard ones beside them
        model.opset_import.add(domain="", version=opset)
    elif version < opset:
        model = _raise_opset(model, opset)
    _fold_constants(model.graph)
    onnx_graph.correct_shapes(model)
    _name_nodes(model.graph)
    _split_shared_weights(model.graph, ops)
    return model


def _name_nodes(graph: GraphProto) -> None:
    """Name every node, and give the later nodes of one name another, inside control flow too."""
    make_node_names_unique(graph)
    fresh = onnx_graph.FreshNames(graph)
    for inner in nested_graphs(graph):
        for index, node in enumerate(inner.node):
            node.name = node.name or fresh.take(f"{node.op_type}_{index}")


def _raise_opset(model: ModelProto, opset: int) -> ModelProto:
    """Raise the opset; large weights are detached meanwhile, since the converter copies them several times."""
    from onnx import version_converter

    detached = {
        tensor.name: data
        for tensor, data in zip(onnx_graph.initializers(model.graph), onnx_graph.detach_weights(model), strict=True)
        if data is not None
    }
    result: ModelProto = version_converter.convert_version(model, opset)
    for tensor in onnx_graph.initializers(result.graph):
        if tensor.name in detached:
            tensor.raw_data = detached[tensor.name]
    result.ir_version = max(result.ir_version, _IR_VERSION)
    return result


def _fold_constants(graph: GraphProto) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    nodes = []
    for node in graph.node:
        tensor = None if set(node.output) & outputs else _constant_output(node, stored)
        if tensor is None:
            nodes.append(node)
        else:
            tensor.name = node.output[0]
            stored[tensor.name] = tensor
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant_output(node: NodeProto, stored: dict[str, TensorProto]) -> TensorProto | None:
    """Return the output of ``node`` if it is known without running the graph."""
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


def _split_shared_weights(graph: GraphProto, ops: Sequence[str]) -> None:
    """Give each initializer one copy for every channel axis (or none) along which it is read."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names: dict[tuple[str, int | None], str] = {}
    unsplit: set[str] = set()
    fresh = onnx_graph.FreshNames(graph)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name not in stored:
                continue
            use = (name, channel_axis(node, index, len(stored[name].dims)) if node.op_type in ops else None)
            if use not in names:
                names[use] = fresh.take(f"{name}_axis{use[1]}") if name in unsplit else name
                unsplit.add(name)
                if names[use] != name:
                    graph.initializer.append(_copy(stored[name]))
                    graph.initializer[-1].name = names[use]
            node.input[index] = names[use]
    drop_unread_initializers(graph)


def drop_unread_initializers(graph: GraphProto) -> None:
    """Drop initializers that no node reads and no output returns.

    Args:
        graph: the graph. It is modified.
    """
    read = {name for node in graph.node for name in onnx_graph.names_read(node)} | {
        value.name for value in graph.output
    }
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def channel_axis(node: NodeProto, index: int, rank: int) -> int | None:
    """Return the axis of a weight that survives in the node's output, along which its scales may vary.

    Args:
        node: a product.
        index: which of its operands.
        rank: number of dimensions of that operand.

    Returns:
        The axis; None where the operand is no such weight: not the right operand, a vector, or a batch of matrices.
    """
    if index != 1 or rank < _MATRIX:
        return None
    if node.op_type == "MatMul":
        return 1 if rank == _MATRIX else None
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return 0 if transposed else 1
    return 1 if node.op_type == "ConvTranspose" else 0

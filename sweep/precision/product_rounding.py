"""Write versions of an fp32 graph that show what rounding alone does to its outputs.

One rounds the operands of its products to TF32, as a tensor core does; one sums its products in the reverse order, as
another library may; one computes everything between the products in float64. All are plain ONNX, so that any runtime
can run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision import onnx_graph
from sweep.system import nested_graphs, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, NodeProto

_PRODUCT_OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum")
_WIDE_OPS = (  # between the products, with a float64 kernel in onnxruntime's CPU provider
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Neg", "Abs", "Max", "Min", "Sum"),
    *("ReduceSum", "ReduceMean", "Softmax", "LogSoftmax", "LayerNormalization", "BatchNormalization"),
    *("Reshape", "Expand", "Transpose", "Squeeze", "Unsqueeze", "Identity"),
)
_RANDOM_OPS = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_TRAINING_INPUT = 2  # of Dropout, which draws where it is true
_SPLIT = 2.0**13 + 1  # Veltkamp: of fp32's 24 significant bits the upper 11 stay, those of TF32
_CONSTANT = "sweep__tf32_split"
_INDEX = "sweep__reverse_{}"
_FIRST = -(2**63)  # what ONNX calls the end of a slice that runs backwards over a whole axis


def random_ops(source: Path) -> list[str]:
    """Return the names of the operators of a file that draw random numbers, those inside control flow included.

    Args:
        source: an ONNX file; its external weights are not read.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX.
    """
    model = onnx_graph.load(source, weights=False)
    nodes = [node for graph in nested_graphs(model.graph) for node in graph.node]
    return sorted({node.op_type for node in nodes if _draws(node)})


def _draws(node: NodeProto) -> bool:
    if node.op_type == "Dropout":
        return len(node.input) > _TRAINING_INPUT and bool(node.input[_TRAINING_INPUT])
    return node.op_type in _RANDOM_OPS


def round_products(source: Path, target: Path) -> int:
    """Write a version whose products take operands of 10 mantissa bits, rounded to nearest, and sum in fp32.

    The rounding is Veltkamp's splitting, three fp32 operations that an optimizer may fold: the file has to run as it
    is, unoptimized.

    Args:
        source: an ONNX file.
        target: the file to write.

    Returns:
        Number of operands that are rounded.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX, or contradicts itself.
    """
    import numpy as np
    from onnx import numpy_helper

    model = onnx_graph.infer_types(onnx_graph.load(source))
    count = _round_graph(model.graph, {})
    model.graph.initializer.append(numpy_helper.from_array(np.array(_SPLIT, np.float32), _CONSTANT))
    onnx_graph.save(model, target)
    return count


def _round_graph(graph: GraphProto, outer: dict[str, int]) -> int:
    from onnx import TensorProto

    nodes: list[NodeProto] = []
    scope, rounded, count = onnx_graph.element_types(graph, outer), set[str](), 0
    for node in graph.node:
        count += sum(_round_graph(inner, scope) for inner in subgraphs(node))
        if node.op_type in _PRODUCT_OPS:
            for index, name in enumerate(node.input[:2]):
                if scope.get(name) != TensorProto.FLOAT:
                    continue
                node.input[index] = f"{name}__tf32"
                if name not in rounded:
                    nodes.extend(_rounding(name))
                    rounded.add(name)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return count + len(rounded)


def _rounding(name: str) -> Iterator[NodeProto]:
    from onnx import helper

    yield helper.make_node("Mul", [name, _CONSTANT], [f"{name}__scaled"])
    yield helper.make_node("Sub", [f"{name}__scaled", name], [f"{name}__rest"])
    yield helper.make_node("Sub", [f"{name}__scaled", f"{name}__rest"], [f"{name}__tf32"])


def reverse_sums(source: Path, target: Path) -> int:
    """Write a version whose products sum in the reverse order: the same function in real numbers.

    Grouped convolutions stay as they are.

    Args:
        source: an ONNX file.
        target: the file to write.

    Returns:
        Number of products that sum in the reverse order; the file is worthless where it is 0.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX.
    """
    import numpy as np
    from onnx import numpy_helper

    model = onnx_graph.load(source)
    count = sum(_reverse_graph(graph) for graph in list(nested_graphs(model.graph)))
    for value in (-2, -1, 0, 1, _FIRST):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), _INDEX.format(value)))
    onnx_graph.save(model, target)
    return count


def _reverse_graph(graph: GraphProto) -> int:
    from onnx import helper

    nodes: list[NodeProto] = []
    count = 0
    for node in graph.node:
        axes = _summed_axes(node)
        count += axes is not None
        for index, axis in enumerate(axes or ()):
            name, reverse = node.input[index], f"{node.output[0]}__reverse{index}"
            bounds = [_INDEX.format(value) for value in (-1, _FIRST, axis, -1)]
            nodes.append(helper.make_node("Slice", [name, *bounds], [reverse]))
            node.input[index] = reverse
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _summed_axes(node: NodeProto) -> tuple[int, int] | None:
    """Return the axis of each operand that a product sums over; None where it cannot be reversed."""
    values = {item.name: item.i for item in node.attribute}
    if node.op_type == "MatMul":
        return -1, -2
    if node.op_type == "Gemm":
        return (0 if values.get("transA") else 1), (1 if values.get("transB") else 0)
    if values.get("group", 1) != 1:
        return None
    return {"Conv": (1, 1), "ConvTranspose": (1, 0)}.get(node.op_type)


def widen_sums(source: Path, target: Path) -> int:
    """Write a version that computes sums, means, normalizations and element-wise operators in float64.

    Products stay in float32, and so do operators for which onnxruntime's CPU provider has no float64 kernel. What
    cancels between two large sums keeps 53 bits, where another float32 library keeps other 24 than this one.

    Args:
        source: an ONNX file.
        target: the file to write.

    Returns:
        Number of nodes that compute in float64; the file is worthless where it is 0.

    Raises:
        ConversionError: ``source`` cannot be read as ONNX, or contradicts itself.
    """
    model = onnx_graph.infer_types(onnx_graph.load(source))
    count = _widen_graph(model.graph)
    onnx_graph.save(model, target)
    return count


def _widen_graph(graph: GraphProto) -> int:
    """Widen the nodes of the outermost graph; a tensor between two of them stays in float64."""
    from onnx import TensorProto, helper

    scope, fresh = onnx_graph.element_types(graph), onnx_graph.FreshNames(graph)
    wide: dict[str, str] = {}
    nodes: list[NodeProto] = []
    count = 0
    for node in graph.node:
        floats = {name for name in node.output if name and scope.get(name) == TensorProto.FLOAT}
        if not floats or node.op_type not in _WIDE_OPS or node.domain not in {"", "ai.onnx"} or any(subgraphs(node)):
            nodes.append(node)
            continue
        count += 1
        for index, name in enumerate(node.input):
            if scope.get(name) != TensorProto.FLOAT:
                continue
            if name not in wide:
                wide[name] = fresh.take(f"{name}__wide")
                nodes.append(helper.make_node("Cast", [name], [wide[name]], to=TensorProto.DOUBLE))
            node.input[index] = wide[name]
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in floats:
                node.output[index] = wide[name] = fresh.take(f"{name}__wide")
                nodes.append(helper.make_node("Cast", [wide[name]], [name], to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return count

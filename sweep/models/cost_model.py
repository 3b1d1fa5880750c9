"""Compute the cost of a network: its weights, and the multiply-adds of one sample.

``sweep.system.operator_cost`` counts those of a node.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sweep.models import onnx_file
from sweep.system import UncountableError, multiply_adds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from sweep.spec import JsonDict

    Shape = tuple[int, ...]

COST_REVISION = 1
"""Raise it when the same graph is counted otherwise."""

_SMALL = 4096  # elements of a stored tensor that shape inference may want to read
_DECIDING = ("equation", "transA")  # attributes that decide how many products there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Hold what a network costs.

    Attributes:
        parameters: number of weights (``sweep.models.parameters``).
        gmacs: multiply-adds of one sample, 1e9; None where they cannot be counted.
    """

    parameters: int
    gmacs: float | None

    def plain(self) -> JsonDict:
        """Return the cost as the record holds it."""
        return asdict(self)


def cost(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    """Count the multiply-adds and parameters of a float32 graph; its weights are not computed with.

    Args:
        path: the ONNX file.
        shapes: shape of each input with one sample in it.

    Raises:
        ModelError: the file cannot be read.
    """
    counted = _macs(path, shapes)
    return Cost(parameters=onnx_file.parameters(path), gmacs=None if counted is None else counted / 1e9)


def _macs(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    if model.functions or any(node.domain not in {"", "ai.onnx"} for node in model.graph.node):
        return None  # what such an operator computes is its own affair
    try:
        tensor_shapes = _shapes(model, shapes)
        return sum(_node_macs(node, tensor_shapes) for node in model.graph.node)
    except (UncountableError, onnx.shape_inference.InferenceError):
        return None
    except (ValueError, IndexError):  # an element type that onnx lacks, or operands of a rank that the operator has not
        return None


def _shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Shape]:
    """Return the shape of every tensor whose sizes are all known, with the inputs at ``shapes``."""
    import onnx

    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _SMALL:  # its values are no shape, and inference would copy them
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    _bind(model.graph, shapes)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    return {value.name: shape for value in values if (shape := _shape(value)) is not None} | stored


def _bind(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Fix the shapes of the inputs, and drop those of all other tensors, which hold symbols."""
    for value in graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in shapes[value.name]:
                dims.add(dim_value=size)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _node_macs(node: onnx.NodeProto, tensor_shapes: Mapping[str, Shape]) -> int:
    """Count the multiply-adds of one node.

    Raises:
        UncountableError: it has some, and a shape that decides how many is not known.
    """
    from onnx import helper

    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute if item.name in _DECIDING}
    inputs = [tensor_shapes.get(name) for name in node.input]
    output = tensor_shapes.get(node.output[0]) if node.output else None
    return multiply_adds(node.op_type, inputs, output, attributes)

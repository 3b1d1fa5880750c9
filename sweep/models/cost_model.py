"""Compute the cost of a network: its weights, and the multiply-adds of one sample.

``sweep.system.operator_cost`` counts those of a node.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sweep.models import onnx_file
from sweep.system import UncountableError, multiply_adds, onnx_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from sweep.spec import JsonDict

    Shape = tuple[int, ...]

COST_REVISION = 1
"""Raise it when the same graph is counted otherwise."""

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
    types = onnx_shapes.infer_types(model, shapes)
    return {name: item.shape for name, item in types.items() if item.shape is not None}


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

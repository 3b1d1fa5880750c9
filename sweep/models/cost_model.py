"""Compute the cost of a network: its weights, and the multiply-adds of one sample.

Counted as the literature counts: the products of convolutions, matrix products and recurrent layers; norms,
activations, pooling and sums are left out. A multiply-add (MAC) is one; papers that say FLOPs often mean it too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweep.models import onnx_file
from sweep.system import onnx_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import onnx

    from sweep.spec import JsonDict

    Shape = tuple[int, ...]

COST_REVISION = 1
"""Raise it when the same graph is counted otherwise."""

_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul")
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # where the weights stand
_UNCOUNTED = frozenset({"Attention", "DeformConv", "DFT", "STFT", "If", "Loop", "Scan", "SequenceMap"})
_PAIR = 2


class _UncountableError(Exception):
    """Report that the graph holds products whose number is not known."""


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
    except (_UncountableError, onnx.shape_inference.InferenceError):
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
        _UncountableError: it has some, and a shape that decides how many is not known.
    """
    if node.op_type in _UNCOUNTED:
        raise _UncountableError
    count = _counters().get(node.op_type)
    return 0 if count is None else count(node, _Operands(node, tensor_shapes))


class _Operands:
    """Hold the shapes of a node's operands, and its attributes."""

    def __init__(self, node: onnx.NodeProto, tensor_shapes: Mapping[str, Shape]) -> None:
        self._node, self._tensor_shapes = node, tensor_shapes

    def input(self, index: int) -> Shape:
        """Return the shape of an input."""
        return self._of(self._node.input, index)

    def output(self) -> Shape:
        """Return the shape of the first output."""
        return self._of(self._node.output, 0)

    def attribute(self, name: str, default: Any) -> Any:
        """Return the value of an attribute."""
        from onnx import helper

        return next((helper.get_attribute_value(item) for item in self._node.attribute if item.name == name), default)

    def _of(self, names: Any, index: int) -> Shape:
        if index >= len(names) or names[index] not in self._tensor_shapes:
            raise _UncountableError
        return self._tensor_shapes[names[index]]


def _counters() -> dict[str, Callable[[onnx.NodeProto, _Operands], int]]:
    return {
        **dict.fromkeys(_CONVOLUTIONS, _convolution),
        **dict.fromkeys(_PRODUCTS, _product),
        **dict.fromkeys(_RECURRENT, _recurrent),
        "ConvTranspose": lambda _, operands: math.prod(operands.input(0)) * math.prod(operands.input(1)[1:]),
        "Gemm": _gemm,
        "Einsum": _einsum,
    }


def _convolution(node: onnx.NodeProto, operands: _Operands) -> int:
    """Sum over the window of each output element: weights are [c_out, c_in / groups, *window]."""
    return math.prod(operands.output()) * math.prod(operands.input(_CONVOLUTIONS[node.op_type])[1:])


def _product(node: onnx.NodeProto, operands: _Operands) -> int:
    """Sum over the last axis of the left operand for each element of the result.

    The result of a vector's product has lost an axis, and still has as many elements.
    """
    del node
    return math.prod(operands.output()) * operands.input(0)[-1]


def _gemm(node: onnx.NodeProto, operands: _Operands) -> int:
    del node
    rows, columns = operands.input(0)
    return math.prod(operands.output()) * (rows if operands.attribute("transA", 0) else columns)


def _einsum(node: onnx.NodeProto, operands: _Operands) -> int:
    """Count one product for every combination of all indices of two operands."""
    equation = operands.attribute("equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) != len(node.input) or len(terms) > _PAIR or "." in equation:
        raise _UncountableError
    if len(terms) < _PAIR:
        return 0
    sizes = dict(_index_sizes(terms, operands))
    return math.prod(sizes.values())


def _index_sizes(terms: list[str], operands: _Operands) -> Iterator[tuple[str, int]]:
    for index, labels in enumerate(terms):
        shape = operands.input(index)
        if len(labels) != len(shape):
            raise _UncountableError
        yield from zip(labels, shape, strict=True)


def _recurrent(node: onnx.NodeProto, operands: _Operands) -> int:
    """Multiply by W [directions, gates * hidden, inputs] and R [directions, gates * hidden, hidden] at each step."""
    del node
    first, second = operands.input(0)[:2]  # steps and samples, in either order
    return first * second * (math.prod(operands.input(1)) + math.prod(operands.input(2)))

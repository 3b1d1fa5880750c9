"""Count the multiply-adds of an ONNX node by the shapes of its operands.

Counted as the literature counts: the products of convolutions, matrix products and recurrent layers; norms,
activations, pooling and sums are left out. A multiply-add (MAC) is one; papers that say FLOPs often mean it too.
The cost of a network (``sweep.models``) and that of a layer (``sweep.analysis.layers``) are counted by these rules.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Shape = tuple[int, ...]

_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul")
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # where the weights stand
_UNCOUNTED = frozenset({"Attention", "DeformConv", "DFT", "STFT", "If", "Loop", "Scan", "SequenceMap"})
_PAIR = 2


class UncountableError(Exception):
    """Report that a node has products whose number is not known."""


def multiply_adds(
    op: str, inputs: Sequence[Shape | None], output: Shape | None, attributes: Mapping[str, Any] | None = None
) -> int:
    """Count the multiply-adds of one node.

    Args:
        op: operator of ONNX's own domain.
        inputs: shape of each input; None where it is not known, or the input is left out.
        output: shape of the first output.
        attributes: attributes of the node.

    Raises:
        UncountableError: it has some, and a shape that decides how many is not known.
    """
    if op in _UNCOUNTED:
        raise UncountableError
    count = _counters().get(op)
    return 0 if count is None else count(_Operands(op, inputs, output, attributes or {}))


def multiplies(op: str) -> bool:
    """Return whether an operator is a convolution, a matrix product or a recurrent layer."""
    return op in _counters() or op in _UNCOUNTED


class _Operands:
    """Hold the shapes of a node's operands, and its attributes."""

    def __init__(
        self, op: str, inputs: Sequence[Shape | None], output: Shape | None, attributes: Mapping[str, Any]
    ) -> None:
        self.op, self.count = op, len(inputs)
        self._inputs, self._output, self._attributes = inputs, output, attributes

    def input(self, index: int) -> Shape:
        """Return the shape of an input."""
        return self._known(self._inputs[index] if index < self.count else None)

    def output(self) -> Shape:
        """Return the shape of the first output."""
        return self._known(self._output)

    def attribute(self, name: str, default: Any) -> Any:
        """Return the value of an attribute."""
        return self._attributes.get(name, default)

    @staticmethod
    def _known(shape: Shape | None) -> Shape:
        if shape is None:
            raise UncountableError
        return shape


def _counters() -> dict[str, Callable[[_Operands], int]]:
    return {
        **dict.fromkeys(_CONVOLUTIONS, _convolution),
        **dict.fromkeys(_PRODUCTS, _product),
        **dict.fromkeys(_RECURRENT, _recurrent),
        "ConvTranspose": lambda operands: math.prod(operands.input(0)) * math.prod(operands.input(1)[1:]),
        "Gemm": _gemm,
        "Einsum": _einsum,
    }


def _convolution(operands: _Operands) -> int:
    """Sum over the window of each output element: weights are [c_out, c_in / groups, *window]."""
    return math.prod(operands.output()) * math.prod(operands.input(_CONVOLUTIONS[operands.op])[1:])


def _product(operands: _Operands) -> int:
    """Sum over the last axis of the left operand for each element of the result.

    The result of a vector's product has lost an axis, and still has as many elements.
    """
    return math.prod(operands.output()) * operands.input(0)[-1]


def _gemm(operands: _Operands) -> int:
    rows, columns = operands.input(0)
    return math.prod(operands.output()) * (rows if operands.attribute("transA", 0) else columns)


def _einsum(operands: _Operands) -> int:
    """Count one product for every combination of all indices of two operands."""
    equation = operands.attribute("equation", "")
    equation = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) != operands.count or len(terms) > _PAIR or "." in equation:
        raise UncountableError
    if len(terms) < _PAIR:
        return 0
    sizes = dict(_index_sizes(terms, operands))
    return math.prod(sizes.values())


def _index_sizes(terms: list[str], operands: _Operands) -> Iterator[tuple[str, int]]:
    for index, labels in enumerate(terms):
        shape = operands.input(index)
        if len(labels) != len(shape):
            raise UncountableError
        yield from zip(labels, shape, strict=True)


def _recurrent(operands: _Operands) -> int:
    """Multiply by W [directions, gates * hidden, inputs] and R [directions, gates * hidden, hidden] at each step."""
    first, second = operands.input(0)[:2]  # steps and samples, in either order
    return first * second * (math.prod(operands.input(1)) + math.prod(operands.input(2)))

"""Find the nodes that have to stay in float32 because a tensor at them is too large for float16."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.precision.cast import FP16_MAX
from sweep.precision.notes import count_of, first_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

LIMIT = FP16_MAX / 2
"""Set the threshold at half of float16's range: other inputs than the calibration's may well give twice as much."""


def overflowing_nodes(model: ModelProto, largest: Mapping[str, float]) -> tuple[str, ...]:
    """Name the nodes that produce or read a tensor beyond ``LIMIT``.

    A tensor that is infinite in float32 already is left alone: float16 holds infinity as well. Tensors inside control
    flow are not examined.

    Args:
        model: a graph with every node named.
        largest: the largest |x| of its tensors by name.

    Returns:
        Node names, in graph order.
    """
    overflowing = {name for name, size in largest.items() if LIMIT < size < math.inf}
    return tuple(node.name for node in model.graph.node if overflowing & {*node.input, *node.output})


def guard_notes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Word the note about guarded nodes.

    Args:
        names: of the guarded nodes.

    Returns:
        One note, or none where there are no such nodes.
    """
    if not names:
        return ()
    return (f"{count_of(len(names), 'node')} kept in fp32 by the range guard: {first_names(names)}",)

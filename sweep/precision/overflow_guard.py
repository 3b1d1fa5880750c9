"""Which nodes have to stay in float32 because what they touch is too large for float16."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.precision.cast import FP16_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

LIMIT = FP16_MAX / 2
"""Half of float16's range: other inputs than the calibration's may well give twice as much."""

_SHOWN = 5


def guarded(model: ModelProto, largest: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the nodes that make or read a tensor beyond ``LIMIT``, in graph order.

    A tensor that is infinite in float32 already is left alone: float16 holds infinity as well. Tensors inside control
    flow are not seen.

    Args:
        model: a graph with every node named.
        largest: the largest |x| of its tensors.
    """
    beyond = {name for name, size in largest.items() if LIMIT < size < math.inf}
    return tuple(node.name for node in model.graph.node if beyond & {*node.input, *node.output})


def note(names: tuple[str, ...]) -> tuple[str, ...]:
    """What to tell of guarded nodes; nothing for none."""
    if not names:
        return ()
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return (f"{len(names)} node{'s' * (len(names) > 1)} kept in fp32 by the range guard: {shown}",)

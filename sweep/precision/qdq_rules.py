"""TensorRT's rules on explicit quantisation, checked on the graph that is about to be handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision.canonicalize import channel_axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from onnx import ModelProto, NodeProto


def broken(model: ModelProto, dtype: str, *, per_channel: bool) -> list[str]:
    """What in a Q/DQ graph TensorRT would refuse or round badly; empty when all is well.

    Zero points are zeros of the type (so nothing is dequantised from int32), scales finite and positive, and
    weights are scaled along the channel that their node keeps.

    Args:
        model: a graph with its weights loaded.
        dtype: ``int8`` or ``fp8``.
        per_channel: whether weights are to have a scale per channel.

    Source:
        TensorRT developer guide, "Working with Quantized Types": symmetric only, zero point 0.
    """
    from onnx import numpy_helper

    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    wanted = {"int8": "int8", "fp8": "float8_e4m3fn"}[dtype]
    makers = {name: node for node in model.graph.node for name in node.output}
    found = [line for node in model.graph.node for line in _pair(node, stored, wanted)]
    for node in model.graph.node if per_channel else ():
        found += _weights(node, makers, stored)
    return found


def _pair(node: NodeProto, stored: dict[str, np.ndarray], wanted: str) -> Iterator[str]:
    import numpy as np

    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    scale, zero = (*(stored.get(name) for name in node.input[1:]), None)[:2]
    if zero is None or zero.dtype.name != wanted:
        yield f"{node.name} works on {'uint8' if zero is None else zero.dtype}, not {wanted}"
    elif zero.astype(np.float32).any():
        yield f"{node.name} has a zero point other than 0"
    if scale is None or not np.all(np.isfinite(scale.astype(np.float32)) & (scale > 0)):
        yield f"{node.name} has a scale that is not a positive number"


def _weights(node: NodeProto, makers: dict[str, NodeProto], stored: dict[str, np.ndarray]) -> Iterator[str]:
    for index, name in enumerate(node.input[:2]):
        pair = makers.get(name)
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in stored:
            continue
        weight = stored[pair.input[0]]
        axis = channel_axis(node, index, weight.ndim)
        given = next((item.i for item in pair.attribute if item.name == "axis"), 1) % weight.ndim
        if axis is None or given != axis or stored[pair.input[1]].shape != (weight.shape[axis],):
            yield f"the weight of {node.name} is not scaled along axis {axis}"

"""Check TensorRT's rules for explicit quantization on a graph before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.precision.canonical_form import channel_axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from onnx import ModelProto, NodeProto


def find_violations(model: ModelProto, dtype: str, *, per_channel: bool) -> list[str]:
    """Find what TensorRT would refuse or round badly in a Q/DQ graph.

    Zero points must be zeros of the type (so nothing is dequantized from int32), scales finite and positive, and
    weights scaled along the channel that their node keeps.

    Args:
        model: a graph with its weights loaded.
        dtype: ``int8`` or ``fp8``.
        per_channel: whether weights must have a scale per channel.

    Returns:
        One line per violation; empty where the graph follows the rules.

    Source:
        TensorRT developer guide, "Working with Quantized Types": symmetric only, zero point 0.
    """
    from onnx import numpy_helper

    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    zero_point_dtype = {"int8": "int8", "fp8": "float8_e4m3fn"}[dtype]
    producers = {name: node for node in model.graph.node for name in node.output}
    violations = [line for node in model.graph.node for line in _pair_violations(node, stored, zero_point_dtype)]
    for node in model.graph.node if per_channel else ():
        violations += _weight_violations(node, producers, stored)
    return violations


def _pair_violations(node: NodeProto, stored: dict[str, np.ndarray], zero_point_dtype: str) -> Iterator[str]:
    import numpy as np

    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    scale, zero = (*(stored.get(name) for name in node.input[1:]), None)[:2]
    if zero is None or zero.dtype.name != zero_point_dtype:
        yield f"{node.name} works on {'uint8' if zero is None else zero.dtype}, not {zero_point_dtype}"
    elif zero.astype(np.float32).any():
        yield f"{node.name} has a zero point other than 0"
    if scale is None or not np.all(np.isfinite(scale.astype(np.float32)) & (scale > 0)):
        yield f"{node.name} has a scale that is not a positive number"


def _weight_violations(
    node: NodeProto, producers: dict[str, NodeProto], stored: dict[str, np.ndarray]
) -> Iterator[str]:
    for index, name in enumerate(node.input[:2]):
        pair = producers.get(name)
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in stored:
            continue
        weight = stored[pair.input[0]]
        axis = channel_axis(node, index, weight.ndim)
        declared_axis = next((item.i for item in pair.attribute if item.name == "axis"), 1) % weight.ndim
        if axis is None or declared_axis != axis or stored[pair.input[1]].shape != (weight.shape[axis],):
            yield f"the weight of {node.name} is not scaled along axis {axis}"

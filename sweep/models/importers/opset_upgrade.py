"""Upgrade files of an old opset to the least one that the rest of `sweep` reads, and report it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.errors import ModelError, shorten
from sweep.system import save_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

LEAST_OPSET = 13
"""Below it QuantizeLinear has no channel axis, and Softmax, Squeeze and ReduceSum mean other things or are written
in other ways. TensorRT's parser says 9 and later (its documentation, operators.md). Types that came later (fp8 with 19,
bf16 convolutions with 22) lift the graph further, when they are asked for."""

_LARGE = 1 << 16  # elements of a weight that waits outside while the graph is converted
_IR_VERSION = 8
SINGLE_FILE_BYTES = 1_500_000_000


def upgrade(path: Path, target: Path) -> None:
    """Write the model of ``path`` to ``target``: in ``LEAST_OPSET`` or later, its weights no inputs.

    Raises:
        ModelError: it cannot be upgraded; the converter's word.
    """
    import onnx
    from onnx import version_converter

    try:
        model = onnx.load(path)
        opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
        if opset < LEAST_OPSET:
            waiting = _take_large_weights(model.graph)
            model = version_converter.convert_version(model, LEAST_OPSET)
            for tensor in model.graph.initializer:
                if tensor.name in waiting:
                    tensor.CopyFrom(waiting[tensor.name])
        model.ir_version = max(model.ir_version, _IR_VERSION)
        _hide_weights(model.graph)
        size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
        beside = size > SINGLE_FILE_BYTES
        save_onnx(model, target, f"{target.name}.data" if beside else None)
        onnx.checker.check_model(target)
    except Exception as error:  # the converter raises whatever its C++ raises
        reason = shorten(str(error))
        raise ModelError(
            f"{path} cannot be upgraded to opset {LEAST_OPSET} by onnx.version_converter: {reason}; export it again "
            f"with opset {LEAST_OPSET} or later"
        ) from error


def _hide_weights(graph: onnx.GraphProto) -> None:
    """Take weights out of the inputs: what is fed may change, so no library folds it and no converter types it."""
    stored = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(fed)


def _take_large_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Detach the values of large weights and return them by name: the converter copies its input several times."""
    import onnx

    weights: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _LARGE:
            weights[tensor.name] = onnx.TensorProto()
            weights[tensor.name].CopyFrom(tensor)
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return weights

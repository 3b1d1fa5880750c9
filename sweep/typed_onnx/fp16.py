"""fp32 graph -> fp16 graph, with onnxruntime's converter."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sweep.typed_onnx import graph as graphs
from sweep.typed_onnx.tools import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

_FP16_MAX = 65504.0


def to_fp16(model: ModelProto, *, keep_io: bool) -> tuple[ModelProto, tuple[str, ...]]:
    """Turns every float32 tensor of ``model`` into float16, except around ops that have no float16.

    Args:
        model: an fp32 graph with its weights loaded; used up.
        keep_io: float32 inputs and outputs stay, behind a Cast.

    Returns:
        The graph, nodes in topological order, and what to tell about it.

    Source:
        ``onnxruntime.transformers.float16``; what it leaves undone (order, repeated casts) is done here.
    """
    model = graphs.inferred(model)
    notes = (*_kept(model), *_clipped(model))
    with quiet():
        from onnxruntime.transformers.float16 import convert_float_to_float16

        result: ModelProto = convert_float_to_float16(model, keep_io_types=keep_io, disable_shape_infer=True)
    for graph in graphs.graphs(result.graph):
        del graph.value_info[:]  # the converter leaves float32 behind in some, and inference finds them all again
    graphs.order(result.graph)
    return result, notes


def _kept(model: ModelProto) -> list[str]:
    """A note on the float32 nodes that the converter leaves alone."""
    from onnx import TensorProto
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    kept = Counter(
        node.op_type
        for node, scope in graphs.typed_nodes(model.graph)
        if node.op_type in DEFAULT_OP_BLOCK_LIST
        and any(scope.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
    )
    return [f"{_plural(kept.total(), 'node')} kept in fp32: {', '.join(sorted(kept))}"] if kept else []


def _clipped(model: ModelProto) -> list[str]:
    """A note on finite weights beyond the range of float16, which the converter clips."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    clipped = 0
    for tensor in graphs.tensors(model.graph):
        if tensor.data_type == TensorProto.FLOAT:
            size = np.abs(numpy_helper.to_array(tensor))
            clipped += bool(np.any((size > _FP16_MAX) & np.isfinite(size)))
    return [f"{_plural(clipped, 'weight')} clipped to +-65504"] if clipped else []


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

"""2:4 structured sparsity by magnitude: of each four weights that are summed over, the two smallest become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import graph as graphs
from sweep.precision.canonicalize import prepared

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from onnx import ModelProto, NodeProto

OPS = ("Conv", "MatMul", "Gemm")
"""The op types whose weights TensorRT has sparse kernels for."""

_GROUP, _KEPT = 4, 2
_MATRIX = 2


def prune(source: Path, target: Path) -> int:
    """Writes ``target``: the fp32 graph in ``source``, pruned.

    Returns:
        Number of weights (tensors) that were pruned.

    Raises:
        ConversionError: ``source`` cannot be read, or holds no weight that can be pruned.
    """
    model, count = prune_2_4(graphs.load(source))
    if not count:
        raise ConversionError(
            f"sparsity=force asks to prune {source.name} 2:4, but none of its {', '.join(OPS)} weights is a float32 "
            "constant that sums over a multiple of 4 values: leave sparsity out for this model"
        )
    graphs.save(model, target)
    return count


def prune_2_4(model: ModelProto) -> tuple[ModelProto, int]:
    """Prunes the weights of Conv along its input channels, of MatMul and Gemm along what they sum over.

    Args:
        model: an fp32 graph with its weights loaded; used up.

    Returns:
        The graph and the number of weights pruned. Those that do not sum over a multiple of 4 stay dense.

    Source:
        TensorRT developer guide, "Structured Sparsity": for each output channel and each spatial position of the
        kernel, every four input channels hold at least two zeros.
    """
    from onnx import TensorProto, numpy_helper

    model = prepared(model, OPS)
    stored = {item.name: item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}
    pruned = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input[:2]):
            axis = _summed_axis(node, index, len(stored[name].dims)) if name in stored and name not in pruned else None
            if axis is not None and stored[name].dims[axis] % _GROUP == 0:
                values = numpy_helper.to_array(stored[name])
                stored[name].CopyFrom(numpy_helper.from_array(_pruned(values, axis), name))
                pruned.add(name)
    return model, len(pruned)


def _summed_axis(node: NodeProto, index: int, rank: int) -> int | None:
    """The axis of a weight that its node sums over; None where operand ``index`` is no weight."""
    if node.op_type == "Conv" and index == 1:
        return 1
    if node.op_type == "MatMul" and rank >= _MATRIX:
        return rank - 2 if index else rank - 1
    if node.op_type == "Gemm" and index == 1:
        return 1 if any(item.name == "transB" and item.i for item in node.attribute) else 0
    return None


def _pruned(values: np.ndarray, axis: int) -> np.ndarray:
    import numpy as np

    moved = np.array(np.moveaxis(values, axis, -1), order="C")
    groups = moved.reshape(-1, _GROUP)
    smallest = np.argsort(np.abs(groups), axis=1, kind="stable")[:, : _GROUP - _KEPT]
    np.put_along_axis(groups, smallest, 0, axis=1)
    return np.ascontiguousarray(np.moveaxis(groups.reshape(moved.shape), -1, axis))

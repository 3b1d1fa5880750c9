"""Apply 2:4 structured sparsity by magnitude: of each four weights that are summed over, zero the two smallest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import onnx_graph
from sweep.precision.canonical_form import canonicalize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from onnx import ModelProto, NodeProto

SPARSE_OPS = ("Conv", "MatMul", "Gemm")
"""List the op types whose weights TensorRT has sparse kernels for."""

_GROUP, _NONZERO = 4, 2
_MATRIX = 2


def sparsify(source: Path, target: Path) -> int:
    """Write the fp32 graph of a file with 2:4 sparse weights.

    Args:
        source: the fp32 ONNX file.
        target: the file to write.

    Returns:
        Number of weight tensors that became sparse.

    Raises:
        ConversionError: ``source`` cannot be read, or holds no weight that can be made sparse.
    """
    model, count = sparsify_model(onnx_graph.load(source))
    if not count:
        raise ConversionError(
            f"sparsity=force asks to prune {source.name} 2:4, but none of its {', '.join(SPARSE_OPS)} weights is a "
            "float32 "
            "constant that sums over a multiple of 4 values: leave sparsity out for this model"
        )
    onnx_graph.save(model, target)
    return count


def sparsify_model(model: ModelProto) -> tuple[ModelProto, int]:
    """Make weights sparse: of Conv along their input channels, of MatMul and Gemm along the axis they sum over.

    Args:
        model: an fp32 graph with its weights loaded. It is modified.

    Returns:
        The graph and the number of weights that became sparse. Those that do not sum over a multiple of 4 stay dense.

    Source:
        TensorRT developer guide, "Structured Sparsity": for each output channel and each spatial position of the
        kernel, every four input channels hold at least two zeros.
    """
    from onnx import TensorProto, numpy_helper

    model = canonicalize(model, SPARSE_OPS)
    stored = {item.name: item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}
    sparse = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input[:2]):
            axis = (
                _reduction_axis(node, index, len(stored[name].dims)) if name in stored and name not in sparse else None
            )
            if axis is not None and stored[name].dims[axis] % _GROUP == 0:
                values = numpy_helper.to_array(stored[name])
                stored[name].CopyFrom(numpy_helper.from_array(_zero_smallest(values, axis), name))
                sparse.add(name)
    return model, len(sparse)


def _reduction_axis(node: NodeProto, index: int, rank: int) -> int | None:
    """Return the axis of a weight that its node sums over; None where operand ``index`` is no weight."""
    if node.op_type == "Conv" and index == 1:
        return 1
    if node.op_type == "MatMul" and rank >= _MATRIX:
        return rank - 2 if index else rank - 1
    if node.op_type == "Gemm" and index == 1:
        return 1 if any(item.name == "transB" and item.i for item in node.attribute) else 0
    return None


def _zero_smallest(values: np.ndarray, axis: int) -> np.ndarray:
    import numpy as np

    moved = np.array(np.moveaxis(values, axis, -1), order="C")
    groups = moved.reshape(-1, _GROUP)
    smallest = np.argsort(np.abs(groups), axis=1, kind="stable")[:, : _GROUP - _NONZERO]
    np.put_along_axis(groups, smallest, 0, axis=1)
    return np.ascontiguousarray(np.moveaxis(groups.reshape(moved.shape), -1, axis))

"""Q/DQ pairs as onnxruntime's quantiser leaves them -> pairs of the asked type, weights stored in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.typed_onnx.lower import rounded
from sweep.typed_onnx.weights import drop_unread

if TYPE_CHECKING:
    import numpy as np
    from onnx import GraphProto, NodeProto

    from sweep.axes import Precision

LARGEST = {"int8": 127.0, "fp8": 448.0}
"""The largest magnitude of symmetric int8 and of float8 e4m3."""

LEAST_FP16_SCALE = 6.2e-5
"""Below float16's smallest normal number a scale loses its bits, and TensorRT refuses one that is 0."""

_LEAST_SCALE = 1e-12


def fold(graph: GraphProto, precision: Precision) -> None:
    """Retypes every pair of ``graph`` in place, and stores the weights that it finds behind one.

    A weight's QuantizeLinear goes: it becomes an initialiser of the type, a quarter of the file for the same
    engine. Scales are the ones that the rest's type can hold, so that a later cast changes none of them.

    Args:
        graph: pairs in int8 with int8 zero points, weights float32 behind a whole pair.
        precision: its ``dtype`` and ``rest`` count here.
    """
    folding = _Folding(graph, precision)
    kept = [node for node in graph.node if not folding.take(node)]
    del graph.node[:]
    graph.node.extend(kept)
    folding.finish()


class _Folding:
    def __init__(self, graph: GraphProto, precision: Precision) -> None:
        self._graph = graph
        self._precision = precision
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._folded: dict[str, str] = {}
        self._retyped: set[str] = set()

    def take(self, node: NodeProto) -> bool:
        """Acts on one node; whether it is to go."""
        if node.op_type == "QuantizeLinear" and node.input[0] in self._stored:
            self._folded[node.output[0]] = self._fold_weight(node)
            return True
        if node.op_type == "DequantizeLinear" and node.input[0] in self._folded:
            node.input[0] = self._folded[node.input[0]]
        elif node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            self._retype(node)
        return False

    def _fold_weight(self, node: NodeProto) -> str:
        """Stores the weight that ``node`` quantises, its scales and zero points; gives the name of the first."""
        import numpy as np
        from onnx import numpy_helper

        weight, scale, zero = (self._stored[name] for name in node.input)
        name = f"{weight.name}_{self._precision.dtype}"
        if name not in self._stored:
            values = numpy_helper.to_array(weight)
            axis = next((item.i for item in node.attribute if item.name == "axis"), 0) if scale.dims else None
            others = tuple(index for index in range(values.ndim) if index != axis)
            ranges = np.abs(values).max(axis=None if axis is None else others, keepdims=True)
            scales = self._scale(ranges.astype(np.float64) / LARGEST[self._precision.dtype])
            self._put(name, self._cast(values / scales))
            self._put(scale.name, scales.reshape(tuple(scale.dims)))
            self._put(zero.name, self._cast(np.zeros(tuple(zero.dims), np.float32)))
            self._retyped |= {scale.name, zero.name}
        return name

    def _retype(self, node: NodeProto) -> None:
        """An activation's pair: the same range in the asked type."""
        import numpy as np
        from onnx import numpy_helper

        scale, zero = (self._stored[name] for name in node.input[1:3])
        if scale.name not in self._retyped:
            widened = LARGEST["int8"] / LARGEST[self._precision.dtype]
            self._put(scale.name, self._scale(numpy_helper.to_array(scale).astype(np.float64) * widened))
            self._put(zero.name, self._cast(np.zeros(tuple(zero.dims), np.float32)))
            self._retyped |= {scale.name, zero.name}

    def _scale(self, scale: np.ndarray) -> np.ndarray:
        import numpy as np

        rest = self._precision.rest
        scale = np.where(scale < _LEAST_SCALE, 1.0, np.maximum(scale, LEAST_FP16_SCALE if rest == "fp16" else 0.0))
        scale = scale.astype(np.float32)
        return scale if rest is None else rounded(scale, rest)[0].astype(np.float32)

    def _cast(self, values: np.ndarray) -> np.ndarray:
        import ml_dtypes
        import numpy as np

        largest = LARGEST[self._precision.dtype]
        if self._precision.dtype == "fp8":
            return np.asarray(np.clip(values, -largest, largest).astype(ml_dtypes.float8_e4m3fn))
        return np.asarray(np.clip(np.rint(values), -largest, largest), np.int8)

    def _put(self, name: str, values: np.ndarray) -> None:
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(values, name)
        if name in self._stored:
            self._stored[name].CopyFrom(tensor)
        else:
            self._graph.initializer.append(tensor)
            self._stored[name] = self._graph.initializer[-1]

    def finish(self) -> None:
        """Leaves out the float32 weights that nothing reads any more."""
        drop_unread(self._graph)

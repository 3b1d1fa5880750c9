"""Write ONNX graphs: nodes, seeded weights and constants are collected first and turned into protobuf last.

Only :meth:`GraphBuilder.model` imports onnx, so that knowing a network's inputs costs nothing.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import ArrayLike, NDArray

    from sweep.models.signatures import TensorSpec

OPSET = 20
IR_VERSION = 10


class GraphBuilder:
    """Build one ONNX graph; methods take and return tensor names.

    Every random weight has its own generator, seeded by ``seed`` and the weight's name, so adding a
    layer leaves the weights of all others as they were.

    Args:
        name: the graph's name.
        seed: seed of every weight.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self._weights: dict[str, NDArray[Any] | _Normal] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[tuple[str, str, tuple[int | str, ...]]] = []
        self._outputs: list[tuple[str, str, tuple[int | str, ...]]] = []

    def input(self, spec: TensorSpec) -> str:
        """Declare a graph input."""
        self._inputs.append((spec.name, spec.dtype, spec.shape))
        return spec.name

    def output(self, tensor: str, shape: tuple[int | str, ...]) -> None:
        """Declare ``tensor`` a graph output, float32, under the name that it has."""
        self._outputs.append((tensor, "float32", shape))

    def weight(self, name: str, values: ArrayLike) -> str:
        """Add a float32 initializer."""
        self._weights[name] = np.asarray(values, dtype=np.float32, order="C")
        return name

    def normal(self, name: str, shape: tuple[int, ...], std: float, *, centre: tuple[int, ...] = ()) -> str:
        """Add a float32 initializer of normal values with mean 0 and the given standard deviation.

        Args:
            name: the initializer's name, which seeds it too.
            shape: its shape.
            std: standard deviation of the values.
            centre: axes over which the sample mean is taken away, so that the values sum to 0 along them.
        """
        self._weights[name] = _Normal(self.seed, name, shape, std, centre)
        return name

    def constant(self, values: ArrayLike, dtype: str = "int64") -> str:
        """Add a small constant, such as a shape; equal constants are stored once."""
        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"const_{len(self._constants)}"
            self._weights[self._constants[key]] = array
        return self._constants[key]

    def parameters(self) -> int:
        """Count the weights, without drawing any: scalars and integers are left out, as in ``models.parameters``."""
        floats = (w for w in self._weights.values() if isinstance(w, _Normal) or w.dtype == np.float32)
        return sum(math.prod(weight.shape) for weight in floats if weight.shape)

    def op(self, op_type: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, which bears the node's name."""
        output = name or f"{op_type}_{len(self._nodes)}"
        self._nodes.append((op_type, list(inputs), output, attributes))
        return output

    def model(self) -> onnx.ModelProto:
        """Return the finished ONNX model; the builder hands its weights over and is empty afterwards."""
        import onnx
        from onnx import helper, numpy_helper

        graph = helper.make_graph(
            [helper.make_node(kind, ins, [out], name=out, **attrs) for kind, ins, out, attrs in self._nodes],
            self.name,
            [_value_info(*tensor) for tensor in self._inputs],
            [_value_info(*tensor) for tensor in self._outputs],
        )
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="sweep", graph=graph)
        model.opset_import.append(helper.make_opsetid("", OPSET))
        # Drawn by several threads, each weight with its own generator: 860 million take seconds.
        with ThreadPoolExecutor() as pool:
            drawn = deque((name, pool.submit(_values, self._weights.pop(name))) for name in list(self._weights))
            while drawn:  # dropped and copied once each: BERT's weights are 438 MB
                name, values = drawn.popleft()
                model.graph.initializer.append(numpy_helper.from_array(values.result(), name))
        return model


@dataclass(frozen=True, slots=True)
class _Normal:
    """Describe a weight that is drawn when the model is made."""

    seed: int
    name: str
    shape: tuple[int, ...]
    std: float
    centre: tuple[int, ...]

    def draw(self) -> NDArray[Any]:
        """Return the values: normal, float32."""
        generator = np.random.default_rng([self.seed, zlib.crc32(self.name.encode())])
        values = generator.standard_normal(self.shape, dtype=np.float32)
        if self.centre:  # in float64, where the order of the sum, which is numpy's affair, cannot change the float32
            values = (values - values.mean(axis=self.centre, dtype=np.float64, keepdims=True)).astype(np.float32)
        values *= np.float32(self.std)
        return values


def _values(weight: NDArray[Any] | _Normal) -> NDArray[Any]:
    return weight.draw() if isinstance(weight, _Normal) else weight


def _value_info(name: str, dtype: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))

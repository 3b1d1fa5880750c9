"""Author small seeded networks for the tests of the converters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Batch = dict[str, np.ndarray]


class Author:
    """Collects nodes and weights of a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node; gives the name of its output."""
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, *shape: int) -> str:
        """A normal weight, scaled by its fan-in."""
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        return self.const(self.rng.standard_normal(shape, dtype=np.float32) * scale)

    def const(self, value: Any) -> str:
        """An initialiser; gives its name."""
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, last: str, inputs: dict[str, tuple[int, list]], output: list, opset: int = 20) -> onnx.ModelProto:
        """The graph of everything authored, ``last`` as its output ``y``."""
        self.nodes.append(helper.make_node("Identity", [last], ["y"], name="last"))
        ins = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)]
        graph = helper.make_graph(self.nodes, "g", ins, outs, self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


IMAGE = {"x": (TensorProto.FLOAT, ["batch", 3, 16, 16])}


def cnn() -> onnx.ModelProto:
    """Two 3x3 convolutions around a residual Add, a global pool and a Gemm."""
    g = Author()
    stem = g.op("Relu", g.op("Conv", "x", g.weight(16, 3, 3, 3), g.weight(16), pads=[1] * 4))
    body = g.op("Relu", g.op("Conv", stem, g.weight(16, 16, 3, 3), g.weight(16), pads=[1] * 4))
    body = g.op("Conv", body, g.weight(16, 16, 1, 1), g.weight(16))
    pooled = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", g.op("Add", body, stem))))
    return g.model(g.op("Gemm", pooled, g.weight(10, 16), g.weight(10), transB=1), IMAGE, ["batch", 10])


def resizer() -> onnx.ModelProto:
    """Conv, Resize by float scales, Concat with a second Resize by sizes, ConvTranspose, Conv."""
    g = Author()
    low = g.op("Conv", "x", g.weight(8, 3, 3, 3), strides=[2, 2], pads=[1] * 4)
    up = g.op("Resize", low, "", g.const(np.float32([1, 1, 2, 2])), mode="nearest")
    sizes = g.op("Concat", g.op("Shape", "x", end=1), g.const(np.int64([8, 16, 16])), axis=0)
    other = g.op("Resize", low, "", "", sizes, mode="linear")
    both = g.op("ConvTranspose", g.op("Concat", up, other, axis=1), g.weight(16, 4, 1, 1))
    return g.model(g.op("Conv", both, g.weight(2, 4, 1, 1)), IMAGE, ["batch", 2, 16, 16])


def transformer() -> onnx.ModelProto:
    """Token ids and a mask (int64) through one attention block with LayerNorm and a tied output embedding."""
    g = Author()
    words, split = g.weight(50, 32), g.const(np.int64([0, 0, 4, 8]))
    x = g.op("LayerNormalization", g.op("Gather", words, "ids"), g.const(np.ones(32, np.float32)), axis=-1)
    q, k, v = (g.op("Reshape", g.op("MatMul", x, g.weight(32, 32)), split) for _ in "qkv")
    q, v, k = (g.op("Transpose", t, perm=p) for t, p in ((q, [0, 2, 1, 3]), (v, [0, 2, 1, 3]), (k, [0, 2, 3, 1])))
    hidden = g.op("Sub", g.const(np.float32(1)), g.op("Cast", "mask", to=TensorProto.FLOAT))
    hidden = g.op("Mul", g.op("Unsqueeze", hidden, g.const(np.int64([1, 2]))), g.const(np.float32(-10000)))
    scores = g.op("Softmax", g.op("Add", g.op("MatMul", q, k), hidden), axis=-1)
    mixed = g.op("Transpose", g.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    x = g.op("Add", x, g.op("Reshape", mixed, g.const(np.int64([0, 0, 32]))))
    x = g.op("LayerNormalization", x, g.const(np.ones(32, np.float32)), axis=-1)
    x = g.op("MatMul", x, g.op("Transpose", words, perm=[1, 0]))
    tokens = (TensorProto.INT64, ["batch", 12])
    return g.model(x, {"ids": tokens, "mask": tokens}, ["batch", 12, 50])


def branches() -> onnx.ModelProto:
    """An If whose branches convolve what they capture, by their own weights; nothing outside computes."""
    g = Author()
    cond = g.op("Greater", g.op("ReduceMax", "x", keepdims=0), g.const(np.float32(0)))
    inner = []
    for name in ("then", "else"):
        weight = numpy_helper.from_array(g.rng.standard_normal((4, 3, 1, 1), dtype=np.float32), f"{name}_w")
        node = helper.make_node("Conv", ["x", weight.name], [f"{name}_y"], name=f"{name}_conv")
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", 4, 16, 16])
        inner.append(helper.make_graph([node], name, [], [out], [weight]))
    chosen = g.op("If", cond, then_branch=inner[0], else_branch=inner[1])
    return g.model(chosen, IMAGE, ["batch", 4, 16, 16])


def matrices() -> onnx.ModelProto:
    """Every way to hold a weight: Constant, Gemm without transB, left operand, rank 3, vector; nodes unnamed."""
    g = Author()
    x = g.op("Relu", g.op("Gemm", "x", g.weight(16, 8)))
    held = numpy_helper.from_array(g.rng.standard_normal((8, 8), dtype=np.float32))
    x = g.op("MatMul", x, g.op("Constant", value=held))
    x = g.op("Unsqueeze", x, g.const(np.int64([2])))
    x = g.op("MatMul", g.weight(6, 8), x)
    x = g.op("MatMul", g.op("Transpose", x, perm=[0, 2, 1]), g.weight(1, 6, 5))
    x = g.op("Add", x, g.op("Unsqueeze", g.op("MatMul", x, g.weight(5)), g.const(np.int64([2]))))
    model = g.model(x, {"x": (TensorProto.FLOAT, ["batch", 16])}, ["batch", 1, 5], opset=13)
    for node in model.graph.node:
        node.name = ""
    return model


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "cnn": cnn,
    "resizer": resizer,
    "transformer": transformer,
    "branches": branches,
    "matrices": matrices,
}


def batch(model: onnx.ModelProto, size: int, seed: int) -> Batch:
    """Seeded inputs of ``size`` samples: float32 normal, ids under 50, a mask of ones."""
    rng, made = np.random.default_rng(seed), {}
    for value in model.graph.input:
        shape = [dim.dim_value or size for dim in value.type.tensor_type.shape.dim]
        if value.name == "mask":
            made[value.name] = np.ones(shape, np.int64)
        elif value.type.tensor_type.elem_type == TensorProto.INT64:
            made[value.name] = rng.integers(0, 50, shape)
        else:
            made[value.name] = rng.standard_normal(shape, dtype=np.float32)
    return made


def save(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(NETWORKS[name](), path)
    return path

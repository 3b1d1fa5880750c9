"""Provide the layers that the networks share. Each takes and returns tensor names; docstrings give the shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sweep.models.zoo.graph_builder import GraphBuilder

BIAS_STD = 0.01
RELU_GAIN = 2 / (1 - 1 / math.pi)
"""Variance gain that keeps the scale through a ReLU, for weights that sum to 0 over their inputs.

A ReLU of unit normals has variance (1 - 1/pi) / 2. The weights must be centred because the mean of
a ReLU is positive: layer by layer it would drown what distinguishes one sample from another, and no
comparison of precisions could see anything (centred weight normalisation, Huang et al., 2017).
"""


def conv(
    graph: GraphBuilder, x: str, name: str, window: tuple[int, int, int], *, stride: int = 1, gain: float = RELU_GAIN
) -> str:
    """Add a square convolution with bias and "same" padding: [batch,c_in,h,w] -> [batch,c_out,h/stride,w/stride].

    Args:
        graph: where the layer goes.
        x: name of the input tensor.
        name: name of the layer; its weights are ``name.weight`` and ``name.bias``.
        window: (c_in, c_out, side), the side odd.
        stride: step of the window.
        gain: variance of an output over the variance of the inputs.
    """
    c_in, c_out, side = window
    std = math.sqrt(gain / (c_in * side * side))
    weight = graph.normal(f"{name}.weight", (c_out, c_in, side, side), std, centre=(1, 2, 3))
    bias = graph.normal(f"{name}.bias", (c_out,), BIAS_STD)
    size, step, pads = [side, side], [stride, stride], [side // 2] * 4
    return graph.op("Conv", x, weight, bias, name=name, kernel_shape=size, strides=step, pads=pads)


def conv_relu(graph: GraphBuilder, x: str, name: str, window: tuple[int, int, int], *, stride: int = 1) -> str:
    """Apply :func:`conv`, then ReLU."""
    return graph.op("Relu", conv(graph, x, name, window, stride=stride), name=f"{name}.relu")


def linear(graph: GraphBuilder, x: str, name: str, widths: tuple[int, int], *, gain: float = 1.0) -> str:
    """Multiply and add the bias over the last axis: [...,n_in] -> [...,n_out]."""
    weight = graph.normal(f"{name}.weight", widths, math.sqrt(gain / widths[0]), centre=(0,))
    bias = graph.normal(f"{name}.bias", (widths[1],), BIAS_STD)
    return graph.op("Add", graph.op("MatMul", x, weight, name=f"{name}.matmul"), bias, name=name)


def classifier(graph: GraphBuilder, x: str, name: str, widths: tuple[int, int], *, positions: int) -> str:
    """Add a global average pool and a Gemm: [batch,n_in,h,w] -> [batch,n_out].

    Args:
        graph: where the layer goes.
        x: name of the input tensor.
        name: name of the Gemm.
        widths: (n_in, n_out).
        positions: h * w; averaging so many divides the variance by about that, and the weights restore it.
    """
    n_in, n_out = widths
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", x, name="pool"), name="flatten", axis=1)
    weight = graph.normal(f"{name}.weight", (n_out, n_in), math.sqrt(positions / n_in), centre=(1,))
    return graph.op("Gemm", pooled, weight, graph.normal(f"{name}.bias", (n_out,), BIAS_STD), name=name, transB=1)


def layer_norm(graph: GraphBuilder, x: str, name: str, width: int, *, epsilon: float) -> str:
    """Normalize over the last axis, unit scale and zero shift: [...,width] -> [...,width]."""
    scale = graph.weight(f"{name}.weight", np.ones(width))
    shift = graph.weight(f"{name}.bias", np.zeros(width))
    return graph.op("LayerNormalization", x, scale, shift, name=name, axis=-1, epsilon=epsilon)


def attention(graph: GraphBuilder, x: str, name: str, width: int, *, heads: int, mask: str | None = None) -> str:
    """Attend with several heads (Vaswani et al., 2017, arXiv:1706.03762): [batch,seq,width] -> the same.

    Args:
        graph: where the layer goes.
        x: name of the input tensor.
        name: name of the layer.
        width: of the model, a multiple of ``heads``.
        heads: number of heads.
        mask: name of a tensor that broadcasts to [batch,heads,seq,seq] and is added to the scores.
    """
    query = _split_heads(graph, linear(graph, x, f"{name}.query", (width, width)), width, heads, [0, 2, 1, 3])
    key = _split_heads(graph, linear(graph, x, f"{name}.key", (width, width)), width, heads, [0, 2, 3, 1])
    value = _split_heads(graph, linear(graph, x, f"{name}.value", (width, width)), width, heads, [0, 2, 1, 3])
    scale = graph.constant(1 / math.sqrt(width // heads), "float32")
    scores = graph.op("Mul", graph.op("MatMul", query, key, name=f"{name}.scores"), scale, name=f"{name}.scaled")
    if mask is not None:
        scores = graph.op("Add", scores, mask, name=f"{name}.masked")
    weights = graph.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
    context = graph.op("MatMul", weights, value, name=f"{name}.context")
    context = graph.op("Transpose", context, name=f"{name}.context.transpose", perm=[0, 2, 1, 3])
    merged = graph.op("Reshape", context, graph.constant([0, 0, width]), name=f"{name}.merge")
    return linear(graph, merged, f"{name}.output", (width, width))


def feed_forward(graph: GraphBuilder, x: str, name: str, width: int, *, hidden: int) -> str:
    """Add a linear layer, Gelu and a linear layer: [batch,seq,width] -> the same."""
    inner = graph.op("Gelu", linear(graph, x, f"{name}.up", (width, hidden)), name=f"{name}.gelu")
    return linear(graph, inner, f"{name}.down", (hidden, width))


def _split_heads(graph: GraphBuilder, x: str, width: int, heads: int, perm: list[int]) -> str:
    shape = graph.constant([0, 0, heads, width // heads])
    split = graph.op("Reshape", x, shape, name=f"{x}.split")
    return graph.op("Transpose", split, name=f"{x}.transpose", perm=perm)

"""Build blocks of Stable Diffusion 1.5's U-Net, with random weights that keep the activations' scale.

Rombach et al., 2021, arXiv:2112.10752; sizes as in the published configuration of version 1.5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo import blocks
from sweep.models.zoo.graph_builder import GraphBuilder

if TYPE_CHECKING:
    import onnx

WIDTHS = (320, 640, 1280)
SIDE, LATENTS = 64, 4
TOKENS, TEXT = 77, 768
HEADS, GROUPS = 8, 32
TIME = 1280
FEED_FORWARD = 4
BRANCH_GAIN = 0.1

INPUTS = (
    TensorSpec(name="sample", dtype="float32", shape=(BATCH, LATENTS, SIDE, SIDE)),
    TensorSpec(name="time_features", dtype="float32", shape=(BATCH, WIDTHS[0]), low=-1, high=1),
    TensorSpec(name="text", dtype="float32", shape=(BATCH, TOKENS, TEXT)),
)
_SILU_GAIN = 3.19
"""What keeps the variance of normals through SiLU, by quadrature."""


def sd_unet_block() -> onnx.ModelProto:
    """Build the way down of Stable Diffusion 1.5's U-Net, one block where it has two; 59.3 GMACs a sample.

    Latents [batch,4,64,64], sinusoids of the time step [batch,320] and text [batch,77,768] -> [batch,1280,16,16].
    The first convolution, the embedding of the time step, then at 320 channels and 64 x 64, 640 and 32 x 32, 1280 and
    16 x 16: a residual block and a transformer with attention to itself and to the text, a strided convolution between.
    The sinusoids come from outside, as in fp16 pipelines: a time step up to 999 has no exact sine in 16 bits.
    """
    graph = GraphBuilder("sd_unet_block")
    sample, features, text = (graph.input(spec) for spec in INPUTS)
    time = _time(graph, features)
    x, channels, side = blocks.conv(graph, sample, "conv_in", (LATENTS, WIDTHS[0], 3), gain=1.0), WIDTHS[0], SIDE
    for level, width in enumerate(WIDTHS):
        if level:
            x, side = blocks.conv(graph, x, f"down{level}", (channels, channels, 3), stride=2, gain=1.0), side // 2
        x = _residual(graph, x, f"level{level}.residual", (channels, width, side), time)
        name = f"level{level}.transformer"
        x, channels = _transformer(graph, x, name, width, side=side, text=text), width
    graph.output(x, (BATCH, channels, side, side))
    return graph.model()


def _time(graph: GraphBuilder, features: str) -> str:
    """Apply two linear layers, and the SiLU that each residual block begins with: [batch,320] -> [batch,1280]."""
    x = blocks.linear(graph, features, "time.1", (WIDTHS[0], TIME), gain=3.0)  # of uniform -1 to 1
    x = blocks.linear(graph, _silu(graph, x, "time.1.silu"), "time.2", (TIME, TIME), gain=_SILU_GAIN)
    return _silu(graph, x, "time.silu")


def _residual(graph: GraphBuilder, x: str, name: str, sizes: tuple[int, int, int], time: str) -> str:
    """Apply two convolutions, the time step added between: [batch,c_in,side,side] -> [batch,c_out,side,side]."""
    c_in, c_out, side = sizes
    y = _silu(graph, _group_norm(graph, x, f"{name}.norm1", (c_in, side), epsilon=1e-5), f"{name}.silu1")
    y = blocks.conv(graph, y, f"{name}.conv1", (c_in, c_out, 3), gain=_SILU_GAIN)
    shift = blocks.linear(graph, time, f"{name}.time", (TIME, c_out), gain=_SILU_GAIN)
    shift = graph.op("Unsqueeze", shift, graph.constant([2, 3]), name=f"{name}.time.map")
    y = graph.op("Add", y, shift, name=f"{name}.timed")
    y = _silu(graph, _group_norm(graph, y, f"{name}.norm2", (c_out, side), epsilon=1e-5), f"{name}.silu2")
    y = blocks.conv(graph, y, f"{name}.conv2", (c_out, c_out, 3), gain=_SILU_GAIN * BRANCH_GAIN)
    if c_in != c_out:
        x = blocks.conv(graph, x, f"{name}.shortcut", (c_in, c_out, 1), gain=1.0)
    return graph.op("Add", x, y, name=name)


def _transformer(graph: GraphBuilder, x: str, name: str, width: int, *, side: int, text: str) -> str:
    """Attend among positions and to the text, then apply a feed-forward layer: [batch,width,side,side] -> the same."""
    y = _group_norm(graph, x, f"{name}.norm", (width, side), epsilon=1e-6)
    y = blocks.conv(graph, y, f"{name}.proj_in", (width, width, 1), gain=1.0)
    y = graph.op("Reshape", y, graph.constant([0, width, side * side]), name=f"{name}.flat")
    y = graph.op("Transpose", y, name=f"{name}.tokens", perm=[0, 2, 1])
    normed = blocks.layer_norm(graph, y, f"{name}.norm1", width, epsilon=1e-5)
    y = graph.op("Add", y, _attention(graph, normed, normed, f"{name}.self", (width, width)), name=f"{name}.add1")
    normed = blocks.layer_norm(graph, y, f"{name}.norm2", width, epsilon=1e-5)
    y = graph.op("Add", y, _attention(graph, normed, text, f"{name}.cross", (width, TEXT)), name=f"{name}.add2")
    normed = blocks.layer_norm(graph, y, f"{name}.norm3", width, epsilon=1e-5)
    y = graph.op("Add", y, _gated(graph, normed, f"{name}.ffn", width), name=f"{name}.add3")
    y = graph.op("Transpose", y, name=f"{name}.channels", perm=[0, 2, 1])
    y = graph.op("Reshape", y, graph.constant([0, width, side, side]), name=f"{name}.map")
    y = blocks.conv(graph, y, f"{name}.proj_out", (width, width, 1), gain=BRANCH_GAIN)
    return graph.op("Add", x, y, name=name)


def _attention(graph: GraphBuilder, x: str, context: str, name: str, widths: tuple[int, int]) -> str:
    """Attend from [batch,n,width] to [batch,m,context width] -> [batch,n,width]; no bias but the last."""
    width, context_width = widths
    query = _heads(graph, _matmul(graph, x, f"{name}.query", (width, width)), width, [0, 2, 1, 3])
    key = _heads(graph, _matmul(graph, context, f"{name}.key", (context_width, width)), width, [0, 2, 3, 1])
    value = _heads(graph, _matmul(graph, context, f"{name}.value", (context_width, width)), width, [0, 2, 1, 3])
    scale = graph.constant(1 / math.sqrt(width // HEADS), "float32")
    query = graph.op("Mul", query, scale, name=f"{name}.scaled")
    scores = graph.op("MatMul", query, key, name=f"{name}.scores")
    weights = graph.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
    merged = graph.op("MatMul", weights, value, name=f"{name}.context")
    merged = graph.op("Transpose", merged, name=f"{name}.context.transpose", perm=[0, 2, 1, 3])
    merged = graph.op("Reshape", merged, graph.constant([0, 0, width]), name=f"{name}.merge")
    return blocks.linear(graph, merged, f"{name}.output", (width, width))


def _heads(graph: GraphBuilder, x: str, width: int, perm: list[int]) -> str:
    split = graph.op("Reshape", x, graph.constant([0, 0, HEADS, width // HEADS]), name=f"{x}.split")
    return graph.op("Transpose", split, name=f"{x}.transpose", perm=perm)


def _gated(graph: GraphBuilder, x: str, name: str, width: int) -> str:
    """Apply GEGLU (Shazeer, 2020, arXiv:2002.05202), then a linear layer: [batch,n,width] -> the same."""
    hidden = FEED_FORWARD * width
    both = blocks.linear(graph, x, f"{name}.up", (width, 2 * hidden))
    starts, axis = (graph.constant([0]), graph.constant([hidden])), graph.constant([2])
    value = graph.op("Slice", both, starts[0], starts[1], axis, name=f"{name}.value")
    gate = graph.op("Slice", both, starts[1], graph.constant([2 * hidden]), axis, name=f"{name}.gate")
    inner = graph.op("Mul", value, graph.op("Gelu", gate, name=f"{name}.gelu"), name=f"{name}.gated")
    return blocks.linear(graph, inner, f"{name}.down", (hidden, width), gain=_SILU_GAIN)


def _matmul(graph: GraphBuilder, x: str, name: str, widths: tuple[int, int]) -> str:
    weight = graph.normal(f"{name}.weight", widths, math.sqrt(1 / widths[0]), centre=(0,))
    return graph.op("MatMul", x, weight, name=name)


def _group_norm(graph: GraphBuilder, x: str, name: str, sizes: tuple[int, int], *, epsilon: float) -> str:
    """Group norm over 32 groups of channels, as PyTorch exports it: [batch,width,side,side] -> the same."""
    width, side = sizes
    groups = graph.op("Reshape", x, graph.constant([0, GROUPS, -1]), name=f"{name}.groups")
    ones, zeros = graph.constant(np.ones(GROUPS), "float32"), graph.constant(np.zeros(GROUPS), "float32")
    normed = graph.op("InstanceNormalization", groups, ones, zeros, name=f"{name}.normed", epsilon=epsilon)
    normed = graph.op("Reshape", normed, graph.constant([0, width, side, side]), name=f"{name}.map")
    scale = graph.weight(f"{name}.weight", np.ones((width, 1, 1)))
    shift = graph.weight(f"{name}.bias", np.zeros((width, 1, 1)))
    return graph.op("Add", graph.op("Mul", normed, scale, name=f"{name}.scaled"), shift, name=name)


def _silu(graph: GraphBuilder, x: str, name: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x, name=f"{name}.sigmoid"), name=name)

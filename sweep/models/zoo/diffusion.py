"""Build blocks of Stable Diffusion 1.5's U-Net, with random weights that keep the activations' scale.

Rombach et al., 2021, arXiv:2112.10752; sizes as in the published configuration of version 1.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Hold the sizes of the three networks of a latent diffusion model.

    Attributes:
        widths: channels of the U-Net at each level; all but the last attend to the text.
        side: of the latents.
        time: width of the embedding of the time step.
        heads: of the U-Net's attention.
        groups: of its group norms, and of the decoder's.
        tokens: of the text.
        text: width of the text encoder.
        text_layers: its layers.
        text_heads: its heads.
        vocabulary: its tokens.
        decoder: channels of the decoder at each level, the first at the side of the latents.
    """

    widths: tuple[int, ...]
    side: int
    time: int
    heads: int
    groups: int
    tokens: int
    text: int
    text_layers: int
    text_heads: int
    vocabulary: int
    decoder: tuple[int, ...]


SD15 = Sizes(
    widths=(320, 640, 1280, 1280),
    side=SIDE,
    time=TIME,
    heads=HEADS,
    groups=GROUPS,
    tokens=TOKENS,
    text=TEXT,
    text_layers=12,
    text_heads=12,
    vocabulary=49_408,
    decoder=(512, 512, 256, 128),
)
TINY = Sizes(
    widths=(16, 16),
    side=8,
    time=32,
    heads=2,
    groups=4,
    tokens=7,
    text=16,
    text_layers=1,
    text_heads=2,
    vocabulary=100,
    decoder=(16, 8),
)
FEATURES = 320  # sine and cosine of a time step


def text_inputs(sizes: Sizes) -> tuple[TensorSpec, ...]:
    """Return the inputs of a text encoder."""
    return (TensorSpec(name="input_ids", dtype="int64", shape=(BATCH, sizes.tokens), low=0, high=sizes.vocabulary - 1),)


def unet_inputs(sizes: Sizes) -> tuple[TensorSpec, ...]:
    """Return the inputs of a U-Net."""
    return (
        TensorSpec(name="sample", dtype="float32", shape=(BATCH, LATENTS, sizes.side, sizes.side)),
        TensorSpec(name="time_features", dtype="float32", shape=(BATCH, FEATURES), low=-1, high=1),
        TensorSpec(name="text", dtype="float32", shape=(BATCH, sizes.tokens, sizes.text)),
    )


def decoder_inputs(sizes: Sizes) -> tuple[TensorSpec, ...]:
    """Return the inputs of the decoder of a variational autoencoder."""
    return (TensorSpec(name="latents", dtype="float32", shape=(BATCH, LATENTS, sizes.side, sizes.side)),)


def text_encoder(sizes: Sizes, name: str) -> GraphBuilder:
    """Build the text encoder of CLIP: input_ids [batch,tokens] -> text [batch,tokens,width].

    Radford et al., 2021, arXiv:2103.00020; ViT-L/14 at the sizes of ``SD15``: 123.1 M weights.
    """
    graph, width = GraphBuilder(name), sizes.text
    (ids,) = (graph.input(spec) for spec in text_inputs(sizes))
    word = graph.normal("embeddings.word.weight", (sizes.vocabulary, width), 1.0)
    positions = graph.normal("embeddings.position.weight", (sizes.tokens, width), BRANCH_GAIN)
    x = graph.op("Add", graph.op("Gather", word, ids, name="embeddings.word"), positions, name="embeddings")
    mask = graph.weight("mask", np.triu(np.full((sizes.tokens, sizes.tokens), -10_000.0), 1)[None, None])
    for layer in range(sizes.text_layers):
        at = f"layer{layer}"
        normed = blocks.layer_norm(graph, x, f"{at}.norm1", width, epsilon=1e-5)
        attended = blocks.attention(graph, normed, f"{at}.attention", width, heads=sizes.text_heads, mask=mask)
        x = graph.op("Add", x, attended, name=f"{at}.add1")
        normed = blocks.layer_norm(graph, x, f"{at}.norm2", width, epsilon=1e-5)
        up = blocks.linear(graph, normed, f"{at}.up", (width, FEED_FORWARD * width))
        gate = graph.op("Mul", up, graph.constant(1.702, "float32"), name=f"{at}.gate")
        inner = graph.op("Mul", up, graph.op("Sigmoid", gate, name=f"{at}.sigmoid"), name=f"{at}.gelu")
        down = blocks.linear(graph, inner, f"{at}.down", (FEED_FORWARD * width, width), gain=_SILU_GAIN)
        x = graph.op("Add", x, down, name=f"{at}.add2")
    graph.output(blocks.layer_norm(graph, x, "text", width, epsilon=1e-5), (BATCH, sizes.tokens, width))
    return graph


def unet(sizes: Sizes, name: str) -> GraphBuilder:
    """Build a U-Net: sample [batch,4,side,side], time_features [batch,320], text -> noise [batch,4,side,side].

    Two residual blocks at each level on the way down and three on the way up, a transformer behind each at all levels
    but the last; at the sizes of ``SD15`` 859.5 M weights.
    """
    graph = GraphBuilder(name)
    sample, features, text = (graph.input(spec) for spec in unet_inputs(sizes))
    body = _Body(graph, sizes, _time(graph, features, FEATURES, sizes.time), text)
    x, side = blocks.conv(graph, sample, "conv_in", (LATENTS, sizes.widths[0], 3), gain=1.0), sizes.side
    channels, skips, last = sizes.widths[0], [(x, sizes.widths[0])], len(sizes.widths) - 1
    for level, width in enumerate(sizes.widths):
        for number in range(2):
            x = body.block(x, f"down{level}.{number}", (channels, width, side), attends=level != last)
            channels = width
            skips.append((x, channels))
        if level != last:
            x = blocks.conv(graph, x, f"down{level}.half", (channels, channels, 3), stride=2, gain=1.0)
            side //= 2
            skips.append((x, channels))
    x = body.block(x, "middle.0", (channels, channels, side), attends=True)
    x = body.block(x, "middle.1", (channels, channels, side), attends=False)
    for level, width in reversed(list(enumerate(sizes.widths))):
        for number in range(3):
            skip, skip_channels = skips.pop()
            x = graph.op("Concat", x, skip, name=f"up{level}.{number}.joined", axis=1)
            at = f"up{level}.{number}"
            x = body.block(x, at, (channels + skip_channels, width, side), attends=level != last)
            channels = width
        if level:
            x, side = _double(graph, x, f"up{level}.double", channels), side * 2
    x = _silu(graph, _group_norm(graph, x, "norm_out", (channels, side), epsilon=1e-5, count=sizes.groups), "silu_out")
    graph.output(
        blocks.conv(graph, x, "noise", (channels, LATENTS, 3), gain=_SILU_GAIN),
        (BATCH, LATENTS, sizes.side, sizes.side),
    )
    return graph


def decoder(sizes: Sizes, name: str) -> GraphBuilder:
    """Build the decoder of the autoencoder: latents [batch,4,side,side] -> image [batch,3,h,w].

    At the sizes of ``SD15`` 49.5 M weights and 512 x 512 pixels.
    """
    graph = GraphBuilder(name)
    (latents,) = (graph.input(spec) for spec in decoder_inputs(sizes))
    body = _Body(graph, sizes, None, None)
    channels, side = sizes.decoder[0], sizes.side
    x = blocks.conv(graph, latents, "post_quant", (LATENTS, LATENTS, 1), gain=1.0)
    x = blocks.conv(graph, x, "conv_in", (LATENTS, channels, 3), gain=1.0)
    x = body.block(x, "middle.0", (channels, channels, side), attends=False)
    x = _self_attention(graph, x, "middle.attention", (channels, side), sizes.groups)
    x = body.block(x, "middle.1", (channels, channels, side), attends=False)
    for level, width in enumerate(sizes.decoder):
        for number in range(3):
            x = body.block(x, f"up{level}.{number}", (channels, width, side), attends=False)
            channels = width
        if level != len(sizes.decoder) - 1:
            x, side = _double(graph, x, f"up{level}.double", channels), side * 2
    x = _silu(graph, _group_norm(graph, x, "norm_out", (channels, side), epsilon=1e-6, count=sizes.groups), "silu_out")
    graph.output(blocks.conv(graph, x, "image", (channels, 3, 3), gain=_SILU_GAIN), (BATCH, 3, side, side))
    return graph


@dataclass(frozen=True, slots=True)
class _Body:
    """Build residual blocks, each with a transformer behind it where the text is attended to."""

    graph: GraphBuilder
    sizes: Sizes
    time: str | None
    text: str | None

    def block(self, x: str, name: str, shape: tuple[int, int, int], *, attends: bool) -> str:
        """Apply one block: [batch,c_in,side,side] -> [batch,c_out,side,side]."""
        sizes = self.sizes
        x = _residual(self.graph, x, f"{name}.residual", shape, self.time, sizes)
        if not attends or self.text is None:
            return x
        at = f"{name}.transformer"
        return _transformer(self.graph, x, at, shape[1:], self.text, sizes)


def _double(graph: GraphBuilder, x: str, name: str, channels: int) -> str:
    """Double the sides by the nearest pixels, then apply a convolution."""
    scales = graph.constant([1, 1, 2, 2], "float32")
    x = graph.op(
        "Resize",
        x,
        "",
        scales,
        name=f"{name}.nearest",
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    return blocks.conv(graph, x, name, (channels, channels, 3), gain=1.0)


def _self_attention(graph: GraphBuilder, x: str, name: str, sizes: tuple[int, int], groups: int) -> str:
    """Attend among positions with one head: [batch,width,side,side] -> the same."""
    width, side = sizes
    y = _group_norm(graph, x, f"{name}.norm", (width, side), epsilon=1e-6, count=groups)
    y = graph.op("Reshape", y, graph.constant([0, width, side * side]), name=f"{name}.flat")
    y = graph.op("Transpose", y, name=f"{name}.tokens", perm=[0, 2, 1])
    y = blocks.attention(graph, y, name, width, heads=1)
    y = graph.op("Transpose", y, name=f"{name}.channels", perm=[0, 2, 1])
    y = graph.op("Reshape", y, graph.constant([0, width, side, side]), name=f"{name}.map")
    return graph.op("Add", x, y, name=f"{name}.added")


def sd_unet_block() -> onnx.ModelProto:
    """Build the way down of Stable Diffusion 1.5's U-Net, one block where it has two; 59.3 GMACs a sample.

    Latents [batch,4,64,64], sinusoids of the time step [batch,320] and text [batch,77,768] -> [batch,1280,16,16].
    The first convolution, the embedding of the time step, then at 320 channels and 64 x 64, 640 and 32 x 32, 1280 and
    16 x 16: a residual block and a transformer with attention to itself and to the text, a strided convolution between.
    The sinusoids come from outside, as in fp16 pipelines: a time step up to 999 has no exact sine in 16 bits.
    """
    graph = GraphBuilder("sd_unet_block")
    sample, features, text = (graph.input(spec) for spec in INPUTS)
    time = _time(graph, features, WIDTHS[0])
    x, channels, side = blocks.conv(graph, sample, "conv_in", (LATENTS, WIDTHS[0], 3), gain=1.0), WIDTHS[0], SIDE
    for level, width in enumerate(WIDTHS):
        if level:
            x, side = blocks.conv(graph, x, f"down{level}", (channels, channels, 3), stride=2, gain=1.0), side // 2
        x = _residual(graph, x, f"level{level}.residual", (channels, width, side), time)
        name = f"level{level}.transformer"
        x, channels = _transformer(graph, x, name, (width, side), text), width
    graph.output(x, (BATCH, channels, side, side))
    return graph.model()


def _time(graph: GraphBuilder, features: str, count: int, width: int = TIME) -> str:
    """Apply two linear layers, and the SiLU that each residual block begins with: [batch,320] -> [batch,width]."""
    x = blocks.linear(graph, features, "time.1", (count, width), gain=3.0)  # of uniform -1 to 1
    x = blocks.linear(graph, _silu(graph, x, "time.1.silu"), "time.2", (width, width), gain=_SILU_GAIN)
    return _silu(graph, x, "time.silu")


def _residual(
    graph: GraphBuilder, x: str, name: str, shape: tuple[int, int, int], time: str | None, sizes: Sizes = SD15
) -> str:
    """Apply two convolutions, the time step added between: [batch,c_in,side,side] -> [batch,c_out,side,side]."""
    c_in, c_out, side = shape
    y = _silu(
        graph, _group_norm(graph, x, f"{name}.norm1", (c_in, side), epsilon=1e-5, count=sizes.groups), f"{name}.silu1"
    )
    y = blocks.conv(graph, y, f"{name}.conv1", (c_in, c_out, 3), gain=_SILU_GAIN)
    if time is not None:
        shift = blocks.linear(graph, time, f"{name}.time", (sizes.time, c_out), gain=_SILU_GAIN)
        shift = graph.op("Unsqueeze", shift, graph.constant([2, 3]), name=f"{name}.time.map")
        y = graph.op("Add", y, shift, name=f"{name}.timed")
    y = _silu(
        graph, _group_norm(graph, y, f"{name}.norm2", (c_out, side), epsilon=1e-5, count=sizes.groups), f"{name}.silu2"
    )
    y = blocks.conv(graph, y, f"{name}.conv2", (c_out, c_out, 3), gain=_SILU_GAIN * BRANCH_GAIN)
    if c_in != c_out:
        x = blocks.conv(graph, x, f"{name}.shortcut", (c_in, c_out, 1), gain=1.0)
    return graph.op("Add", x, y, name=name)


def _transformer(graph: GraphBuilder, x: str, name: str, shape: tuple[int, int], text: str, sizes: Sizes = SD15) -> str:
    """Attend among positions and to the text, then apply a feed-forward layer: [batch,width,side,side] -> the same."""
    width, side = shape
    y = _group_norm(graph, x, f"{name}.norm", shape, epsilon=1e-6, count=sizes.groups)
    y = blocks.conv(graph, y, f"{name}.proj_in", (width, width, 1), gain=1.0)
    y = graph.op("Reshape", y, graph.constant([0, width, side * side]), name=f"{name}.flat")
    y = graph.op("Transpose", y, name=f"{name}.tokens", perm=[0, 2, 1])
    normed = blocks.layer_norm(graph, y, f"{name}.norm1", width, epsilon=1e-5)
    attended = _attention(graph, normed, normed, f"{name}.self", (width, width), sizes.heads)
    y = graph.op("Add", y, attended, name=f"{name}.add1")
    normed = blocks.layer_norm(graph, y, f"{name}.norm2", width, epsilon=1e-5)
    y = graph.op(
        "Add",
        y,
        _attention(graph, normed, text, f"{name}.cross", (width, sizes.text), sizes.heads),
        name=f"{name}.add2",
    )
    normed = blocks.layer_norm(graph, y, f"{name}.norm3", width, epsilon=1e-5)
    y = graph.op("Add", y, _gated(graph, normed, f"{name}.ffn", width), name=f"{name}.add3")
    y = graph.op("Transpose", y, name=f"{name}.channels", perm=[0, 2, 1])
    y = graph.op("Reshape", y, graph.constant([0, width, side, side]), name=f"{name}.map")
    y = blocks.conv(graph, y, f"{name}.proj_out", (width, width, 1), gain=BRANCH_GAIN)
    return graph.op("Add", x, y, name=name)


def _attention(
    graph: GraphBuilder, x: str, context: str, name: str, widths: tuple[int, int], heads: int = HEADS
) -> str:
    """Attend from [batch,n,width] to [batch,m,context width] -> [batch,n,width]; no bias but the last."""
    width, context_width = widths
    query = _heads(graph, _matmul(graph, x, f"{name}.query", (width, width)), width, [0, 2, 1, 3], heads)
    key = _heads(graph, _matmul(graph, context, f"{name}.key", (context_width, width)), width, [0, 2, 3, 1], heads)
    value = _heads(graph, _matmul(graph, context, f"{name}.value", (context_width, width)), width, [0, 2, 1, 3], heads)
    scale = graph.constant(1 / math.sqrt(width // heads), "float32")
    query = graph.op("Mul", query, scale, name=f"{name}.scaled")
    scores = graph.op("MatMul", query, key, name=f"{name}.scores")
    weights = graph.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
    merged = graph.op("MatMul", weights, value, name=f"{name}.context")
    merged = graph.op("Transpose", merged, name=f"{name}.context.transpose", perm=[0, 2, 1, 3])
    merged = graph.op("Reshape", merged, graph.constant([0, 0, width]), name=f"{name}.merge")
    return blocks.linear(graph, merged, f"{name}.output", (width, width))


def _heads(graph: GraphBuilder, x: str, width: int, perm: list[int], heads: int) -> str:
    split = graph.op("Reshape", x, graph.constant([0, 0, heads, width // heads]), name=f"{x}.split")
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


def _group_norm(
    graph: GraphBuilder, x: str, name: str, sizes: tuple[int, int], *, epsilon: float, count: int = GROUPS
) -> str:
    """Group norm over groups of channels, as PyTorch exports it: [batch,width,side,side] -> the same."""
    width, side = sizes
    groups = graph.op("Reshape", x, graph.constant([0, count, -1]), name=f"{name}.groups")
    ones, zeros = graph.constant(np.ones(count), "float32"), graph.constant(np.zeros(count), "float32")
    normed = graph.op("InstanceNormalization", groups, ones, zeros, name=f"{name}.normed", epsilon=epsilon)
    normed = graph.op("Reshape", normed, graph.constant([0, width, side, side]), name=f"{name}.map")
    scale = graph.weight(f"{name}.weight", np.ones((width, 1, 1)))
    shift = graph.weight(f"{name}.bias", np.zeros((width, 1, 1)))
    return graph.op("Add", graph.op("Mul", normed, scale, name=f"{name}.scaled"), shift, name=name)


def _silu(graph: GraphBuilder, x: str, name: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x, name=f"{name}.sigmoid"), name=name)


def sd_text_encoder() -> onnx.ModelProto:
    """Build the text encoder of Stable Diffusion 1.5; 6.6 GMACs a sample."""
    return text_encoder(SD15, "sd_text_encoder").model()


def sd_unet() -> onnx.ModelProto:
    """Build the U-Net of Stable Diffusion 1.5 for 512 x 512 pixels; 401 GMACs a sample."""
    return unet(SD15, "sd_unet").model()


def sd_vae_decoder() -> onnx.ModelProto:
    """Build the decoder of Stable Diffusion 1.5 for 512 x 512 pixels; 1,260 GMACs a sample."""
    return decoder(SD15, "sd_vae_decoder").model()


def sd_text_encoder_tiny() -> onnx.ModelProto:
    """Build a small text encoder."""
    return text_encoder(TINY, "sd_text_encoder_tiny").model()


def sd_unet_tiny() -> onnx.ModelProto:
    """Build a small U-Net."""
    return unet(TINY, "sd_unet_tiny").model()


def sd_vae_decoder_tiny() -> onnx.ModelProto:
    """Build a small decoder."""
    return decoder(TINY, "sd_vae_decoder_tiny").model()

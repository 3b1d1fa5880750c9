"""Build MobileNetV3-Large, with random weights that keep the activations' scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo import blocks
from sweep.models.zoo.graph_builder import GraphBuilder

if TYPE_CHECKING:
    import onnx

INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, 224, 224))

_STEM, _LAST, _HIDDEN, _CLASSES = 16, 960, 1280, 1000
_SQUEEZE, _DIVISOR = 4, 8
_GAIN = {"Relu": blocks.RELU_GAIN, "HardSwish": 3.8}
"""What keeps the variance of normals through the activation; of HardSwish by quadrature."""
_BRANCH_GAIN = 0.1
_GATED = 4.0  # a gate of about a half takes the variance to a quarter


@dataclass(frozen=True, slots=True)
class _Block:
    """Hold a row of table 1: window, expanded and output channels, squeeze and excite, activation, stride."""

    side: int
    expanded: int
    out: int
    excite: bool
    act: str
    stride: int


_BLOCKS = (
    _Block(3, 16, 16, excite=False, act="Relu", stride=1),
    _Block(3, 64, 24, excite=False, act="Relu", stride=2),
    _Block(3, 72, 24, excite=False, act="Relu", stride=1),
    _Block(5, 72, 40, excite=True, act="Relu", stride=2),
    _Block(5, 120, 40, excite=True, act="Relu", stride=1),
    _Block(5, 120, 40, excite=True, act="Relu", stride=1),
    _Block(3, 240, 80, excite=False, act="HardSwish", stride=2),
    _Block(3, 200, 80, excite=False, act="HardSwish", stride=1),
    _Block(3, 184, 80, excite=False, act="HardSwish", stride=1),
    _Block(3, 184, 80, excite=False, act="HardSwish", stride=1),
    _Block(3, 480, 112, excite=True, act="HardSwish", stride=1),
    _Block(3, 672, 112, excite=True, act="HardSwish", stride=1),
    _Block(5, 672, 160, excite=True, act="HardSwish", stride=2),
    _Block(5, 960, 160, excite=True, act="HardSwish", stride=1),
    _Block(5, 960, 160, excite=True, act="HardSwish", stride=1),
)


def mobilenet_v3(image: TensorSpec = INPUT) -> onnx.ModelProto:
    """Build MobileNetV3-Large, batch norm folded: [batch,3,224,224] -> logits [batch,1000]; 0.217 GMACs a sample.

    Howard et al., 2019, arXiv:1905.02244; the squeezed channels are rounded as in torchvision.
    """
    graph = GraphBuilder("mobilenet_v3")
    x = blocks.conv(graph, graph.input(image), "stem", (3, _STEM, 3), stride=2, gain=1.0)
    x, channels = graph.op("HardSwish", x, name="stem.act"), _STEM
    act = "HardSwish"
    for index, block in enumerate(_BLOCKS):
        x = _bottleneck(graph, x, f"block{index}", channels, block)
        channels = block.out
    x = blocks.conv(graph, x, "last", (channels, _LAST, 1), gain=1.0)
    x = graph.op("GlobalAveragePool", graph.op(act, x, name="last.act"), name="pool")
    x = _dense(graph, graph.op("Flatten", x, name="flatten", axis=1), "hidden", (_LAST, _HIDDEN), gain=7 * 7.0)
    logits = _dense(graph, graph.op(act, x, name="hidden.act"), "logits", (_HIDDEN, _CLASSES), gain=_GAIN[act])
    graph.output(logits, (BATCH, _CLASSES))
    return graph.model()


def _bottleneck(graph: GraphBuilder, x: str, name: str, c_in: int, block: _Block) -> str:
    """Expand, look around, weigh the channels, narrow: [batch,c_in,h,w] -> [batch,out,h/stride,w/stride]."""
    y = x
    if block.expanded != c_in:
        y = blocks.conv(graph, y, f"{name}.expand", (c_in, block.expanded, 1), gain=1.0)
        y = graph.op(block.act, y, name=f"{name}.expand.act")
    y = _depthwise(graph, y, f"{name}.depthwise", block)
    y = graph.op(block.act, y, name=f"{name}.depthwise.act")
    gain = _GAIN[block.act]
    if block.excite:
        y, gain = _excited(graph, y, f"{name}.excite", block.expanded), gain * _GATED
    residual = block.stride == 1 and block.out == c_in
    window = (block.expanded, block.out, 1)
    y = blocks.conv(graph, y, f"{name}.project", window, gain=gain * _BRANCH_GAIN if residual else gain)
    return graph.op("Add", x, y, name=f"{name}.add") if residual else y


def _depthwise(graph: GraphBuilder, x: str, name: str, block: _Block) -> str:
    """Convolve each channel with a window whose weights sum to 0: [batch,c,h,w] -> [batch,c,h/stride,w/stride]."""
    channels, side = block.expanded, block.side
    std = math.sqrt(_GAIN[block.act] / side**2)
    weight = graph.normal(f"{name}.weight", (channels, 1, side, side), std, centre=(1, 2, 3))
    bias = graph.normal(f"{name}.bias", (channels,), blocks.BIAS_STD)
    how = {"kernel_shape": [side, side], "strides": [block.stride] * 2, "pads": [side // 2] * 4, "group": channels}
    return graph.op("Conv", x, weight, bias, name=name, **how)


def _excited(graph: GraphBuilder, x: str, name: str, channels: int) -> str:
    """Squeeze and excite (Hu et al., 2017, arXiv:1709.01507): each channel times a gate made of all of them."""
    squeezed = _divisible(channels // _SQUEEZE)
    gate = graph.op("GlobalAveragePool", x, name=f"{name}.pool")
    gate = blocks.conv_relu(graph, gate, f"{name}.squeeze", (channels, squeezed, 1))
    gate = blocks.conv(graph, gate, f"{name}.gate", (squeezed, channels, 1))
    gate = graph.op("HardSigmoid", gate, name=f"{name}.sigmoid", alpha=1 / 6, beta=0.5)
    return graph.op("Mul", x, gate, name=name)


def _divisible(channels: int) -> int:
    """Return the nearest multiple of 8 that is no more than a tenth smaller."""
    near = max(_DIVISOR, (channels + _DIVISOR // 2) // _DIVISOR * _DIVISOR)
    return near + _DIVISOR if near < 0.9 * channels else near


def _dense(graph: GraphBuilder, x: str, name: str, widths: tuple[int, int], *, gain: float) -> str:
    """Add a Gemm with bias: [batch,n_in] -> [batch,n_out]."""
    n_in, n_out = widths
    weight = graph.normal(f"{name}.weight", (n_out, n_in), math.sqrt(gain / n_in), centre=(1,))
    return graph.op("Gemm", x, weight, graph.normal(f"{name}.bias", (n_out,), blocks.BIAS_STD), name=name, transB=1)

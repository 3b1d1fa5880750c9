"""Build the networks of a text recognition pipeline: a detector of lines of text, and a recogniser of one line.

Ours, in the manner of EAST (Zhou et al., 2017, arXiv:1704.03155) and CRNN (Shi et al., 2015, arXiv:1507.05717), the
recurrent layers replaced by attention; random weights that keep the activations' scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo import blocks
from sweep.models.zoo.graph_builder import GraphBuilder

if TYPE_CHECKING:
    import onnx

_CROP = (32, 128)
_CHARACTERS = 96  # printable ASCII and the blank
IMAGE = TensorSpec(name="image", dtype="float32", shape=(BATCH, 3, 512, 512))
IMAGE_TINY = TensorSpec(name="image", dtype="float32", shape=(BATCH, 3, 64, 64))
LINE = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, *_CROP))


def ocr_detector() -> onnx.ModelProto:
    """Build the detector: image [batch,3,512,512] -> scores [batch,1,64,64]."""
    return _detector("ocr_detector", IMAGE, (32, 64, 128, 256))


def ocr_detector_tiny() -> onnx.ModelProto:
    """Build a small detector: image [batch,3,64,64] -> scores [batch,1,8,8]."""
    return _detector("ocr_detector_tiny", IMAGE_TINY, (8, 8, 8, 8))


def ocr_recogniser() -> onnx.ModelProto:
    """Build the recogniser: lines of text [batch,3,32,128] -> logits [batch,32,96]."""
    return _recogniser("ocr_recogniser", (64, 128, 256), layers=2)


def ocr_recogniser_tiny() -> onnx.ModelProto:
    """Build a small recogniser: lines of text [batch,3,32,128] -> logits [batch,32,96]."""
    return _recogniser("ocr_recogniser_tiny", (8, 8, 16), layers=1)


def _detector(name: str, image: TensorSpec, widths: tuple[int, int, int, int]) -> onnx.ModelProto:
    """Three times halve the sides, then two convolutions and one channel of scores."""
    graph = GraphBuilder(name)
    side = int(image.shape[2])
    x, channels = graph.input(image), 3
    for level, width in enumerate(widths):
        x = blocks.conv_relu(graph, x, f"level{level}.conv1", (channels, width, 3), stride=2 if level else 1)
        x = blocks.conv_relu(graph, x, f"level{level}.conv2", (width, width, 3))
        channels = width
    graph.output(blocks.conv(graph, x, "scores", (channels, 1, 1)), (BATCH, 1, side // 8, side // 8))
    return graph.model()


def _recogniser(name: str, widths: tuple[int, int, int], *, layers: int) -> onnx.ModelProto:
    """Quarter the sides, make each column of eight rows a token, attend, and give scores of characters."""
    graph = GraphBuilder(name)
    x, channels = graph.input(LINE), 3
    for level, width in enumerate(widths):
        x = blocks.conv_relu(graph, x, f"level{level}.conv", (channels, width, 3), stride=2 if level else 1)
        channels = width
    tokens, width = _CROP[1] // 4, channels * _CROP[0] // 4
    x = graph.op("Reshape", x, graph.constant([0, width, tokens]), name="columns")
    x = graph.op("Transpose", x, name="tokens", perm=[0, 2, 1])
    x = blocks.linear(graph, x, "project", (width, channels))
    for layer in range(layers):
        normed = blocks.layer_norm(graph, x, f"layer{layer}.norm1", channels, epsilon=1e-6)
        attended = blocks.attention(graph, normed, f"layer{layer}.attention", channels, heads=4)
        x = graph.op("Add", x, attended, name=f"layer{layer}.add1")
        normed = blocks.layer_norm(graph, x, f"layer{layer}.norm2", channels, epsilon=1e-6)
        inner = blocks.feed_forward(graph, normed, f"layer{layer}.ffn", channels, hidden=4 * channels)
        x = graph.op("Add", x, inner, name=f"layer{layer}.add2")
    graph.output(blocks.linear(graph, x, "logits", (channels, _CHARACTERS)), (BATCH, tokens, _CHARACTERS))
    return graph.model()

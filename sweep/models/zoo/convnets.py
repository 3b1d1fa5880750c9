"""Build convolutional networks and a perceptron, with random weights that keep the activations' scale."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo import blocks
from sweep.models.zoo.graph_builder import GraphBuilder

if TYPE_CHECKING:
    import onnx

TINY_CNN_INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, 32, 32))
RESNET50_INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, 224, 224))
UNET_INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, 128, 128))
MLP_INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 784))

RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
RESNET50_EXPANSION = 4
RESNET50_BRANCH_GAIN = 0.1
"""Small, as in a trained network: sixteen branches add up, and so does what a low precision does to each."""

UNET_WIDTHS = (32, 64, 128)
UNET_BOTTOM = 256
UNET_CLASSES = 4

MLP_WIDTHS = (784, 1024, 1024, 10)


def tiny_cnn(image: TensorSpec = TINY_CNN_INPUT) -> onnx.ModelProto:
    """Build a CIFAR-sized CNN for demonstrations: [batch,3,32,32] -> logits [batch,10]; 1.59 MMACs a sample."""
    graph = GraphBuilder("tiny_cnn")
    x = blocks.conv_relu(graph, graph.input(image), "stem", (3, 16, 3), stride=2)
    x = blocks.conv_relu(graph, x, "down", (16, 32, 3), stride=2)
    branch = blocks.conv_relu(graph, x, "block.conv1", (32, 32, 3))
    branch = blocks.conv(graph, branch, "block.conv2", (32, 32, 3), gain=0.5)
    x = graph.op("Relu", graph.op("Add", branch, x, name="block.add"), name="block.relu")
    graph.output(blocks.classifier(graph, x, "logits", (32, 10), positions=8 * 8), (BATCH, 10))
    return graph.model()


def resnet50(image: TensorSpec = RESNET50_INPUT) -> onnx.ModelProto:
    """Build ResNet-50 v1.5, batch norm folded: [batch,3,224,224] -> logits [batch,1000]; 4.09 GMACs a sample.

    He et al., 2015, arXiv:1512.03385; as in torchvision, the stride is in the 3x3 convolution.
    """
    graph = GraphBuilder("resnet50")
    x = blocks.conv_relu(graph, graph.input(image), "stem", (3, 64, 7), stride=2)
    x = graph.op("MaxPool", x, name="stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, (depth, width) in enumerate(RESNET50_STAGES, start=1):
        for index in range(depth):
            stride = 2 if stage > 1 and index == 0 else 1
            x = _bottleneck(graph, x, f"stage{stage}.{index}", (channels, width), stride=stride)
            channels = width * RESNET50_EXPANSION
    graph.output(blocks.classifier(graph, x, "logits", (channels, 1000), positions=7 * 7), (BATCH, 1000))
    return graph.model()


def _bottleneck(graph: GraphBuilder, x: str, name: str, channels: tuple[int, int], *, stride: int) -> str:
    c_in, width = channels
    c_out = width * RESNET50_EXPANSION
    branch = blocks.conv_relu(graph, x, f"{name}.conv1", (c_in, width, 1))
    branch = blocks.conv_relu(graph, branch, f"{name}.conv2", (width, width, 3), stride=stride)
    branch = blocks.conv(graph, branch, f"{name}.conv3", (width, c_out, 1), gain=RESNET50_BRANCH_GAIN)
    if c_in != c_out:
        x = blocks.conv(graph, x, f"{name}.shortcut", (c_in, c_out, 1), stride=stride)
    return graph.op("Relu", graph.op("Add", branch, x, name=f"{name}.add"), name=f"{name}.relu")


def unet(image: TensorSpec = UNET_INPUT) -> onnx.ModelProto:
    """Build a small U-Net (Ronneberger et al., 2015, arXiv:1505.04597): [batch,3,128,128] -> [batch,4,128,128]."""
    graph = GraphBuilder("unet")
    x, channels = graph.input(image), 3
    skips = []
    for level, width in enumerate(UNET_WIDTHS):
        skip = _double_conv(graph, x, f"encoder{level}", (channels, width))
        skips.append((level, width, skip))
        x = graph.op("MaxPool", skip, name=f"encoder{level}.pool", kernel_shape=[2, 2], strides=[2, 2])
        channels = width
    x, channels = _double_conv(graph, x, "bottom", (channels, UNET_BOTTOM)), UNET_BOTTOM
    for level, width, skip in reversed(skips):
        x = graph.op(
            "Concat", _double_size(graph, x, f"decoder{level}.up"), skip, name=f"decoder{level}.concat", axis=1
        )
        x, channels = _double_conv(graph, x, f"decoder{level}", (channels + width, width)), width
    logits = blocks.conv(graph, x, "logits", (channels, UNET_CLASSES, 1), gain=1.0)
    graph.output(logits, (BATCH, UNET_CLASSES, *image.shape[2:]))
    return graph.model()


def _double_conv(graph: GraphBuilder, x: str, name: str, channels: tuple[int, int]) -> str:
    c_in, c_out = channels
    x = blocks.conv_relu(graph, x, f"{name}.conv1", (c_in, c_out, 3))
    return blocks.conv_relu(graph, x, f"{name}.conv2", (c_out, c_out, 3))


def _double_size(graph: GraphBuilder, x: str, name: str) -> str:
    scales = graph.constant([1, 1, 2, 2], "float32")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.op("Resize", x, "", scales, name=name, **how)


def mlp() -> onnx.ModelProto:
    """Build a perceptron with two hidden layers of 1024: [batch,784] -> logits [batch,10]; 1.86 MMACs a sample."""
    graph = GraphBuilder("mlp")
    x = graph.input(MLP_INPUT)
    *hidden, head = pairwise(MLP_WIDTHS)
    for index, widths in enumerate(hidden, start=1):
        layer = blocks.linear(graph, x, f"hidden{index}", widths, gain=blocks.RELU_GAIN)
        x = graph.op("Relu", layer, name=f"hidden{index}.relu")
    graph.output(blocks.linear(graph, x, "logits", head), (BATCH, MLP_WIDTHS[-1]))
    return graph.model()

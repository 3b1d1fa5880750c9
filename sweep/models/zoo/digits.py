"""Provide a trained classifier of handwritten digits, with its data: the one network whose answers can be scored.

The images are the 1,797 of the UCI repository's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998,
doi:10.24432/C50P49, CC BY 4.0), as scikit-learn's ``load_digits`` has them. Their order is the writers', so the last
third is by people whom the network has not seen. ``tests/bench/train_digits.py`` trained it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.models.datasets.labelled_arrays import DataSet, Labelled
from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo.graph_builder import GraphBuilder
from sweep.system import regular_files

if TYPE_CHECKING:
    import onnx

INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 1, 8, 8), low=0, high=1)
HELD_OUT = 597
_DATA = Path(__file__).parent / "data"
_WHITE = 16.0
_LAYERS = (("conv1", "0", 1), ("conv2", "2", 2), ("conv3", "4", 1))  # its name here, in the file, and its stride


def digits() -> onnx.ModelProto:
    """Build three trained convolutions and a linear layer: [batch,1,8,8] from 0 to 1 -> logits [batch,10]."""
    graph = GraphBuilder("digits")
    with regular_files.open_input(_DATA / "digits_weights.npz", follow=True) as opened, np.load(opened) as file:
        weights = dict(file)
    x = graph.input(INPUT)
    for name, stored, stride in _LAYERS:
        weight, bias = _parameters(graph, weights, name, stored)
        how = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        x = graph.op("Relu", graph.op("Conv", x, weight, bias, name=name, **how), name=f"{name}.relu")
    flat = graph.op("Flatten", x, name="flatten", axis=1)
    weight, bias = _parameters(graph, weights, "logits", "7")
    graph.output(graph.op("Gemm", flat, weight, bias, name="logits", transB=1), (BATCH, 10))
    return graph.model()


def _parameters(graph: GraphBuilder, weights: dict[str, np.ndarray], name: str, stored: str) -> tuple[str, str]:
    weight, bias = (graph.weight(f"{name}.{part}", weights[f"{stored}.{part}"]) for part in ("weight", "bias"))
    return weight, bias


@cache
def _images() -> tuple[np.ndarray, np.ndarray]:
    with regular_files.open_input(_DATA / "digits.npz", follow=True) as opened, np.load(opened) as file:
        return (file["images"][:, None] / _WHITE).astype(np.float32), file["labels"].astype(np.int64)


def _part(what: str, rows: slice) -> Labelled:
    images, labels = _images()
    part_labels = labels[rows]
    return Labelled(
        what=f"{len(part_labels)} {what} images of scikit-learn's digits",
        inputs={INPUT.name: images[rows]},
        labels=part_labels,
        output="logits",
    )


DATA = DataSet(
    training=lambda: _part("training", slice(None, -HELD_OUT)),
    held_out=lambda: _part("held-out", slice(-HELD_OUT, None)),
)

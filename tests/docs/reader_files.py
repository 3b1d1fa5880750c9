"""Write into a folder the files that the pages of the docs suppose a reader to have: networks, labels, pictures.

    python tests/docs/reader_files.py FOLDER

``net.onnx`` is the trained network of the digits, with ``held.npz`` (labelled images), ``net_qat.onnx`` (the network
with Q/DQ pairs) and ``train/`` (pictures); ``bytes.onnx`` takes the bytes of files; ``arrivals.csv`` has arrivals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from PIL import Image

from sweep.models.zoo import digits

_ROWS, _TOKENS, _CLASSES = 257, 2048, 4


class _Images(quantization.CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter(np.split(images, 8))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}


def network_of_bytes() -> onnx.ModelProto:
    """Return a network over the bytes of a file, ``bytes`` of shape (batch, 2048) -> 4 classes."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((_ROWS, 8)).astype(np.float32), "table"),
        numpy_helper.from_array(rng.standard_normal((8, _CLASSES)).astype(np.float32), "classes"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "bytes"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "classes"], ["logits"], name="classify"),
    ]
    inputs = [helper.make_tensor_value_info("bytes", TensorProto.INT32, ["batch", _TOKENS])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES])]
    graph = helper.make_graph(nodes, "bytes", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits._images()
    train, held = slice(0, 64), slice(1200, None)
    onnx.save(digits.digits(), folder / "net.onnx")
    onnx.save(network_of_bytes(), folder / "bytes.onnx")
    np.savez(folder / "held.npz", x=images[held], labels=labels[held])
    quantization.quantize_static(folder / "net.onnx", folder / "net_qat.onnx", _Images(images[train]))
    (folder / "train").mkdir(exist_ok=True)
    for number, image in enumerate(images[train]):
        Image.fromarray((image[0] * 255).astype(np.uint8)).save(folder / "train" / f"{number}.png")
    gaps = np.random.default_rng(0).exponential(0.002, 2000)
    np.savetxt(folder / "arrivals.csv", np.cumsum(gaps), fmt="%.6f")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

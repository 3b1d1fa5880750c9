"""Write small ONNX files as people bring them, and measure them as the command line would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import passes
from onnx import TensorProto, helper, numpy_helper

from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, LoadConfig, ModelConfig
from sweep.system import nested_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node, value = helper.make_node, helper.make_tensor_value_info


def weight(name: str, *shape: int) -> onnx.TensorProto:
    array = np.random.default_rng(len(name)).standard_normal(shape) / 2
    return numpy_helper.from_array(array.astype(np.float32), name)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    domains: Sequence[tuple[str, int]] = (("", 17),),
    **more: Any,
) -> Path:
    """Write a graph; ``more`` are fields of it, such as ``sparse_initializer``."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    for name, values in more.items():
        getattr(graph, name).extend(values)
    opsets = [helper.make_opsetid(*domain) for domain in domains]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def measured(path: Path, precision: str = "fp32", batch: int = 2, **inputs: Any) -> dict[str, Any]:
    """Measure a file on onnxruntime, the shapes of some inputs fixed; return the pass."""
    config = Config(
        model=ModelConfig(path=str(path), inputs={name: {"shape": list(shape)} for name, shape in inputs.items()}),
        backend=BackendConfig(name="onnxruntime"),
        load=LoadConfig(kind="closed", warmup_s=0.0, min_s=0.01, min_requests=3, max_s=0.5),
        batch=batch,
        results=str(path.parent),
    )
    config.precision.name = config.precision.dtype = precision
    if precision == "int8":
        config.precision.quantize_ops = ["Conv", "MatMul", "Gemm"]
        config.precision.calibration_batches = 1
    if precision == "int8_transposed":
        config.precision.dtype = "int8"
        config.precision.quantize_ops = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
        config.precision.calibration_batches = 1
    return dict(passes.measured(variants.from_config(config), path.parent))


def node_names(path: Path) -> list[str]:
    graph = onnx.load(path).graph
    return [item.name for inner in nested_graphs(graph) for item in inner.node]

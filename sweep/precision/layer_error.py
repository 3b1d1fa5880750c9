"""Locate where a typed graph departs from its fp32 graph: the error of every tensor, accumulated and local.

Both graphs are merged into one, which sums squares of differences as it runs: no tensor leaves it, and memory stays
that of an inference. The typed graph is the emulated one, since onnxruntime's CPU hides 16-bit rounding. To measure the
local error of a node, its inputs are the fp32 graph's own.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import activation_ranges, onnx_graph
from sweep.precision.conversion import canonicalize_for
from sweep.precision.emulation import emulate
from sweep.precision.onnx_tools import as_conversion_error, quiet_onnxruntime
from sweep.system import subgraphs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto, NodeProto

    from sweep.spec import Precision

CHUNK_BYTES = 512 << 20
"""Limit the size of the tensors that are compared in one inference, in bytes."""

_TYPED_PREFIX = "typed/"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Hold the error that a typed graph has at one node of its fp32 graph.

    A noise ratio is noise power over signal power: 0 is exact, ``inf`` where the typed graph is not finite.

    Attributes:
        node: the node's name.
        op: its op type.
        tensor: its first float output that both graphs have.
        input_noise_ratio: of its worst float input, in the typed graph.
        output_noise_ratio: of its output, in the typed graph: the error accumulated up to here.
        local_noise_ratio: of its output when its inputs are those of the fp32 graph.
    """

    node: str
    op: str
    tensor: str
    input_noise_ratio: float
    output_noise_ratio: float
    local_noise_ratio: float


def measure_layer_errors(
    source: Path, typed: Path, precision: Precision, feeds: Mapping[str, np.ndarray], chunk_bytes: int = CHUNK_BYTES
) -> list[LayerError]:
    """Measure the error at every node of the outermost fp32 graph whose float output the typed graph has too.

    Args:
        source: the fp32 ONNX file that was converted.
        typed: the file that it was converted to.
        precision: the recipe.
        feeds: every input by name.
        chunk_bytes: most bytes of tensors that are compared in one inference; a smaller limit takes more inferences.

    Returns:
        One error per node, in graph order.

    Raises:
        ConversionError: the two files do not belong together, or onnxruntime cannot run them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sweep-trace-") as folder,
        quiet_onnxruntime(),
        as_conversion_error(f"{source.name} beside {typed.name}", "convert it again"),
    ):
        emulate(typed, Path(folder, "emulated.onnx"), float_io=True)
        reference = onnx_graph.infer_types(canonicalize_for(onnx_graph.load(source), precision))
        rounded = onnx_graph.load(Path(folder, "emulated.onnx"))
        names = _common_tensors(reference, rounded)
        sizes = activation_ranges.tensor_bytes(reference, names, feeds)
        accumulated, local = (
            _noise_ratios(_merge_graphs(reference, rounded, replaced), names, sizes, feeds, chunk_bytes)
            for replaced in ((), names)
        )
    return list(_layer_errors(reference, names, accumulated, local))


def _common_tensors(reference: ModelProto, rounded: ModelProto) -> list[str]:
    """List the float tensors that nodes of both graphs produce under the same name."""
    typed_outputs = {name for node in rounded.graph.node for name in node.output}
    fp32_outputs = {name for node in reference.graph.node for name in node.output}
    names = [name for name in activation_ranges.float_tensors(reference) if name in fp32_outputs & typed_outputs]
    if not names:
        raise ConversionError("the typed graph has no tensor of the fp32 graph: give the record of a converted model")
    return names


def _merge_graphs(reference: ModelProto, rounded: ModelProto, replaced: Collection[str]) -> ModelProto:
    """Merge both graphs, the typed tensors prefixed; typed nodes read ``replaced`` tensors from the fp32 graph."""
    from onnx import ModelProto, compose

    typed = ModelProto()
    typed.CopyFrom(rounded)
    compose.add_prefix(typed, _TYPED_PREFIX, rename_inputs=False, inplace=True)
    renamed = {_TYPED_PREFIX + name: name for name in replaced}
    for node in typed.graph.node:
        _rename_inputs(node, renamed)
    result = ModelProto()
    result.CopyFrom(reference)
    result.graph.node.extend(typed.graph.node)
    result.graph.initializer.extend(typed.graph.initializer)
    del result.graph.output[:], result.graph.value_info[:]
    result.ir_version = max(reference.ir_version, rounded.ir_version)
    domains = {item.domain for item in result.opset_import}
    result.opset_import.extend(item for item in typed.opset_import if item.domain not in domains)
    return result


def _fed(model: ModelProto) -> list[str]:
    """Return the names of the inputs that are fed."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in stored]


def _rename_inputs(node: NodeProto, renamed: Mapping[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = renamed.get(name, name)
    for inner in subgraphs(node):
        for inner_node in inner.node:
            _rename_inputs(inner_node, renamed)


def _noise_ratios(
    model: ModelProto,
    names: Sequence[str],
    sizes: Mapping[str, int],
    feeds: Mapping[str, np.ndarray],
    chunk_bytes: int,
) -> dict[str, float]:
    """Compute noise power over signal power of each tensor."""
    ratios: dict[str, float] = {}
    for chunk in activation_ranges.chunk_by_size(names, sizes, chunk_bytes):
        powers = _noise_and_signal(model, chunk, feeds)
        ratios |= {name: _ratio(*pair) for name, pair in zip(chunk, powers, strict=True)}
    return ratios


def _ratio(noise: float, signal: float) -> float:
    if not math.isfinite(signal):
        return math.nan  # a mask that is infinite in fp32 has no signal power to compare with
    if not math.isfinite(noise):
        return math.inf
    return noise / signal if signal else (math.inf if noise else 0.0)


def _noise_and_signal(
    model: ModelProto, names: Sequence[str], feeds: Mapping[str, np.ndarray]
) -> list[tuple[float, float]]:
    """Sum the squares of the difference, and of the fp32 tensor, for each name."""
    import onnxruntime
    from onnx import TensorProto, helper

    nodes, fresh = len(model.graph.node), onnx_graph.FreshNames(model.graph)
    results = []
    for name in names:
        off = fresh.take(f"{name}__off")
        model.graph.node.append(helper.make_node("Sub", [_TYPED_PREFIX + name, name], [off]))
        for operand, suffix in ((off, "noise"), (name, "signal")):
            result, wide = fresh.take(f"{name}__{suffix}"), fresh.take(f"{name}__{suffix}64")
            model.graph.node.append(helper.make_node("Cast", [operand], [wide], to=TensorProto.DOUBLE))
            model.graph.node.append(helper.make_node("ReduceSumSquare", [wide], [result], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.DOUBLE, []))
            results.append(result)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with activation_ranges.temporary_model_file(model) as path:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            values = [float(value) for value in session.run(results, dict(feeds))]
    finally:
        del model.graph.node[nodes:], model.graph.output[:]
    return list(zip(values[::2], values[1::2], strict=True))


def _layer_errors(
    reference: ModelProto, names: Sequence[str], accumulated: Mapping[str, float], local: Mapping[str, float]
) -> Iterator[LayerError]:
    compared = set(names)
    for node in reference.graph.node:
        tensor = next((name for name in node.output if name in compared), None)
        if tensor is None:
            continue
        inputs = [accumulated[name] for name in node.input if name in compared and not math.isnan(accumulated[name])]
        yield LayerError(
            node=node.name,
            op=node.op_type,
            tensor=tensor,
            input_noise_ratio=max(inputs, default=0.0),
            output_noise_ratio=accumulated[tensor],
            local_noise_ratio=local[tensor],
        )

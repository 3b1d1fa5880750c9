"""Where a typed graph leaves its fp32 graph: error of every tensor, carried along and made on the spot.

Both graphs go into one, which sums squares of differences as it runs: no tensor leaves it, and memory stays that of an
inference. The typed graph is the emulated one, since onnxruntime's CPU hides 16-bit rounding. For the error that a node
makes by itself its inputs are the fp32 graph's own.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import activation_ranges
from sweep.precision import graph as graphs
from sweep.precision.convert import start
from sweep.precision.emulate import emulate
from sweep.precision.onnx_tools import quiet, translated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto, NodeProto

    from sweep.spec import Precision

AT_ONCE_BYTES = 512 << 20
"""Of tensors that are compared in one inference."""

_TYPED = "typed/"
_FED = "__fed"  # what the emulation calls an input that it has to round


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One node of the fp32 graph and what its typed version does to its output.

    Attributes:
        node: its name.
        op: its type.
        tensor: its first float output that both graphs have.
        carried_in: noise power over signal power of its worst float input, in the typed graph; 0 is exact.
        carried: the same of its output; ``inf`` where the typed graph is not finite.
        added: the same of its output when its inputs are the fp32 graph's.
    """

    node: str
    op: str
    tensor: str
    carried_in: float
    carried: float
    added: float


def traced(
    source: Path, typed: Path, precision: Precision, feeds: Mapping[str, np.ndarray], at_once: int = AT_ONCE_BYTES
) -> list[Traced]:
    """Every node of the outermost fp32 graph whose float output the typed graph has too, in graph order.

    Args:
        source: the fp32 ONNX that was converted.
        typed: what it was converted to.
        precision: the recipe.
        feeds: every input by name.
        at_once: bytes of the tensors that are compared in one inference; more of them take more inferences.

    Raises:
        ConversionError: the two files do not belong together, or onnxruntime cannot run them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sweep-trace-") as folder,
        quiet(),
        translated(f"{source.name} beside {typed.name}", "convert it again"),
    ):
        emulate(typed, Path(folder, "emulated.onnx"))
        reference = graphs.inferred(start(graphs.load(source), precision))
        rounded = graphs.load(Path(folder, "emulated.onnx"))
        names = _matched(reference, rounded)
        sizes = activation_ranges.bytes_of(reference, names, feeds)
        carried, added = (
            _noise(_merged(reference, rounded, names if local else ()), names, sizes, feeds, at_once)
            for local in (False, True)
        )
    return list(_rows(reference, names, carried, added))


def _matched(reference: ModelProto, rounded: ModelProto) -> list[str]:
    """Float tensors that a node of the fp32 graph makes, and that the typed graph makes under the same name."""
    made = {name for node in rounded.graph.node for name in node.output}
    own = {name for node in reference.graph.node for name in node.output}
    names = [name for name in activation_ranges.floats(reference) if name in own & made]
    if not names:
        raise ConversionError("the typed graph has no tensor of the fp32 graph: give the record of a converted model")
    return names


def _merged(reference: ModelProto, rounded: ModelProto, cut: Collection[str]) -> ModelProto:
    """Both graphs in one, the typed one's tensors prefixed; what it reads of ``cut`` is the fp32 graph's."""
    from onnx import ModelProto, compose

    typed = ModelProto()
    typed.CopyFrom(rounded)
    compose.add_prefix(typed, _TYPED, rename_inputs=False, inplace=True)
    fed = {value.name: value.name.removesuffix(_FED) for value in typed.graph.input}
    renamed = {old: new for old, new in fed.items() if old != new} | {_TYPED + name: name for name in cut}
    for node in typed.graph.node:
        _reread(node, renamed)
    result = ModelProto()
    result.CopyFrom(reference)
    result.graph.node.extend(typed.graph.node)
    result.graph.initializer.extend(typed.graph.initializer)
    del result.graph.output[:], result.graph.value_info[:]
    result.ir_version = max(reference.ir_version, rounded.ir_version)
    known = {item.domain for item in result.opset_import}
    result.opset_import.extend(item for item in typed.opset_import if item.domain not in known)
    return result


def _reread(node: NodeProto, renamed: Mapping[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = renamed.get(name, name)
    for inner in graphs.subgraphs(node):
        for one in inner.node:
            _reread(one, renamed)


def _noise(
    model: ModelProto,
    names: Sequence[str],
    sizes: Mapping[str, int],
    feeds: Mapping[str, np.ndarray],
    at_once: int,
) -> dict[str, float]:
    """Noise power over signal power of each tensor."""
    found: dict[str, float] = {}
    for chunk in activation_ranges.chunks(names, sizes, at_once):
        powers = _powers(model, chunk, feeds)
        found |= {name: _ratio(*pair) for name, pair in zip(chunk, powers, strict=True)}
    return found


def _ratio(noise: float, signal: float) -> float:
    if not math.isfinite(signal):
        return math.nan  # a mask that is infinite in fp32 already says nothing
    if not math.isfinite(noise):
        return math.inf
    return noise / signal if signal else (math.inf if noise else 0.0)


def _powers(model: ModelProto, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[tuple[float, float]]:
    """Sum of squares of the difference, and of the fp32 tensor, for each name."""
    import onnxruntime
    from onnx import TensorProto, helper

    nodes = len(model.graph.node)
    results = []
    for name in names:
        model.graph.node.append(helper.make_node("Sub", [_TYPED + name, name], [f"{name}__off"]))
        for what, result in ((f"{name}__off", f"{name}__noise"), (name, f"{name}__signal")):
            model.graph.node.append(helper.make_node("Cast", [what], [f"{result}64"], to=TensorProto.DOUBLE))
            model.graph.node.append(helper.make_node("ReduceSumSquare", [f"{result}64"], [result], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.DOUBLE, []))
            results.append(result)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with activation_ranges.on_disk(model) as path:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            values = [float(value) for value in session.run(results, dict(feeds))]
    finally:
        del model.graph.node[nodes:], model.graph.output[:]
    return list(zip(values[::2], values[1::2], strict=True))


def _rows(
    reference: ModelProto, names: Sequence[str], carried: Mapping[str, float], added: Mapping[str, float]
) -> Iterator[Traced]:
    known = set(names)
    for node in reference.graph.node:
        tensor = next((name for name in node.output if name in known), None)
        if tensor is None:
            continue
        inputs = [carried[name] for name in node.input if name in known and not math.isnan(carried[name])]
        yield Traced(
            node=node.name,
            op=node.op_type,
            tensor=tensor,
            carried_in=max(inputs, default=0.0),
            carried=carried[tensor],
            added=added[tensor],
        )

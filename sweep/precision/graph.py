"""What both converters need of an ONNX graph: load, infer types, order, save, check."""

from __future__ import annotations

import graphlib
import itertools
from typing import TYPE_CHECKING

from sweep.precision.onnx_tools import one_line, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

SINGLE_FILE_BYTES = 1_500_000_000
"""Weights above this go to a file beside the graph: protobuf ends at 2 GB."""

_SMALL_BYTES = 4096


def load(path: Path, *, weights: bool = True) -> ModelProto:
    """The graph in ``path``, its local functions inlined.

    Args:
        path: an ONNX file.
        weights: also read external data.

    Raises:
        ConversionError: the file or its external data cannot be read as ONNX.
    """
    import onnx
    from onnx import inliner

    with translated(f"{path} cannot be read as ONNX", "export it again"):
        model = onnx.load(path, load_external_data=weights)
        if not model.graph.node:
            raise ValueError("it holds no nodes")
        return inliner.inline_local_functions(model) if model.functions else model


def inferred(model: ModelProto) -> ModelProto:
    """A copy of ``model`` with every type and shape that ONNX can infer; ``model`` itself is used up.

    Large weights sit out the inference, which needs their types only and would copy them twice, or
    refuse above 2 GB.

    Raises:
        ConversionError: the graph contradicts itself.
    """
    from onnx import shape_inference

    taken = take_weights(model)
    with translated("types could not be inferred", "check the file with onnx.checker"):
        result = shape_inference.infer_shapes(model)
    for tensor, data in zip(tensors(result.graph), taken, strict=True):
        if data is not None:
            tensor.raw_data = data
    return result


def take_weights(model: ModelProto) -> list[bytes | None]:
    """Empties the large weights of ``model`` and gives what they held, in the order of ``tensors``; None for others."""
    from onnx import TensorProto

    values_matter = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
    taken: list[bytes | None] = []
    for tensor in tensors(model.graph):
        large = tensor.data_type not in values_matter and len(tensor.raw_data) > _SMALL_BYTES
        taken.append(tensor.raw_data if large else None)
        if large:
            tensor.ClearField("raw_data")
    return taken


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside one node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """``graph`` and every graph inside it, outermost first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every initialiser of ``graph`` and of the graphs inside it."""
    for one in graphs(graph):
        yield from one.initializer


def types(graph: GraphProto, outer: Mapping[str, int] | None = None) -> dict[str, int]:
    """ONNX element type by tensor name, of an inferred graph; ``outer`` is what it captures."""
    found = dict(outer or {})
    for value in itertools.chain(graph.input, graph.output, graph.value_info):
        found[value.name] = value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        found[tensor.name] = tensor.data_type
    return found


def typed_nodes(
    graph: GraphProto, outer: Mapping[str, int] | None = None
) -> Iterator[tuple[NodeProto, dict[str, int]]]:
    """Every node of ``graph`` and of the graphs inside it, with the types in its scope."""
    scope = types(graph, outer)
    for node in graph.node:
        yield node, scope
        for inner in subgraphs(node):
            yield from typed_nodes(inner, scope)


def order(graph: GraphProto) -> None:
    """Sorts the nodes topologically in place, inner graphs too, and drops repeated ones.

    onnxruntime's fp16 converter appends its casts at the end, and the same one twice when two nodes
    want it. What an inner graph captures counts as an input of the node that holds it.
    """
    makers: dict[str, int] = {}
    kept: list[NodeProto] = []
    for node in graph.node:
        if not any(name in makers and kept[makers[name]] == node for name in node.output):
            makers.update((name, len(kept)) for name in node.output if name)
            kept.append(node)
    needs = {index: sorted({makers[name] for name in reads(node) if name in makers}) for index, node in enumerate(kept)}
    chosen = [kept[index] for index in graphlib.TopologicalSorter(needs).static_order()]
    del graph.node[:]
    graph.node.extend(chosen)
    for node in graph.node:
        for inner in subgraphs(node):
            order(inner)


def reads(node: NodeProto) -> Iterator[str]:
    """Every name that ``node`` reads, and that the graphs inside it read or hand out."""
    yield from node.input
    for inner in subgraphs(node):
        yield from (value.name for value in inner.output)
        for one in inner.node:
            yield from reads(one)


def save(model: ModelProto, target: Path) -> None:
    """Writes ``target``, and ``<target name>.data`` beside it when the weights exceed SINGLE_FILE_BYTES.

    The graph names the second file, so the two are moved together and keep their names.
    """
    import onnx

    remove(target)
    if is_large(model):
        onnx.save_model(model, target, save_as_external_data=True, location=data_file(target).name)
    else:
        onnx.save_model(model, target)


def is_large(model: ModelProto) -> bool:
    """Whether the weights of ``model`` need a file of their own."""
    return sum(len(tensor.raw_data) for tensor in tensors(model.graph)) > SINGLE_FILE_BYTES


def data_file(target: Path) -> Path:
    """Where ``save`` puts weights that are too large for ``target`` itself."""
    return target.with_name(f"{target.name}.data")


def remove(target: Path) -> None:
    """Deletes what ``save`` wrote, if anything."""
    target.unlink(missing_ok=True)
    data_file(target).unlink(missing_ok=True)


def problem(path: Path) -> str | None:
    """What onnx.checker (full check) or onnxruntime has to say against ``path``, in one line; None if nothing.

    That onnxruntime's CPU has no kernel for a type, such as a bfloat16 Conv, speaks not against the graph: it looks
    for kernels once it has found the graph valid.
    """
    import onnx
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: what it raises is all that is to be told
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # it fuses fp8 pairs into operators without fp8
    try:
        onnx.checker.check_model(path, full_check=True)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except NoKernel:
        return None
    except Exception as error:  # noqa: BLE001 - both raise types of their own C++ modules, and each is an answer here
        return one_line(error)
    return None

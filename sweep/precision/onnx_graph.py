"""Load, traverse, type, save and validate ONNX graphs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from sweep.precision.onnx_tools import as_conversion_error
from sweep.system import nested_graphs, one_line, save_onnx, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

SINGLE_FILE_BYTES = 1_500_000_000
"""Limit the weights of a single file, in bytes: larger ones go to a file beside it, since protobuf ends at 2 GB."""

_NO_SHAPE = "Field 'shape' of 'type' is required"  # of an output: the checker wants one, and no library needs it
_SMALL_BYTES = 4096


def load(path: Path, *, weights: bool = True) -> ModelProto:
    """Load the graph of a file, its local functions inlined.

    Args:
        path: an ONNX file.
        weights: also read external data.

    Returns:
        The model.

    Raises:
        ConversionError: the file or its external data cannot be read as ONNX.
    """
    import onnx
    from onnx import inliner

    with as_conversion_error(f"{path} cannot be read as ONNX", "export it again"):
        model = onnx.load(path, load_external_data=weights)
        if not model.graph.node:
            raise ValueError("it holds no nodes")
        return inliner.inline_local_functions(model) if model.functions else model


def infer_types(model: ModelProto) -> ModelProto:
    """Infer every type and shape that ONNX can infer.

    Large weights are detached during the inference, which needs their types only and would copy them twice, or refuse
    above 2 GB.

    Args:
        model: the model. It loses its weights.

    Returns:
        A copy with its value_info complete.

    Raises:
        ConversionError: the graph contradicts itself.
    """
    from onnx import shape_inference

    detached = detach_weights(model)
    with as_conversion_error("types could not be inferred", "check the file with onnx.checker"):
        result = shape_inference.infer_shapes(model)
    _attach_weights(result, detached)
    return result


def _attach_weights(model: ModelProto, detached: list[bytes | None]) -> None:
    """Give a model the weights back that ``detach_weights`` took, of it or of its original."""
    for tensor, data in zip(initializers(model.graph), detached, strict=True):
        if data is not None:
            tensor.raw_data = data


def correct_shapes(model: ModelProto) -> None:
    """Replace the declared shapes, of outputs and of tensors in between, that the nodes contradict.

    An exporter or an editor leaves shapes of an earlier version of the graph behind. onnxruntime warns of them and goes
    on; ONNX's inference refuses what is written around them, such as the Cast of an output.

    Args:
        model: a graph with its weights loaded. It is modified, but keeps its weights.
    """
    from onnx import shape_inference

    bare, detached = type(model)(), detach_weights(model)
    bare.CopyFrom(model)
    for graph in nested_graphs(bare.graph):
        for value in (*graph.output, *graph.value_info):
            value.type.tensor_type.ClearField("shape")
    with as_conversion_error("shapes could not be inferred", "check the file with onnx.checker"):
        inferred = shape_inference.infer_shapes(bare, data_prop=True)
    _attach_weights(model, detached)
    for graph, result in zip(nested_graphs(model.graph), nested_graphs(inferred.graph), strict=True):
        values = {value.name: value for value in (*result.output, *result.value_info)}
        for value in (*graph.output, *graph.value_info):
            if value.name in values and _contradict(_dims(value), _dims(values[value.name])):
                value.type.tensor_type.shape.CopyFrom(values[value.name].type.tensor_type.shape)


def _dims(value: ValueInfoProto) -> list[int | None] | None:
    """Return the sizes of a tensor, None for one that is not a number; None where it has no shape."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]


def _contradict(declared: list[int | None] | None, inferred: list[int | None] | None) -> bool:
    if declared is None or inferred is None:
        return False
    pairs = zip(declared, inferred, strict=False)
    return len(declared) != len(inferred) or any(None not in pair and pair[0] != pair[1] for pair in pairs)


def detach_weights(model: ModelProto) -> list[bytes | None]:
    """Clear the large weights of a model and return their bytes.

    Args:
        model: the model. It is modified.

    Returns:
        The bytes of each initializer in the order of ``initializers``; None for those that stay.
    """
    from onnx import TensorProto

    values_matter = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
    detached: list[bytes | None] = []
    for tensor in initializers(model.graph):
        large = tensor.data_type not in values_matter and len(tensor.raw_data) > _SMALL_BYTES
        detached.append(tensor.raw_data if large else None)
        if large:
            tensor.ClearField("raw_data")
    return detached


def initializers(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every initializer of a graph and of the graphs inside it.

    Args:
        graph: the outermost graph.

    Yields:
        Each initializer.
    """
    for nested in nested_graphs(graph):
        yield from nested.initializer


def element_types(graph: GraphProto, outer: Mapping[str, int] | None = None) -> dict[str, int]:
    """Collect the ONNX element type of every tensor in a graph's scope.

    Args:
        graph: a graph with its types inferred.
        outer: types of the enclosing scope, which the graph captures.

    Returns:
        The element type by tensor name.
    """
    types = dict(outer or {})
    for value in itertools.chain(graph.input, graph.output, graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        types[tensor.name] = tensor.data_type
    return types


def typed_nodes(
    graph: GraphProto, outer: Mapping[str, int] | None = None
) -> Iterator[tuple[NodeProto, dict[str, int]]]:
    """Yield every node of a graph and of the graphs inside it, with the types in its scope.

    Args:
        graph: a graph with its types inferred.
        outer: types of the enclosing scope, which the graph captures.

    Yields:
        (node, element type by tensor name).
    """
    scope = element_types(graph, outer)
    for node in graph.node:
        yield node, scope
        for inner in subgraphs(node):
            yield from typed_nodes(inner, scope)


class FreshNames:
    """Give names that no tensor and no node of a graph, or of the graphs inside it, has.

    A user's tensor may be called as a converter would call its own.

    Args:
        graph: the outermost graph.
    """

    def __init__(self, graph: GraphProto) -> None:
        self._taken: set[str] = set()
        for inner in nested_graphs(graph):
            self._taken.update(value.name for value in (*inner.input, *inner.output))
            self._taken.update(tensor.name for tensor in inner.initializer)
            for node in inner.node:
                self._taken.update((node.name, *node.input, *node.output))

    def take(self, name: str) -> str:
        """Return a name and take it: the name itself, with underscores behind it where it is taken.

        Args:
            name: the name that would be best.

        Returns:
            A name that nothing has.
        """
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def names_read(node: NodeProto) -> Iterator[str]:
    """Yield every name that a node reads, and that the graphs inside it read or return.

    Args:
        node: the node.

    Yields:
        Tensor names; ``""`` for an omitted operand.
    """
    yield from node.input
    for inner in subgraphs(node):
        yield from (value.name for value in inner.output)
        for nested in inner.node:
            yield from names_read(nested)


def save(model: ModelProto, target: Path) -> None:
    """Save a model, with weights above ``SINGLE_FILE_BYTES`` in ``<target name>.data`` beside it.

    The graph names the second file, so the two are moved together and keep their names.

    Args:
        model: the model.
        target: the file to write.
    """
    remove(target)
    save_onnx(model, target, external_data_path(target).name if is_large(model) else None)


def is_large(model: ModelProto) -> bool:
    """Tell whether the weights of a model need a file of their own.

    Args:
        model: the model.

    Returns:
        True above ``SINGLE_FILE_BYTES``.
    """
    return sum(len(tensor.raw_data) for tensor in initializers(model.graph)) > SINGLE_FILE_BYTES


def external_data_path(target: Path) -> Path:
    """Return where ``save`` puts weights that are too large for the file itself.

    Args:
        target: the model's file.

    Returns:
        ``<target name>.data`` beside it.
    """
    return target.with_name(f"{target.name}.data")


def remove(target: Path) -> None:
    """Delete the files that ``save`` wrote, if they exist.

    Args:
        target: the model's file.
    """
    target.unlink(missing_ok=True)
    external_data_path(target).unlink(missing_ok=True)


def validation_error(path: Path) -> str | None:
    """Validate a file by onnx.checker (full check) and by loading it into onnxruntime.

    A type for which onnxruntime's CPU has no kernel, such as a bfloat16 Conv, is no error of the graph: onnxruntime
    looks for kernels once it has found the graph valid.

    Args:
        path: the ONNX file.

    Returns:
        The first error in one line; None for a valid graph.
    """
    import onnx
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: the exception carries the whole message
    options.add_session_config_entry(
        "session.disable_quant_qdq", "1"
    )  # onnxruntime fuses fp8 pairs into operators that have no fp8 kernel
    try:
        try:
            onnx.checker.check_model(path, full_check=True)
        except onnx.checker.ValidationError as error:
            if _NO_SHAPE not in str(error):
                raise
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except NoKernel:
        return None
    except Exception as error:  # noqa: BLE001 - both tools raise types of their C++ modules, and every one means an invalid graph
        return one_line(error)
    return None

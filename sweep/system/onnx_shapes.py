"""Name the nodes of an ONNX graph, and infer the shape and type of its tensors with the inputs at given shapes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    Shape = tuple[int, ...]

_SMALL = 4096  # elements of a stored tensor that shape inference may want to read
_TYPE_NAMES = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}
_FLOAT8 = "FLOAT8"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Describe a tensor of a graph.

    Attributes:
        shape: size of each dimension; None unless all are known.
        dtype: fp32, fp16, bf16, fp8, or ONNX's own name in lower case; None where it is not known.
    """

    shape: Shape | None
    dtype: str | None


def bind_inputs(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Fix the shapes of the inputs, and drop those of all other tensors, which hold symbols."""
    for value in graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in shapes[value.name]:
                dims.add(dim_value=size)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def infer_types(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> dict[str, TensorType]:
    """Infer shape and type of the tensors of the outermost graph.

    Args:
        model: the network. Its larger stored tensors lose their values, and its inputs get fixed shapes.
        shapes: shape of each input.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {name: TensorType(tuple(item.dims), type_name(item.data_type)) for name, item in stored.items()}
    for tensor in stored.values():
        if math.prod(tensor.dims) > _SMALL:  # its values are no shape, and inference would copy them
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                tensor.ClearField(field)
    bind_inputs(model.graph, shapes)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    return {value.name: TensorType(_shape(value), _value_type(value)) for value in values} | types


def node_names(graph: onnx.GraphProto) -> list[str]:
    """Return a name of each node, unique in the graph: its own, or its operator and place where it has none."""
    own = {node.name for node in graph.node}
    names: list[str] = []
    used: set[str] = set()
    for place, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{place}"
        if name in used or (not node.name and name in own):
            name = next(text for n in itertools.count(1) if (text := f"{name}_{n}") not in own and text not in used)
        used.add(name)
        names.append(name)
    return names


def operator(node: onnx.NodeProto) -> str:
    """Return a node's operator, with its domain in front unless that is ONNX's own."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def plain_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node that are numbers, texts, or lists of these; an infinite number is a text."""
    import onnx

    kinds = onnx.AttributeProto
    read: dict[int, Callable[[onnx.AttributeProto], Any]] = {
        kinds.INT: lambda item: item.i,
        kinds.FLOAT: lambda item: item.f,
        kinds.STRING: lambda item: item.s.decode(errors="replace"),
        kinds.INTS: lambda item: list(item.ints),
        kinds.FLOATS: lambda item: list(item.floats),
        kinds.STRINGS: lambda item: [text.decode(errors="replace") for text in item.strings],
    }
    return {item.name: _finite(read[item.type](item)) for item in node.attribute if item.type in read}


def _finite(value: Any) -> Any:
    """Return a value, its infinite numbers and NaN as texts, for JSON has none."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _value_type(value: onnx.ValueInfoProto) -> str | None:
    return type_name(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else None


def type_name(number: int) -> str | None:
    """Return the name of an element type: fp32, fp16, bf16, fp8, fp64, or ONNX's in lower case; None if unknown."""
    import onnx

    if number not in onnx.TensorProto.DataType.values() or number == onnx.TensorProto.UNDEFINED:
        return None
    name = onnx.TensorProto.DataType.Name(number)
    return "fp8" if name.startswith(_FLOAT8) else _TYPE_NAMES.get(name, name.lower())

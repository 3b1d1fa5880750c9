"""Apply a pass to the fp32 graph before its precision: onnxslim's simplification, or a user's own function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.precision import onnx_graph
from sweep.precision.onnx_tools import as_conversion_error, quiet_onnxruntime
from sweep.system import element_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto, ValueInfoProto

    from sweep.spec import JsonDict

SIMPLIFY = "simplify"
"""Name the built-in pass."""


def transform(source: Path, name: str, function: Callable[[ModelProto], Any] | None, target: Path) -> JsonDict:
    """Write the graph of a file after a pass that keeps its inputs and outputs.

    Args:
        source: the fp32 ONNX file.
        name: of the pass, as it was requested.
        function: the user's; None simplifies.
        target: the file to write.

    Returns:
        {nodes_before, nodes_after}: number of nodes of the outermost graph.

    Raises:
        ConversionError: the pass raised, returned no ModelProto, changed inputs or outputs, or returned an invalid
            graph.
    """
    model = onnx_graph.load(source)
    nodes, before = len(model.graph.node), _io_types(model)
    context = f"graph={name} on {source.name}"
    with as_conversion_error(context, "mend the function, or leave the pass out"), quiet_onnxruntime():
        result = (function or _simplify)(model)
    _check_result(result, before, context)
    onnx_graph.save(result, target)
    problem = onnx_graph.validation_error(target)
    if problem:
        onnx_graph.remove(target)
        raise ConversionError(f"{context} gave a graph that is not valid: {problem}; mend the function")
    return {"nodes_before": nodes, "nodes_after": len(result.graph.node)}


def _simplify(model: ModelProto) -> Any:
    import onnxslim

    return onnxslim.slim(model)


def _check_result(result: object, before: dict[str, list[tuple[str, str]]], context: str) -> None:
    import onnx

    if not isinstance(result, onnx.ModelProto):
        raise ConversionError(f"{context} gave a {type(result).__name__}, not an onnx.ModelProto: return the graph")
    for kind, before_values in before.items():
        after_values = _io_types(result)[kind]
        if [name for name, _ in after_values] != [name for name, _ in before_values] or any(
            not _types_agree(*pair) for pair in zip(before_values, after_values, strict=True)
        ):
            raise ConversionError(
                f"{context} changed the {kind} from {_format_values(before_values)} to {_format_values(after_values)}: "
                "a pass has to keep them"
            )


def _io_types(model: ModelProto) -> dict[str, list[tuple[str, str]]]:
    """List the inputs and outputs: name, and type with its dimensions, ``?`` for symbolic ones."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [(value.name, _type(value)) for value in model.graph.input if value.name not in stored],
        "outputs": [(value.name, _type(value)) for value in model.graph.output],
    }


def _type(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = (element_type(tensor.elem_type) or f"type {tensor.elem_type}").lower()
    if not tensor.HasField("shape"):
        return kind
    return f"{kind}[{','.join(str(dim.dim_value or '?') for dim in tensor.shape.dim)}]"


def _types_agree(before: tuple[str, str], after: tuple[str, str]) -> bool:
    """Tell whether two types agree wherever both are known; a pass may infer a shape or drop one."""
    (kind, _, sizes), (other, _, others) = before[1].partition("["), after[1].partition("[")
    if kind != other:
        return False
    if not sizes or not others:
        return True
    pairs = list(zip(sizes.rstrip("]").split(","), others.rstrip("]").split(","), strict=False))
    same = sizes.count(",") == others.count(",")
    return same and all(one == two or "?" in {one, two} for one, two in pairs)


def _format_values(values: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in values) or "none"

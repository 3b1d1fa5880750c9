"""A pass over the fp32 graph before its precision: onnxslim's simplification, or a user's own function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.precision import graph as graphs
from sweep.precision.onnx_tools import quiet, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto, ValueInfoProto

    from sweep.spec import JsonDict

SIMPLIFY = "simplify"
"""The pass that comes with `sweep`."""


def transform(source: Path, name: str, function: Callable[[ModelProto], Any] | None, target: Path) -> JsonDict:
    """Writes ``target``: the graph in ``source`` after the pass, its inputs and outputs as they were.

    Args:
        source: the fp32 ONNX.
        name: of the pass, as it was asked for.
        function: the user's; None simplifies.
        target: file to write.

    Returns:
        {nodes_before, nodes_after}: nodes of the outermost graph.

    Raises:
        ConversionError: the pass raised, gave no ModelProto, changed inputs or outputs, or gave an invalid graph.
    """
    model = graphs.load(source)
    nodes, before = len(model.graph.node), _contract(model)
    doing = f"graph={name} on {source.name}"
    with translated(doing, "mend the function, or leave the pass out"), quiet():
        found = (function or _simplified)(model)
    _refuse_other(found, before, doing)
    graphs.save(found, target)
    problem = graphs.problem(target)
    if problem:
        graphs.remove(target)
        raise ConversionError(f"{doing} gave a graph that is not valid: {problem}; mend the function")
    return {"nodes_before": nodes, "nodes_after": len(found.graph.node)}


def _simplified(model: ModelProto) -> Any:
    import onnxslim

    return onnxslim.slim(model)


def _refuse_other(found: object, before: dict[str, list[tuple[str, str]]], doing: str) -> None:
    import onnx

    if not isinstance(found, onnx.ModelProto):
        raise ConversionError(f"{doing} gave a {type(found).__name__}, not an onnx.ModelProto: return the graph")
    for kind, was in before.items():
        now = _contract(found)[kind]
        if [name for name, _ in now] != [name for name, _ in was] or any(
            not _fits(*pair) for pair in zip(was, now, strict=True)
        ):
            raise ConversionError(
                f"{doing} changed the {kind} from {_listed(was)} to {_listed(now)}: a pass has to keep them"
            )


def _contract(model: ModelProto) -> dict[str, list[tuple[str, str]]]:
    """Inputs and outputs: name, and type with its dimensions, ``?`` for symbolic ones."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [(value.name, _type(value)) for value in model.graph.input if value.name not in stored],
        "outputs": [(value.name, _type(value)) for value in model.graph.output],
    }


def _type(value: ValueInfoProto) -> str:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return kind
    return f"{kind}[{','.join(str(dim.dim_value or '?') for dim in tensor.shape.dim)}]"


def _fits(was: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether the types agree wherever both say something; a pass may infer a shape or forget one."""
    (kind, _, sizes), (other, _, others) = was[1].partition("["), now[1].partition("[")
    if kind != other:
        return False
    if not sizes or not others:
        return True
    pairs = list(zip(sizes.rstrip("]").split(","), others.rstrip("]").split(","), strict=False))
    same = sizes.count(",") == others.count(",")
    return same and all(one == two or "?" in {one, two} for one, two in pairs)


def _listed(values: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in values) or "none"

"""What a graph asks to be computed in, read from its own types: never from its name or its label."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision import graph as graphs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto

    from sweep.spec import Precision

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The op types that hold a network's multiplications, and whose types are its precision."""

QUANTISED = ("int8", "fp8")
"""The precisions that live in Q/DQ pairs."""

_RECURRENT = ("LSTM", "GRU", "RNN", "Einsum")
_INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")
_FLOATS = ("fp16", "bf16", "fp32")
_NO_REST = (*COMPUTE, "DequantizeLinear", "QuantizeLinear", "Cast", "Identity")
_SHOWN = ("int8", "fp8", "fp16", "bf16", "fp32")
_BY_LABEL = {"fp32": "fp32", "tf32": "fp32"}
_MOVERS = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")


def dtypes(path: Path) -> dict[str, int]:
    """How many compute nodes are asked to compute in which type.

    Compute nodes are Conv, ConvTranspose, Gemm and MatMul (and LSTM, GRU, RNN, Einsum, where a
    network has them), those inside control flow included. A node whose two operands both come out of
    DequantizeLinear computes in the type that went into it; any other in the type of its operands.

    Returns:
        ``{"int8": 21, "fp8": 0, "fp16": 0, "bf16": 0, "fp32": 1}``: these five keys always, others
        (fp64, unknown, ...) where found.

    Raises:
        ConversionError: ``path`` cannot be read as ONNX.
    """
    return counted(graphs.inferred(graphs.load(path, weights=False)))


def counted(model: ModelProto) -> dict[str, int]:
    """As ``dtypes``, of a graph in memory with its types inferred."""
    found = Counter(asked for _, asked in compute_types(model))
    return {name: found.pop(name, 0) for name in _SHOWN} | dict(sorted(found.items()))


def compute_types(model: ModelProto) -> list[tuple[str, str]]:
    """(node, type asked) of every compute node of an inferred graph, in graph order."""
    return [
        (node.name or node.output[0], _asked(node, scope, makers))
        for node, scope, makers in _with_makers(model.graph)
        if node.op_type in (*COMPUTE, *_RECURRENT, *_INTEGER)
    ]


def _with_makers(graph: GraphProto) -> list[tuple[NodeProto, dict[str, int], dict[str, NodeProto]]]:
    makers: dict[str, NodeProto] = {}
    rows = []
    for node, scope in graphs.typed_nodes(graph):
        makers.update((name, node) for name in node.output)
        rows.append((node, scope, makers))
    return rows


def _asked(node: NodeProto, scope: Mapping[str, int], makers: Mapping[str, NodeProto]) -> str:
    if node.op_type in _INTEGER:
        return "int8"
    operands = [name for name in node.input[:2] if name]
    stored = [_stored(name, scope, makers) for name in operands]
    if all(stored):
        return str(stored[0])
    known = [scope[name] for name in (*operands, *node.output) if scope.get(name)]
    return name_of(known[0]) if known else "unknown"


def _stored(name: str, scope: Mapping[str, int], makers: Mapping[str, NodeProto]) -> str | None:
    """Type under the DequantizeLinear that ``name`` comes from; None when it comes from elsewhere."""
    node = makers.get(name)
    while node is not None and node.op_type in _MOVERS:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return name_of(scope.get(node.input[0], 0))


def name_of(elem_type: int) -> str:
    """The table's name of an ONNX element type; signed or not, eight-bit integers are ``int8``."""
    from onnx import TensorProto

    special = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "uint8": "int8"}
    name = TensorProto.DataType.Name(elem_type).lower() if elem_type else "unknown"
    return "fp8" if name.startswith("float8") else special.get(name, name)


def check_label(path: Path, precision: Precision, advice: str | None = None) -> None:
    """Refuses a precision that the file's types do not carry.

    fp32 and tf32 want float32 compute nodes only, fp16 and bf16 their own type only, int8 and fp8 at
    least one quantised node and, beside those, nothing but the type of the rest. A recipe with the range
    guard may have float32 beside it.

    Args:
        path: the file.
        precision: the label.
        advice: what to do about a mismatch; None says what fits the type.

    Raises:
        ConversionError: with the types found and what to do.
    """
    model = graphs.inferred(graphs.load(path, weights=False))
    refuse_mismatch(counted(model), precision, path.name, advice)
    refuse_rest(model, precision, path.name)


def refuse_rest(model: ModelProto, precision: Precision, what: str) -> None:
    """Refuses a quantised graph, with its types inferred, whose rest is of another type than the label's.

    The rest is what is dequantised to; where products are wide, what all nodes give that are no product.
    """
    if precision.dtype not in QUANTISED:
        return
    rest = precision.rest or "fp32"
    given = Counter(
        name_of(scope.get(node.output[0], 0))
        for node, scope in graphs.typed_nodes(model.graph)
        if (node.op_type not in _NO_REST if precision.wide else node.op_type == "DequantizeLinear")
    )
    found = {name: given[name] for name in _FLOATS if given[name]}
    allowed = {rest, *(["fp32"] if precision.guard or precision.wide else [])}
    if set(found) - allowed or (found and rest not in found):
        raise ConversionError(
            f"precision {precision.name} asks for {precision.dtype} and {rest} beside it, but {what} holds "
            f"{spelled(found)} beside it: set precision.rest to what the file has"
        )


def refuse_mismatch(found: Mapping[str, int], precision: Precision, what: str, advice: str | None = None) -> None:
    """As ``check_label``, of types already counted in the file called ``what``."""
    wanted = _BY_LABEL.get(precision.dtype, precision.dtype)
    allowed = {wanted, "unknown", *(["fp32"] if precision.guard and found.get(wanted) else [])}
    others = {name: count for name, count in found.items() if count and name not in allowed}
    if wanted in QUANTISED:
        wrong = not found.get(wanted) or bool(others.keys() - {precision.rest or "fp32"})
    else:
        wrong = bool(others)
    if wrong:
        raise ConversionError(
            f"precision {precision.name} asks for {wanted} compute, but {what} computes in {spelled(found)}: "
            f"{advice or _advice(wanted)}"
        )


def _advice(wanted: str) -> str:
    if wanted == "fp32":
        return "give the float32 export of the model, or ask for the precision that the file has"
    return "give a float32 export that is built of Conv, ConvTranspose, Gemm and MatMul outside control flow"


def spelled(found: Mapping[str, int]) -> str:
    """Counts as a reader wants them: ``fp16 21, fp32 1``; ``no compute nodes`` for none."""
    return ", ".join(f"{name} {count}" for name, count in found.items() if count) or "no compute nodes"

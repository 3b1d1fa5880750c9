"""Save ONNX files that the installed onnxruntime reads, and go over the graphs inside a graph.

Every model that `sweep` writes goes through ``save_onnx``.

onnx and onnxruntime are released apart: onnx 1.23 writes IR version 14, and onnxruntime 1.31 reads up to 13. Needs no
more of `sweep` than the standard library, so that a child in another interpreter can use it.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto

_ALWAYS_READ = 10  # IR version that every supported onnxruntime reads
_SILENT = 4  # severity of onnxruntime's log: fatal errors only


def element_type(number: int) -> str | None:
    """Return ONNX's name of an element type, such as FLOAT; None for a number that the installed onnx does not know."""
    from onnx import TensorProto

    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else None


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs inside a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nested_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and every graph inside it, outermost first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from nested_graphs(inner)


def make_node_names_unique(graph: GraphProto) -> None:
    """Give every later node of one name another, inside control flow too; nodes without a name keep none.

    Args:
        graph: the outermost graph. It is modified.
    """
    nodes = [node for inner in nested_graphs(graph) for node in inner.node if node.name]
    names, used = {node.name for node in nodes}, set[str]()
    for node in nodes:
        if node.name in used:
            number = next(n for n in itertools.count(1) if f"{node.name}_{n}" not in names)
            node.name = f"{node.name}_{number}"
            names.add(node.name)
        used.add(node.name)


def save_onnx(model: ModelProto, target: Path, weights: str | None = None) -> None:
    """Save a model in an IR version that the installed onnxruntime reads.

    Args:
        model: the model; its IR version is lowered in place where it is too new.
        target: the file to write, a protobuf whatever its suffix.
        weights: name of the file beside it that takes the weights; None leaves them in the file itself.
    """
    import onnx

    if not is_readable_ir(model.ir_version):
        model.ir_version = readable_ir_version()
    onnx.save_model(model, str(target), format="protobuf", save_as_external_data=weights is not None, location=weights)


def is_readable_ir(version: int) -> bool:
    """Tell whether the installed onnxruntime reads an IR version; it is imported for a new one only."""
    return version <= _ALWAYS_READ or version <= readable_ir_version()


@functools.cache
def readable_ir_version() -> int:
    """Return the newest IR version that the installed onnxruntime reads.

    It does not tell, so the versions that the installed onnx writes are tried, the newest first.
    """
    import onnx

    return next((version for version in range(onnx.IR_VERSION, _ALWAYS_READ, -1) if _reads(version)), _ALWAYS_READ)


def _reads(ir_version: int) -> bool:
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - its own type of a C++ module; the probe is valid but for its version
        return False
    return True

"""Join the engine's own listing of its layers to the nodes of the typed graph.

The listing tells of each layer which nodes the parser took it from, in its metadata: ``[ONNX Layer: NAME]``, once for
each node. An older one tells it by the name of the layer alone: ``conv1 + relu1``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import engine_inspector
from sweep.system import nested_graphs, onnx_shapes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import GraphProto

    from sweep.spec import JsonDict

# A name may have brackets of its own, and the library may add words behind it, as in ``]__gemm_from_conv1x1``.
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[^\[\]]*(?:\[ONNX Layer: |$))", re.DOTALL)
_SEPARATORS = re.compile(r"[+,()\s]+")  # in the name of a layer without metadata: "conv1 + relu1", "PWN(sigmoid)"
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"})
_TYPES = {
    "float": "fp32",
    "half": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "uint8": "uint8",
    "fp4": "fp4",
    "int4": "int4",
}
_REFORMAT = ("reformat", "shuffle", "transpose", "noop")
_COPY = ("copy", "memcpy", "concat", "slice")
_GENERATED = re.compile(r"__myl_(?P<words>[A-Za-z]+)_myl")  # a generated kernel; its name has a word for each operation
_WORD = re.compile(r"[A-Z][a-z]*")
_MOVES = frozenset({"Tran", "Resh", "Move", "Reformat", "Shuffle", "Copy", "Conc", "Slic", "Pad", "Repl"})
_RESHAPES = frozenset({"Tran", "Resh", "Reformat", "Shuffle", "Pad"})


def describe_layers(information: JsonDict, graph: GraphProto | None) -> list[JsonDict]:
    """Return the layers of a listing, without their times; those that have names alone are left out.

    Args:
        information: the listing, in the inspector's form.
        graph: the typed graph; None for a plan that came without one.
    """
    nodes = _ParsedNodes(graph)
    items = [item for item in information["Layers"] if isinstance(item, dict)]
    computed = {name for item in items if engine_inspector.carries_arithmetic(item) for name in nodes.products(item)}
    used: dict[str, int] = {}
    return [_layer(item, nodes.of(item, computed), used) for item in items]


class _ParsedNodes:
    """Find the nodes of a layer by what the library's parser calls them; a node in a subgraph is its outer one.

    Args:
        graph: the typed graph; None finds no node.

    Source:
        ``getNodeName`` of onnx-tensorrt: a node without a name is called after its first output.
    """

    def __init__(self, graph: GraphProto | None) -> None:
        self._names: dict[str, tuple[int, str]] = {}
        self._products: set[str] = set()
        if graph is None:
            return
        for place, (name, node) in enumerate(zip(onnx_shapes.node_names(graph), graph.node, strict=True)):
            inner = [item for body in subgraphs(node) for nested in nested_graphs(body) for item in nested.node]
            for item in (node, *inner):
                called = item.name or (f"node_of_{item.output[0]}" if item.output else "")
                self._names.setdefault(called, (place, name))
            if node.op_type in _PRODUCTS:
                self._products.add(name)

    def products(self, item: Mapping[str, Any]) -> set[str]:
        """Return the convolutions and matrix products among the nodes of a listed layer."""
        return set(self._of(item)) & self._products

    def of(self, item: Mapping[str, Any], computed: set[str]) -> list[str]:
        """Return the nodes that a listed layer computes.

        The listing names a product also for what prepares its input or finishes its output. Where some layer computes
        the product itself (``computed``), it is no node of the others.
        """
        names = self._of(item)
        if engine_inspector.carries_arithmetic(dict(item)):
            return names
        return [name for name in names if name not in computed]

    def _of(self, item: Mapping[str, Any]) -> list[str]:
        called = _NODE.findall(str(item.get("Metadata") or "")) or _SEPARATORS.split(str(item.get("Name", "")))
        return [name for _, name in sorted({self._names[text] for text in called if text in self._names})]


def _layer(item: Mapping[str, Any], nodes: list[str], used: dict[str, int]) -> JsonDict:
    own = str(item.get("Name", ""))
    used[own] = used.get(own, 0) + 1
    stream = str(item.get("StreamId", ""))
    return {
        "name": own if used[own] == 1 else f"{own}#{used[own]}",
        "kind": str(item.get("LayerType", "")),
        "time": None,
        "nodes": nodes,
        "added": None if nodes else reason_added(str(item.get("LayerType", "")), own),
        "inputs": _tensors(item.get("Inputs", ())),
        "constants": _tensors(item.get("Constants", ())),
        "outputs": _tensors(item.get("Outputs", ())),
        "tactic": str(item["TacticName"]) if item.get("TacticName") else None,
        "stream": int(stream) if stream.isdecimal() else None,
    }


def with_times(layers: list[JsonDict], times: Mapping[str, JsonDict]) -> tuple[list[JsonDict], list[str]]:
    """Return the layers with their times, in the order in which they ran, and notes on what does not match.

    Args:
        layers: the layers of the listing.
        times: {time, kernels} by the name of the layer, in the order in which they ran.
    """
    listed = {layer["name"]: layer for layer in layers}
    ran = [{**(listed.get(name) or _unlisted(name)), **measured} for name, measured in times.items()]
    silent = [layer for layer in layers if layer["name"] not in times]
    notes = []
    unlisted = sum(name not in listed for name in times)
    if unlisted:
        notes.append(f"{unlisted} of {len(times)} layers that ran are not in the engine's listing")
    if silent:
        notes.append(f"{len(silent)} of {len(layers)} layers of the engine's listing were not timed")
    return [*ran, *silent], notes


def _unlisted(name: str) -> JsonDict:
    """Return a layer that the listing does not have."""
    return {
        "name": name,
        "kind": "",
        "time": None,
        "nodes": [],
        "added": reason_added("", name),
        "inputs": [],
        "constants": [],
        "outputs": [],
        "tactic": None,
        "stream": None,
    }


def reason_added(kind: str, name: str) -> str:
    """Return why the library added a layer that no node asks for: reformat, copy, cast or other.

    Args:
        kind: its type.
        name: its name, which tells what a generated kernel does.
    """
    generated = _GENERATED.search(name)
    if generated:
        words = set(_WORD.findall(generated["words"]))
        if "Cast" in words and words <= _MOVES | {"Cast"}:
            return "cast"
        if words <= _MOVES:
            return "reformat" if words & _RESHAPES else "copy"
    text = f"{kind} {name}".lower()
    if any(word in text for word in _REFORMAT):
        return "reformat"
    if "cast" in kind.lower():
        return "cast"
    return "copy" if any(word in kind.lower() for word in _COPY) else "other"


def _tensors(items: Sequence[Mapping[str, Any]]) -> list[JsonDict]:
    return [_tensor(item) for item in items if isinstance(item, dict)]


def _tensor(item: Mapping[str, Any]) -> JsonDict:
    told = next((str(item[key]) for key in ("Datatype", "DataType") if item.get(key)), None)
    form = next((str(item[key]) for key in ("Format", "Format/Datatype") if item.get(key)), None)
    dims = item.get("Dimensions")
    return {
        "name": str(item.get("Name", "")),
        "shape": [int(size) for size in dims] if isinstance(dims, list) else None,
        "dtype": engine_inspector.tensor_type(dict(item)) if told is None else _TYPES.get(told.lower(), told),
        "format": form,
    }

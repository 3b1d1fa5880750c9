"""Join the engine's own listing of its layers to the nodes of the typed graph.

The listing tells of each layer which nodes the parser took it from, in its metadata: ``[ONNX Layer: NAME]``, once for
each node.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sweep.system import nested_graphs, onnx_shapes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import GraphProto

    from sweep.spec import JsonDict

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=$|\x1e|\x1f|, |\[)", re.DOTALL)
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
_MOVES = frozenset({"Tran", "Resh", "Move", "Reformat", "Shuffle", "Copy", "Concat", "Slice", "Pad", "Repl"})
_RESHAPES = frozenset({"Tran", "Resh", "Reformat", "Shuffle", "Pad"})


def describe_layers(information: JsonDict, graph: GraphProto | None) -> list[JsonDict]:
    """Return the layers of a listing, without their times; those that have names alone are left out.

    Args:
        information: the listing, in the inspector's form.
        graph: the typed graph; None for a plan that came without one.
    """
    names = {} if graph is None else parser_names(graph)
    layers = [item for item in information["Layers"] if isinstance(item, dict)]
    used: dict[str, int] = {}
    return [_layer(item, names, used) for item in layers]


def parser_names(graph: GraphProto) -> dict[str, tuple[int, str]]:
    """Return place and name of each node by what the library's parser calls it; a node in a subgraph is its outer one.

    Source:
        ``getNodeName`` of onnx-tensorrt: a node without a name is called after its first output.
    """
    names: dict[str, tuple[int, str]] = {}
    for place, (name, node) in enumerate(zip(onnx_shapes.node_names(graph), graph.node, strict=True)):
        inner = [item for body in subgraphs(node) for nested in nested_graphs(body) for item in nested.node]
        for item in (node, *inner):
            called = item.name or (f"node_of_{item.output[0]}" if item.output else "")
            names.setdefault(called, (place, name))
    return names


def _layer(item: Mapping[str, Any], names: Mapping[str, tuple[int, str]], used: dict[str, int]) -> JsonDict:
    own = str(item.get("Name", ""))
    used[own] = used.get(own, 0) + 1
    nodes = sorted({names[name] for name in _NODE.findall(str(item.get("Metadata") or "")) if name in names})
    stream = str(item.get("StreamId", ""))
    return {
        "name": own if used[own] == 1 else f"{own}#{used[own]}",
        "kind": str(item.get("LayerType", "")),
        "time": None,
        "nodes": [name for _, name in nodes],
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
        if words == {"Cast"}:
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
    told = next((str(item[key]) for key in ("Datatype", "DataType", "Format/Datatype") if item.get(key)), None)
    dims = item.get("Dimensions")
    return {
        "name": str(item.get("Name", "")),
        "shape": [int(size) for size in dims] if isinstance(dims, list) else None,
        "dtype": None if told is None else _TYPES.get(told.lower(), told),
        "format": str(item["Format"]) if item.get("Format") else None,
    }

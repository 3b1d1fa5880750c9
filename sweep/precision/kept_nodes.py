"""Find the nodes that a recipe keeps in float32 by name, pattern or op type."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.precision.notes import count_of, first_names
from sweep.system import nested_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

_NEAREST = 3


def matching_nodes(model: ModelProto, patterns: Sequence[str], context: str) -> tuple[str, ...]:
    """Name the nodes that any of the patterns matches, those inside control flow included.

    Args:
        model: a graph with every node named.
        patterns: each the name of a node, a pattern of names as of a shell (``/head/*``), or an op type.
        context: what was requested of which file, the start of an error message.

    Returns:
        Node names, in graph order.

    Raises:
        ConversionError: a pattern matches nothing; the message has the nearest names.
    """
    nodes = [(node.name, node.op_type) for graph in nested_graphs(model.graph) for node in graph.node]
    for pattern in patterns:
        if not any(_matches(pattern, *node) for node in nodes):
            names = sorted({word for node in nodes for word in node})
            nearest = difflib.get_close_matches(pattern, names, _NEAREST, cutoff=0)
            raise ConversionError(
                f"{context}: precision.keep={pattern} is no node, no pattern of nodes and no op type of the graph; "
                f"nearest: {', '.join(nearest)}"
            )
    return tuple(name for name, op in nodes if any(_matches(pattern, name, op) for pattern in patterns))


def _matches(pattern: str, name: str, op: str) -> bool:
    return pattern in {name, op} or fnmatchcase(name, pattern)  # a name may hold brackets, so it is compared first


def keep_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Word the note about nodes that the recipe keeps.

    Args:
        names: of the nodes.

    Returns:
        One note, or none where there are no such nodes.
    """
    if not names:
        return ()
    return (f"{count_of(len(names), 'node')} kept in fp32 by precision.keep: {first_names(names)}",)

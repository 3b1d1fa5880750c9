"""Split the names of ONNX nodes into scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.analysis.layers import LayerRow

ADDED = {"reformat": "reformat", "copy": "copy", "cast": "cast", "other": "the library's own"}
"""Words for why the library added a layer."""


def scope_of(row: LayerRow) -> tuple[str, ...]:
    """Return the scope of a layer: the parts of the names that all of its nodes share, or why the library added it.

    Names are split at ``/`` and ``.``, as exporters write modules; a scope does not hold the node itself.
    """
    if not row.nodes:
        return (f"({ADDED.get(row.added or 'other', row.added)})",)
    parts = [name_parts(name)[:-1] for name in row.nodes]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return tuple(shared) or (parts[0][:1] or ("(no scope)",))


def name_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a node's name, at least one: ``/layer1/conv/Conv`` has three."""
    return tuple(part for part in name.replace(".", "/").split("/") if part) or (name,)

"""Sum the layers of a profile by kind, by scope and by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.report.layers.names import scope_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sweep.analysis.layers import LayerRow
    from sweep.report.layers.profiles import Source

BY = ("layer", "kind", "scope", "node")
_DEPTH = 2  # parts of a name that are a scope in a table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Hold the time of several layers.

    Attributes:
        name: what they have in common.
        layers: how many they are.
        time_us: their time, us.
        share: its part of the sum of all layers.
        detail: operators, or what a node is fused with.
    """

    name: str
    layers: int
    time_us: float
    share: float
    detail: str


def sums(source: Source, by: str) -> list[Sum]:
    """Return the time by `by` (kind, scope or node), longest first.

    Of nodes, the time is that of the layers which compute them: a layer's time is not known node by node, so that the
    nodes of one layer have the same.
    """
    if by == "kind":
        return _grouped(source, lambda row: [row.category])
    if by == "scope":
        return _grouped(source, lambda row: ["/".join(scope_of(row)[:_DEPTH])])
    return _by_node(source)


def top_rows(source: Source, most: int | None) -> list[LayerRow]:
    """Return the layers with the longest time first; at most `most`."""
    rows = sorted(source.analysis.rows, key=lambda row: -(row.time_us or 0.0))
    return rows if most is None else rows[:most]


def _grouped(source: Source, names: Callable[[LayerRow], Iterable[str]]) -> list[Sum]:
    rows: dict[str, list[LayerRow]] = {}
    for row in source.analysis.rows:
        for name in names(row):
            rows.setdefault(name, []).append(row)
    return _sorted(source, [(name, items, _operators(items)) for name, items in rows.items()])


def _by_node(source: Source) -> list[Sum]:
    ops = {node["name"]: node["op"] for node in source.profile["nodes"]}
    rows: dict[str, list[LayerRow]] = {}
    for row in source.analysis.rows:
        for node in row.nodes:
            rows.setdefault(node, []).append(row)
    items = []
    for node, layers in rows.items():
        beside = {other for row in layers for other in row.nodes} - {node}
        fused = f", fused with {len(beside)} more" if beside else ""
        items.append((node, layers, f"{ops.get(node, '?')}{fused}"))
    return _sorted(source, items)


def _sorted(source: Source, items: Sequence[tuple[str, Sequence[LayerRow], str]]) -> list[Sum]:
    whole = source.analysis.totals.layers_us
    made = []
    for name, rows, detail in items:
        time = sum(row.time_us or 0.0 for row in rows)
        made.append(Sum(name=name, layers=len(rows), time_us=time, share=time / whole if whole else 0.0, detail=detail))
    return sorted(made, key=lambda item: -item.time_us)


def _operators(rows: Sequence[LayerRow], most: int = 4) -> str:
    """Return the operators of layers, those with the longest time first."""
    times: dict[str, float] = {}
    for row in rows:
        for op in row.op_kinds or (row.kind,):
            times[op] = times.get(op, 0.0) + (row.time_us or 0.0)
    names = sorted(times, key=lambda op: -times[op])
    return ", ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")

"""Find where the time of a layer profile may be lost, by rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers.graph import Graph
    from sweep.analysis.layers.types import Finding, LayerRow, Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Describe one kind of finding.

    Attributes:
        kind: its name.
        title: what is wrong, in a few words.
        meaning: what it means.
        advice: what to try.
        source: section of the document that it follows.
    """

    kind: str
    title: str
    meaning: str
    advice: str
    source: str


RULES: dict[str, Rule] = {}


def find(graph: Graph, rows: Sequence[LayerRow], totals: Totals, threshold: float) -> list[Finding]:
    """Return the findings of all rules, the most costly first."""
    del graph, rows, totals, threshold
    return []

"""Find where the time of a layer profile may be lost, by rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.layers.fusion_findings import FUSION_RULES
from sweep.analysis.layers.layout_findings import LAYOUT_RULES
from sweep.analysis.layers.precision_findings import PRECISION_RULES
from sweep.analysis.layers.rule import Draft, Rule, Seen
from sweep.analysis.layers.time_findings import TIME_RULES
from sweep.analysis.layers.types import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers.graph import Graph
    from sweep.analysis.layers.peaks import Peaks
    from sweep.analysis.layers.types import LayerRow, Totals

RULES: dict[str, Rule] = {rule.kind: rule for rule in (*LAYOUT_RULES, *PRECISION_RULES, *FUSION_RULES, *TIME_RULES)}
"""Every rule by its kind."""


def find(
    graph: Graph, rows: Sequence[LayerRow], totals: Totals, peaks: Peaks | None, threshold: float
) -> list[Finding]:
    """Return the findings of all rules, the most costly first.

    Args:
        graph: the graph of the profile.
        rows: its layers.
        totals: figures of the engine.
        peaks: peaks of the device; None where they are not known.
        threshold: share of an inference's time below which a finding is small.
    """
    seen = Seen(graph=graph, rows=rows, totals=totals, peaks=peaks)
    findings = [_finding(rule, draft, seen, threshold) for rule in RULES.values() for draft in rule.detect(seen)]
    return sorted(findings, key=lambda finding: -finding.cost_us)


def _finding(rule: Rule, draft: Draft, seen: Seen, threshold: float) -> Finding:
    whole_us = max(seen.totals.timed_us, seen.totals.layers_us)
    share = draft.cost_us / whole_us if whole_us else 0.0
    return Finding(
        kind=rule.kind,
        title=draft.title,
        layers=tuple(seen.rows[place].name for place in dict.fromkeys(draft.places)),
        nodes=tuple(dict.fromkeys(draft.nodes)),
        cost_us=draft.cost_us,
        share=share,
        saving_us=draft.saving_us,
        explanation=draft.explanation,
        advice=draft.advice or rule.advice,
        source=rule.source,
        small=share < threshold,
    )

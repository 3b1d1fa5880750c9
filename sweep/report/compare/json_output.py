"""Write a comparison as JSON, for scripts."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

from sweep.report.compare.figures import FIGURES, PEAK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import Outcome, Row, RunComparison
    from sweep.spec import JsonDict

VERSION = 1


def as_json(comparison: RunComparison, failed: Sequence[Failure]) -> bytes:
    """Return the JSON document; its fields are listed in docs/howto/compare-two-runs.md."""
    counts: dict[Outcome, int] = {}
    for row in comparison.rows:
        counts[row.outcome] = counts.get(row.outcome, 0) + 1
    content = {
        "format": "sweep-comparison",
        "version": VERSION,
        "old": comparison.old,
        "new": comparison.new,
        "facts": [dataclasses.asdict(fact) for fact in comparison.facts],
        "evidence": comparison.evidence,
        "notes": list(comparison.notes),
        "summary": comparison.summary,
        "counts": counts,
        "failures": [
            {"variant": failure.row.label, "gate": failure.kind, "message": failure.message} for failure in failed
        ],
        "rows": [_row(row) for row in comparison.rows],
    }
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _row(row: Row) -> JsonDict:
    change = row.change
    return {
        "variant": row.label,
        "old_key": None if row.old is None else row.old.key,
        "new_key": None if row.new is None else row.new.key,
        "verdict": row.outcome,
        "reason": row.reason,
        "ratio": None if change is None else change.ratio,
        "ratio_interval": None if change is None else _interval(change.low, change.high),
        "capacity_ratio_interval": None if row.capacity is None else _interval(*row.capacity),
        "rates": [
            {
                "offered_ips": item.offered_ips,
                "figure": item.figure,
                "old": item.old,
                "new": item.new,
                "ratio": item.change.ratio,
                "ratio_interval": _interval(item.change.low, item.change.high),
                "verdict": item.verdict,
            }
            for item in row.rates
        ],
        **{figure.name: dict(zip(("old", "new"), figure.pair(row), strict=True)) for figure in (PEAK, *FIGURES)},
    }


def _interval(low: float, high: float) -> list[float | None]:
    """Return the ends of an interval; None for one without a bound, which JSON cannot hold."""
    return [low, None if math.isinf(high) else high]

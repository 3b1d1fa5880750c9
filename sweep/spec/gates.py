"""Describe the accuracy gates of a sweep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Set the accuracy that outputs have to keep, else the variant is ``invalid``; None leaves a figure without a gate.

    Attributes:
        min_sqnr_db: least SQNR; None takes the type's own, which lies well below every engine that was right and above
            those that were wrong (docs/explanation/precision.md).
        min_top1: least share of samples with the same arg max, 0 to 1.
        max_error: largest error as a share of the largest reference value.
        min_cosine: least batch-centred cosine.
        min_score: least share of labelled samples that are right, 0 to 1.
        max_score_drop: most that this share may lie below that of fp32, 0 to 1.
    """

    min_sqnr_db: float | None = None
    min_top1: float | None = None
    max_error: float | None = None
    min_cosine: float | None = None
    min_score: float | None = None
    max_score_drop: float | None = None

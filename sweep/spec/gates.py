"""Describe the accuracy gates and other limits of a sweep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Hold the limits of accuracy; a variant that breaks one is ``invalid``. None is no limit, except for SQNR.

    Attributes:
        min_sqnr_db: least SQNR, dB; None takes what rounding explains for the network and its inputs, less a margin
            (docs/explanation/precision.md).
        min_top1: least share of samples with the same arg max, 0 to 1.
        max_error: largest error as a share of the largest reference value.
        min_cosine: least cosine similarity, both sides centered over the batch, -1 to 1.
        min_score: least share of labelled samples that are classified correctly, 0 to 1.
        max_score_drop: largest drop of this share from that of fp32, 0 to 1.
    """

    min_sqnr_db: float | None = None
    min_top1: float | None = None
    max_error: float | None = None
    min_cosine: float | None = None
    min_score: float | None = None
    max_score_drop: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hold the limits of what a variant may take; one that takes more is ``invalid``. None is no limit.

    Attributes:
        memory_mib: most memory, MiB: of the device, or of the worker on the host where a CPU computes.
    """

    memory_mib: float | None = None

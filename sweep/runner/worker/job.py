"""Describe one pass of one variant, as the parent sends it to a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.spec.gates import Gates

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.loadgen import capacity_search
    from sweep.spec import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the worker is asked to do.

    Attributes:
        variant: what to measure.
        repeat: which pass, from 0.
        rates_ips: ladder of an earlier pass, samples/s; None places one.
        cache: root of the shared cache.
        samples: where the raw samples go (npz).
        cache_limit_bytes: what the cache may hold; None lets it grow.
        gates: what outputs have to keep, else the variant is invalid.
        search: the SLO whose capacity is searched, instead of a pass over the load; None for a pass.
        known: the variant's samples so far, where a capacity is searched (npz).
        accuracy: compare the outputs with fp32; the sentinel's were compared already.
        only_build: stop once the engine is in the cache.
    """

    variant: Variant
    repeat: int
    rates_ips: list[float] | None
    cache: Path
    samples: Path
    cache_limit_bytes: int | None = None
    gates: Gates = field(default_factory=Gates)
    search: capacity_search.Ask | None = None
    known: Path | None = None
    accuracy: bool = True
    only_build: bool = False

    @property
    def scores(self) -> bool:
        """Whether this is the pass whose accuracy stands in the record: the last one, and no search."""
        return self.accuracy and self.search is None and self.repeat == self.variant.load.repeats - 1

"""Make the results of whole measurements for tests of comparisons and frames."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import factories
import numpy as np
from records import peak

from sweep import spec
from sweep.report.results import Results
from sweep.storage.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

FACTS = {"gpu": "NVIDIA H200", "driver": "570.1", "cpu": "Xeon", "host": "a", "tensorrt": "tensorrt_rtx 1.6"}


def record(
    batch: int = 1,
    starts: Sequence[float] = (1000.0,),
    *,
    facts: dict[str, Any] | None = None,
    axes: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """Return a record of tensorrt_rtx whose starts had these peaks, samples/s.

    Args:
        batch: batch of the variant.
        starts: peak of each start.
        facts: facts that differ from ``FACTS``.
        axes: further axes.
        changes: fields of the record.
    """
    variant = factories.variant(
        **{"backend": "tensorrt_rtx", "batch": batch, "kind": "closed", "repeats": len(starts)} | (axes or {})
    )
    middle = float(np.exp(np.log(starts).mean()))
    made = Record(
        key=spec.variant_key(variant),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00.000+00:00",
        variant=spec.flat(variant),
        facts=FACTS | (facts or {}),
        peak=peak(middle, [middle * 0.995, middle * 1.005], batches=10, passes_ips=list(starts)),
    )
    return dataclasses.replace(made, **changes)


def results(name: str, *records: Record) -> Results:
    """Return the results of a measurement without a folder."""
    return Results(name=name, records=records, stores=(None,) * len(records))


def starts(middle: float, *, seed: int, count: int = 5, cv: float = 0.01) -> list[float]:
    """Return the peaks of starts that differ by `cv`."""
    return list(middle * np.exp(np.random.default_rng(seed).normal(0, cv, count)))


def run(name: str, slowdown: float = 0.0, *, seed: int, batches: Sequence[int] = (1, 2, 4, 8)) -> Results:
    """Return a measurement with five starts of four variants, of which the first is slower by `slowdown`."""
    middles = {batch: 1000.0 * batch * (1 - slowdown * (batch == batches[0])) for batch in batches}
    records = [record(batch, starts(middle, seed=seed * 100 + batch)) for batch, middle in middles.items()]
    return results(name, *records)

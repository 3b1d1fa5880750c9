"""Record + raw samples -> record with its peak, points and SLO. Run again, it gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep import samples, stats, summary
from sweep.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.record import Record, Store


def summarised(made: Record, points: Sequence[samples.PointSamples], slo: tuple[str, float] | None) -> Record:
    """The record with its peak, points and SLO recomputed from raw samples."""
    if not points:
        return made
    closed = [point for point in points if point.kind == "closed"]
    rungs: dict[int, list[samples.PointSamples]] = {}
    for point in points:
        if point.kind != "closed":
            rungs.setdefault(point.index, []).append(point)
    ladder = [rungs[index] for index in sorted(rungs)]
    return replace(
        made,
        peak=summary.closed_summary(closed) if closed else None,
        points=[summary.open_summary(rung) for rung in ladder],
        slo=summary.slo_summary(ladder, stats.PERCENTILES[slo[0]], slo[1]) if slo and ladder else None,
    )


def rejudged(store: Store, key: str, slo: tuple[str, float] | None) -> Record | None:
    """The record of ``key`` judged by ``slo``; rewritten if that changes it. None if it cannot be read."""
    try:
        found = store.read(key)
        if found.status not in {"ok", "invalid"}:
            return found
        judged = summarised(found, samples.load(store.samples_path(key)), slo)
    except RecordError:
        return None
    if judged != found:
        store.write(judged)
    return judged

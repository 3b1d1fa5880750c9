"""Find values of a record that are valid each by itself but contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.spec import PERCENTILES

if TYPE_CHECKING:
    from sweep.spec import JsonDict
    from sweep.storage.record import Record
    from sweep.storage.record_types import Accuracy, Peak, SloResult

_LEAST_BATCHES = 2  # batch means behind an interval
_PERCENTS = frozenset(share * 100 for share in PERCENTILES.values())


def contradiction(record: Record) -> str | None:
    """Return one line that names the field that contradicts another; None if none does."""
    return (
        _in_peak(record.peak)
        or _in_points(record)
        or _in_variant(record.variant)
        or (None if record.slo is None else _in_slo(record.slo))
        or (None if record.accuracy is None else _in_accuracy(record.accuracy))
    )


def _in_peak(peak: Peak | None) -> str | None:
    if peak is None:
        return None
    if peak["interval"] is not None and peak.get("batches", _LEAST_BATCHES) < _LEAST_BATCHES:
        return f"peak.batches: {peak.get('batches')} batch means carry no interval"
    return "peak.fairness: there are no clients" if "fairness" in peak and not peak.get("clients") else None


def _in_points(record: Record) -> str | None:
    for number, point in enumerate(record.points):
        if "fairness" in point and not point.get("clients"):
            return f"points[{number}].fairness: there are no clients"
    return None


def _in_variant(variant: JsonDict) -> str | None:
    load = variant.get("load") or {}
    for name, data in (
        ("calibration", variant.get("calibration")),
        ("load.labels", load.get("labels")),
        ("load.samples", load.get("samples")),
    ):
        if data is not None and data["name"] is None and data["path"] is None:
            return f"variant.{name}: it has no name and no path"
    return None


def _in_slo(slo: SloResult) -> str | None:
    if slo["percentile"] not in _PERCENTS:
        percents = ", ".join(f"{percent:g}" for percent in sorted(_PERCENTS))
        return f"slo.percentile: {slo['percentile']:g} is none of {percents}"
    if slo["capacity_ips"] is None:
        return None
    if slo["confidence"] is None:
        return "slo.confidence: a capacity has none"
    rates = {probe["offered_ips"] for probe in slo.get("probes", []) if probe["kind"] == "confirm"}
    if slo.get("confirmed") and slo["capacity_ips"] not in rates:
        return "slo.confirmed: no confirming run has the rate of the capacity"
    return None


def _in_accuracy(accuracy: Accuracy) -> str | None:
    if "score" in accuracy and not {"reference_score", "scored_on"} <= accuracy.keys():
        return "accuracy.score: it has no reference_score or scored_on"
    later = accuracy.get("again")
    if later is not None and not {"stream", "lost_db"} <= later.keys():
        return "accuracy.again: it has no stream or lost_db"
    return None

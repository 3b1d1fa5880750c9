"""Compare the variants of records: which axes tell them apart, and a label for each that no other has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sweep import spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.spec import Comparison
    from sweep.storage import Record

# keys of a record's `variant` that differ between two precisions of one network
_OF_PRECISION = ("label", "precision", "precision_recipe", "tool", "calibration", "calibration_method")


def compared(records: Iterable[Record]) -> Comparison:
    """Return the comparison of the variants of `records`, by the records' keys."""
    records = list(records)
    variants = {record.key: spec.from_record(record.variant) for record in records}
    return spec.compare(variants, {record.key: str(record.variant.get("label", record.key)) for record in records})


def speedups(records: Iterable[Record]) -> dict[str, float]:
    """Return the peak of each variant over that of fp32, by the record's key.

    Args:
        records: records of a sweep.

    Returns:
        Nothing of a variant without a peak, or without an fp32 variant with one that differs in its precision alone.
        Where fp32 is the only precision, nothing at all.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.peak and record.peak["ips"]:
            alike = {name: value for name, value in record.variant.items() if name not in _OF_PRECISION}
            groups.setdefault(f"{record.sweep} {json.dumps(alike, sort_keys=True)}", []).append(record)
    ratios: dict[str, float] = {}
    for group in groups.values():
        first = next((record for record in group if _dtype(record) == "fp32"), None)
        if first is not None and any(_dtype(record) != "fp32" for record in group):
            ratios |= {record.key: _peak_ips(record) / _peak_ips(first) for record in group}
    return ratios


def _dtype(record: Record) -> str | None:
    return (record.variant.get("precision_recipe") or {}).get("dtype")


def _peak_ips(record: Record) -> float:
    return float(record.peak["ips"]) if record.peak and record.peak["ips"] else 0.0


def same_engines(records: Iterable[Record]) -> dict[str, str]:
    """Name the engine that a variant shares without having been asked to: a setting of its build did nothing.

    Variants of one engine key share it by design. Engines of two batches may be equal as well where the batch is given
    when it runs, and that says nothing about a setting.

    Args:
        records: records of a sweep, in the order of the table.

    Returns:
        By the keys of the later records, the label of the first one whose plan is byte for byte the same.
    """
    records = list(records)
    first: dict[tuple[object, ...], Record] = {}
    originals: dict[str, str] = {}
    for record in records:
        engine = record.engine or {}
        digest = engine.get("plan_digest")
        if digest is None:
            continue
        original = first.setdefault(
            (record.sweep, digest, record.variant.get("backend"), record.variant.get("batch")), record
        )
        if original.engine is not None and original.engine.get("key") != engine.get("key"):
            originals[record.key] = original.key
    if not originals:
        return {}
    labels = compared(records).labels
    return {key: labels[original] for key, original in originals.items()}


def same_engine_note(label: str) -> str:
    """Word the footnote of a record whose engine is that of another variant."""
    return f"same engine as {label}: what was set differently changed nothing in what the library built"


def builds_line(record: Record) -> str | None:
    """Word what the engines that were built afresh for a record differ by; None where fewer than two were."""
    starts = (record.engine or {}).get("starts") or []
    digests = {start["build"]: start["plan_digest"] for start in starts if start["build"] is not None}
    if len(digests) < 2:  # noqa: PLR2004 - a difference takes two
        return None
    plans = len(set(digests.values()))
    same = "" if None in digests.values() else f" of {plans} different plans" if plans > 1 else ", all of one plan"
    peak = record.peak
    if peak is None or peak.get("build_cv") is None:
        return f"{len(digests)} engines were built{same}"
    start_cv = peak.get("start_cv")
    starts_text = " (starts included)" if start_cv is None else f", starts of one by {start_cv:.1%}"
    return f"{len(digests)} engines were built{same}; their peaks differ by {peak['build_cv']:.1%}{starts_text}"

"""Hold the throughput of a record against the peak of its GPU, and find the batch from which it is full."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from sweep.analysis.layers.full_batch import full_from_batch
from sweep.analysis.layers.peaks import peaks_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.analysis.layers.full_batch import FullBatch
    from sweep.storage import Record

_OF_BATCH = ("label", "batch", "load")
"""Fields of a record's ``variant`` that differ between two batches of one configuration."""


def achieved_tflops(record: Record) -> float | None:
    """Return the TFLOP/s of a record's peak: two operations for each multiply-add of its samples.

    None where the record has no peak, or the multiply-adds of its network could not be counted.
    """
    gmacs = None if record.model is None else record.model["gmacs"]
    if not gmacs or record.peak is None or not record.peak["ips"]:
        return None
    return 2.0 * float(gmacs) * float(record.peak["ips"]) / 1e3


def share_of_peak(record: Record) -> float | None:
    """Return ``achieved_tflops`` over the dense peak of the record's GPU for the type of its precision, 0 to 1.

    None for another device than a GPU of ``GPUS``, and for a precision whose type the record does not tell.
    """
    achieved, dtype = achieved_tflops(record), (record.variant.get("precision_recipe") or {}).get("dtype")
    on_gpu = str(record.variant.get("backend", "")).startswith("tensorrt")
    peaks = peaks_of(record.facts.get("gpu")) if on_gpu else None
    peak = None if peaks is None else peaks.of_type(dtype)
    return None if achieved is None or peak is None else achieved / peak


def full_batches(records: Iterable[Record]) -> dict[str, FullBatch]:
    """Return from which batch the device is full, by the record's key.

    Args:
        records: records of one or several sweeps.

    Returns:
        Nothing of a record without a peak, or without another one of its sweep that differs in its batch alone.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if _ips(record) and isinstance(record.variant.get("batch"), int):
            alike = {name: value for name, value in record.variant.items() if name not in _OF_BATCH}
            groups[f"{record.sweep} {json.dumps(alike, sort_keys=True)}"].append(record)
    answers: dict[str, FullBatch] = {}
    for group in groups.values():
        points = {int(record.variant["batch"]): _ips(record) for record in group}
        if len(points) > 1:
            answers |= dict.fromkeys((record.key for record in group), full_from_batch(points))
    return answers


def _ips(record: Record) -> float:
    return float(record.peak["ips"]) if record.peak is not None and record.peak["ips"] else 0.0

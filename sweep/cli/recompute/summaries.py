"""Compute the summaries of records again from their raw samples and compare them with what the records hold."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.analysis import drift, record_summary
from sweep.errors import RecordError
from sweep.spec import of_percent
from sweep.storage import Store, record_file, samples, samples_file
from sweep.system import atomic_files, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sweep.storage import Record

_MEASURED = ("ok", "invalid")
_SHOWN = 6  # fields of a record that differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Hold the outcome of one record.

    Attributes:
        path: file of the record.
        state: same, differs, rewritten, unmeasured (it never had samples), unsampled (they are gone) or unreadable.
        detail: which fields differ, or why it cannot be recomputed.
    """

    path: Path
    state: str
    detail: str = ""


def recomputed(root: Path, *, write: bool) -> Iterator[Comparison]:
    """Yield the comparison of every record below ``root``, in the order of their paths.

    Args:
        root: folder of a sweep or of several.
        write: rewrite the records that differ.
    """
    for folder in sorted({path.parent.parent for path in root.glob("**/records/*.json")}):
        store = Store(folder)
        levels = drift.levels(store)
        for key in store.record_keys():
            yield _compare(store, key, levels, write=write)


def _compare(store: Store, key: str, levels: Mapping[int, drift.Level], *, write: bool) -> Comparison:
    path = store.record_path(key)
    try:
        stored = store.read(key)
        if (
            stored.status not in _MEASURED and stored.peak is None and not stored.points
        ):  # a failed search leaves its curve
            return Comparison(path=path, state="unmeasured")
        if not store.samples_path(key).exists():
            return Comparison(path=path, state="unsampled")
        recomputed_record = resummed(stored, samples_file.load(store.samples_path(key)), levels)
    except RecordError as error:
        return Comparison(path=path, state="unreadable", detail=str(error))
    content = regular_files.read_bytes(path, follow=False)
    if record_file.encode(recomputed_record) == content:
        return Comparison(path=path, state="same")
    fields = sorted(differing(json.loads(content), dataclasses.asdict(recomputed_record)))
    detail = ", ".join(fields[:_SHOWN]) + (f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else "")
    if write:
        atomic_files.write_atomic(path, record_file.encode(recomputed_record))
    return Comparison(path=path, state="rewritten" if write else "differs", detail=detail or "its layout alone")


def resummed(stored: Record, points: list[samples.PointSamples], levels: Mapping[int, drift.Level]) -> Record:
    """Return the record with everything that is a function of samples computed from them, under the SLO it has."""
    slo = of_percent(stored.slo["percentile"], stored.slo["limit_ms"]) if stored.slo else None
    summary = record_summary.summarise(stored, points, slo)
    return dataclasses.replace(summary, drift=drift.judge(samples.sentinel_intervals(points), levels))


def differing(stored: Any, recomputed: Any, prefix: str = "") -> set[str]:
    """Return the dotted names of the fields that differ; the points of a ladder share a name."""
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        pairs = [
            (f"{prefix}.{name}".lstrip("."), stored.get(name), recomputed.get(name))
            for name in {**stored, **recomputed}
        ]
    elif (
        isinstance(stored, list)
        and isinstance(recomputed, list)
        and len(stored) == len(recomputed)
        and any(map(_nested, stored))
    ):
        pairs = [(prefix, before, after) for before, after in zip(stored, recomputed, strict=True)]
    else:
        return set() if stored == recomputed else {prefix}
    return {field for name, before, after in pairs for field in differing(before, after, name)}


def _nested(value: Any) -> bool:
    return isinstance(value, dict)

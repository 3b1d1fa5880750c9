"""``python -m sweep recompute DIR``: compute every summary again from the raw samples and compare it with the records.

DIR is a sweep's folder or a root of several. Peak, points, SLO, drift and all their verdicts are recomputed; a record
that comes out with other bytes is named with the fields that differ. ``write=true`` rewrites those records.

Exit codes: 0 every record with samples came out the same, or was rewritten; 1 some differ, or have samples that are
gone or damaged; 2 the command is wrong, or DIR has no record that could be recomputed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis import drift, percentiles, record_summary
from sweep.errors import RecordError
from sweep.storage import record, samples, samples_file
from sweep.storage.store import Store
from sweep.system import atomic_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sweep.storage.record import Record

_MEASURED = ("ok", "invalid")
_SHOWN = 6  # fields of a record that differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one record.

    Attributes:
        path: its file.
        state: same, differs, rewritten, unmeasured (it never had samples), unsampled (they are gone) or unreadable.
        detail: which fields differ, or why it cannot be recomputed.
    """

    path: Path
    state: str
    detail: str = ""


def main(arguments: Sequence[str]) -> int:
    """Recompute and report; the exit code."""
    words = [word for word in arguments if word not in {"write=true", "write=false"}]
    if len(words) != 1 or words[0].startswith("-"):
        sys.stderr.write(__doc__ or "")
        return 2
    found = list(recomputed(Path(words[0]), write="write=true" in arguments))
    for item in found:
        if item.state in {"differs", "rewritten", "unreadable"}:
            sys.stdout.write(f"{item.state:<10} {item.path}: {item.detail}\n")
    counts = Counter(item.state for item in found)
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no records"
    sys.stdout.write(f"{words[0]}: {said}\n")
    if not counts["same"] + counts["differs"] + counts["rewritten"]:
        sys.stderr.write(f"restat: nothing in {words[0]} could be recomputed: it needs records/ with samples/ beside\n")
        return 2
    return 1 if counts["differs"] + counts["unreadable"] + counts["unsampled"] else 0


def recomputed(root: Path, *, write: bool) -> Iterator[Found]:
    """Every record below ``root``, in the order of its path."""
    for folder in sorted({path.parent.parent for path in root.glob("**/records/*.json")}):
        store = Store(folder)
        levels = drift.levels(store)
        for key in store.record_keys():
            yield _one(store, key, levels, write=write)


def _one(store: Store, key: str, levels: Mapping[int, drift.Level], *, write: bool) -> Found:
    path = store.record_path(key)
    try:
        made = store.read(key)
        if made.status not in _MEASURED and made.peak is None and not made.points:  # a failed search leaves its curve
            return Found(path=path, state="unmeasured")
        if not store.samples_path(key).exists():
            return Found(path=path, state="unsampled")
        again = resummed(made, samples_file.load(store.samples_path(key)), levels)
    except RecordError as error:
        return Found(path=path, state="unreadable", detail=str(error))
    content = path.read_bytes()
    if record.encoded(again) == content:
        return Found(path=path, state="same")
    fields = sorted(differing(json.loads(content), dataclasses.asdict(again)))
    detail = ", ".join(fields[:_SHOWN]) + (f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else "")
    if write:
        atomic_files.write_atomic(path, record.encoded(again))
    return Found(path=path, state="rewritten" if write else "differs", detail=detail or "its layout alone")


def resummed(made: Record, points: list[samples.PointSamples], levels: Mapping[int, drift.Level]) -> Record:
    """The record with everything that is a function of samples computed from them; its SLO is the one it has."""
    names = {p * 100: name for name, p in percentiles.PERCENTILES.items()}
    slo = (names[made.slo["percentile"]], made.slo["limit_ms"]) if made.slo else None
    again = record_summary.summarised(made, points, slo)
    return dataclasses.replace(again, drift=drift.judged(samples.stretches(points), levels))


def differing(was: Any, now: Any, prefix: str = "") -> set[str]:
    """Dotted names of the fields that differ; the points of a ladder share a name."""
    if isinstance(was, dict) and isinstance(now, dict):
        pairs = [(f"{prefix}.{name}".lstrip("."), was.get(name), now.get(name)) for name in {**was, **now}]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now) and any(map(_nested, was)):
        pairs = [(prefix, one, other) for one, other in zip(was, now, strict=True)]
    else:
        return set() if was == now else {prefix}
    return {found for name, one, other in pairs for found in differing(one, other, name)}


def _nested(value: Any) -> bool:
    return isinstance(value, dict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

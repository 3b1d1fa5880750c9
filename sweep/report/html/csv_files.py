"""Write the figures of records as CSV: one row a variant, and one row a point of its curve."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Literal

from sweep.report.comparison import compared
from sweep.spec import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.report.columns import Column
    from sweep.report.outcome_lines import Footnotes
    from sweep.storage import Record

_BOUNDED: tuple[Literal["p50", "p99"], ...] = ("p50", "p99")  # percentiles that have intervals
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters by which a spreadsheet takes a text for a formula


def variants_csv(records: Sequence[Record], footnotes: Footnotes, columns: Sequence[Column]) -> str:
    """Return one row a variant: its axes, its figures with units in their names, and its error."""
    labels = compared(records).labels
    shown = [column for column in columns if column.name != "status"]
    heads = ["sweep", "variant", "key", *(str(axis.column) for axis in footnotes.axes), "status", "peak_verdict"]
    heads += [*(column.name for column in shown), "error"]
    return _csv(
        heads,
        (
            [
                *(record.sweep, labels[record.key], record.key.rpartition("/")[2]),
                *(footnotes.cell(record, axis) for axis in footnotes.axes),
                *(str(record.status), None if record.peak is None else str(record.peak["verdict"])),
                *(column.value(record) for column in shown),
                None if record.error is None else f"{record.error['stage']}: {record.error['message']}",
            ]
            for record in records
        ),
    )


def points_csv(records: Sequence[Record]) -> str:
    """Return one row a point: offered and achieved rate, requests, verdict, latencies and their 95% intervals."""
    labels = compared(records).labels
    heads = ["sweep", "variant", "key", "offered_samples_per_s", "achieved_samples_per_s", "requests", "verdict"]
    heads += [*(f"{name}_ms" for name in PERCENTILES)]
    heads += [f"{name}_{end}_ms" for name in _BOUNDED for end in ("low", "high")]
    return _csv(
        heads,
        (
            [
                *(record.sweep, labels[record.key], record.key.rpartition("/")[2]),
                *(point["offered_ips"], point["achieved_ips"], point["requests"], str(point["verdict"])),
                *(point["latency_ms"][name] for name in PERCENTILES),
                *(end for name in _BOUNDED for end in (point["interval"][name] or (None, None))),
            ]
            for record in records
            for point in record.points
        ),
    )


def _csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as a spreadsheet may have it: a text of a record is never a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

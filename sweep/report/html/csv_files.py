"""Write the figures of records as CSV, with the columns of `sweep export`: one row a variant, and one row a point."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any

from sweep.report import frames
from sweep.report.frame_columns import POINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sweep.analysis.best_comparison import Ratio
    from sweep.report.frame_columns import Column
    from sweep.storage import Record

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters by which a spreadsheet takes a text for a formula


def variants_csv(records: Sequence[Record], ratios: Mapping[str, Ratio]) -> str:
    """Return one row a variant; `ratios` are those of the answer."""
    rows = [dataclasses.replace(row, record=_of_its_sweep(row.record)) for row in frames.variant_rows(records, ratios)]
    return _csv(frames.variant_columns([row.record for row in rows]), rows)


def points_csv(records: Sequence[Record]) -> str:
    """Return one row a rate of the load, the closed loop first."""
    return _csv(POINTS, frames.point_rows([_of_its_sweep(record) for record in records]))


def _of_its_sweep(record: Record) -> Record:
    """Return a record with key and label as its own sweep has them, without the name of the sweep in front."""
    label = str(record.variant.get("label", record.key)).removeprefix(f"{record.sweep}: ")
    return dataclasses.replace(record, key=record.key.rpartition("/")[2], variant={**record.variant, "label": label})


def _csv(columns: Sequence[Column], rows: Iterable[Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    writer.writerows([_plain(column.read(row)) for column in columns] for row in rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as a spreadsheet may have it: a text of a record is never a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

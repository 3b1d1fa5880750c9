"""Compare the variants of records: which axes tell them apart, and a label for each that no other has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep import spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.spec import Comparison
    from sweep.storage import Record


def compared(records: Iterable[Record]) -> Comparison:
    """Return the comparison of the variants of `records`, by the records' keys."""
    records = list(records)
    variants = {record.key: spec.from_record(record.variant) for record in records}
    return spec.compare(variants, {record.key: str(record.variant.get("label", record.key)) for record in records})

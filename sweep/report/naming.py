"""Find the variants of a sweep that a word of the command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.report.comparison import compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Record

_LEAST_PREFIX = 6  # characters of a key that name it


def named_variants(records: Sequence[Record], word: str) -> list[Record]:
    """Return the variants that `word` names; several where it does not tell them apart.

    Args:
        records: records of one sweep.
        word: a key or a label; else words that the label has, in any order; else the beginning of a key.
    """
    labels = compared(records).labels
    stored = {record.key: str(record.variant.get("label", labels[record.key])) for record in records}
    matches = [record for record in records if word in {record.key, labels[record.key], stored[record.key]}]
    for names in (labels, stored):
        if not matches and word.split():
            matches = [record for record in records if set(word.split()) <= set(names[record.key].split())]
    if not matches and len(word) >= _LEAST_PREFIX:
        matches = [record for record in records if record.key.startswith(word)]
    return matches

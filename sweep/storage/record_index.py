"""Index the records of a sweep in ``index.json``, a cache of the fields that a start needs of each.

The records stay the truth. An entry is valid only while its record and samples have the size and time of change that
they had when it was written; otherwise the record is read again. An index file that cannot be parsed is ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sweep.errors import RecordError
from sweep.spec import Status
from sweep.system import environment, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sweep.storage.store import Store

_VERSION = 2  # an index of version 1 has fewer facts
_FILE = "index.json"
_MIN_READ = 100  # records; reading fewer again is faster than writing an index for them

_ENTRY: Final = 6  # place in a row where its Entry begins
Stat = tuple[int, int, int]  # time of change in ns, size in bytes, inode: a record is replaced, not written into
_NONE: Stat = (0, 0, 0)
_Facts = dict[str, str | int | float]
# Stat of the record, Stat of its samples, then an Entry.
_Row = tuple[int, int, int, int, int, int, Status, str | None, int, bool]


class _IndexFile(msgspec.Struct):
    """Type the content of ``index.json``."""

    version: int
    facts: list[_Facts]
    rows: dict[str, _Row]


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold the fields of one record that a start needs.

    Attributes:
        status: how the variant ended.
        kind: kind of its error; None without one.
        facts: number of its compared facts in ``Index.facts``.
        has_samples: whether the samples can be opened.
    """

    status: Status
    kind: str | None
    facts: int
    has_samples: bool


class Index:
    """Look up the records of a sweep.

    Args:
        store: the sweep's folder.

    Attributes:
        facts: the distinct sets of compared facts (``environment.COMPARED``).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.root / _FILE
        self._records = _file_stats(store.root / "records", ".json")
        self._samples = _file_stats(store.root / "samples", ".npz")
        self._read_count = 0
        self._entries: dict[str, Entry] = {}  # those that were compared with the files as they are listed here
        self.facts, self._rows = _load(self._path)
        self._numbers = {json.dumps(facts, sort_keys=True): number for number, facts in enumerate(self.facts)}

    def __contains__(self, key: str) -> bool:
        """Return whether there is a record of ``key``."""
        return key in self._records

    def entry(self, key: str) -> Entry:
        """Return the entry of the record of ``key``.

        Raises:
            RecordError: the record cannot be read.
        """
        entry = self._entries.get(key)
        if entry is None:
            row = self._rows.get(key)
            if row is None or row[:_ENTRY] != self._current_stats(key):
                row = self._read_row(key)
                self._rows[key] = row
                self._read_count += 1
            entry = self._entries[key] = Entry(*row[_ENTRY:])
        return entry

    def save(self, keys: Iterable[str]) -> None:
        """Write the index, if enough records were read since it was loaded.

        A failure to write is ignored, since the records hold the same.

        Args:
            keys: keys of the records that the index is to include.
        """
        for key in keys:
            with contextlib.suppress(RecordError):
                self.entry(key)
        if self._read_count < _MIN_READ:
            return
        rows = {key: row for key, row in self._rows.items() if key in self._records}
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps({"version": _VERSION, "facts": self.facts, "rows": rows}).encode())

    def _current_stats(self, key: str) -> tuple[int, int, int, int, int, int]:
        return (*self._records.get(key, _NONE), *self._samples.get(key, _NONE))

    def _read_row(self, key: str) -> _Row:
        record = self._store.read(key)
        facts: dict[str, Any] = {**record.facts}
        compared: _Facts = {name: facts[name] for name in environment.COMPARED if facts.get(name) is not None}
        text = json.dumps(compared, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self.facts)
            self.facts.append(compared)
        kind = record.error.get("kind") if record.error else None
        has_samples = key in self._samples and _is_archive(self._store.samples_path(key))
        return (*self._current_stats(key), record.status, kind, self._numbers[text], has_samples)


def _file_stats(folder: Path, suffix: str) -> dict[str, Stat]:
    """Return the Stat of each file of `folder` by its name without `suffix`; a dangling link is no file."""
    stats: dict[str, Stat] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix):
                with contextlib.suppress(OSError):
                    stat = entry.stat()
                    stats[entry.name.removesuffix(suffix)] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return stats


def _is_archive(path: Path) -> bool:
    """Return whether the file is a zip archive, by its end alone; what is no regular file is none."""
    with contextlib.suppress(OSError), regular_files.open_input(path, follow=False) as file:
        return zipfile.is_zipfile(file)
    return False


def _load(path: Path) -> tuple[list[_Facts], dict[str, _Row]]:
    """Return facts and rows of the index; both empty without a valid index, since the records hold the same."""
    try:
        index = msgspec.json.decode(regular_files.read_bytes(path, follow=False), type=_IndexFile)
    except (OSError, ValueError, RecursionError):  # what msgspec raises is a ValueError
        return [], {}
    if index.version != _VERSION or any(not 0 <= row[-2] < len(index.facts) for row in index.rows.values()):
        return [], {}
    return index.facts, index.rows

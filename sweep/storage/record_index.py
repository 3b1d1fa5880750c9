"""What a sweep's records say, at a glance: ``index.json``, a cache of what a start has to know of each.

The records stay the truth. An entry counts only while its record and samples have the size and time of change that
they had when it was made; everything else is read from the record again.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import RecordError
from sweep.system import environment
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sweep.spec import JsonDict
    from sweep.storage.store import Store

_VERSION = 1
_FILE = "index.json"
_FEW = 100  # records that are read again sooner than an index is written for them

_STAT = 3
Stat = tuple[int, int, int]  # time of change in ns, size in bytes, inode: a record is replaced, not written into
_NONE: Stat = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a start has to know of one record.

    Attributes:
        status: of the record.
        kind: of its error; None without one.
        facts: number of its compared facts in ``Index.facts``.
        whole: its samples can be opened.
    """

    status: str
    kind: str | None
    facts: int
    whole: bool


class Index:
    """The records of a sweep.

    Args:
        store: the sweep's folder.

    Attributes:
        facts: the distinct sets of compared facts (``environment.COMPARED``).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.root / _FILE
        self._records = _stats(store.root / "records", ".json")
        self._samples = _stats(store.root / "samples", ".npz")
        self._read = 0
        self.facts, self._rows = _loaded(self._path)
        self._numbers = {json.dumps(known, sort_keys=True): number for number, known in enumerate(self.facts)}

    def __contains__(self, key: str) -> bool:
        """Whether there is a record of ``key``."""
        return key in self._records

    def entry(self, key: str) -> Entry:
        """What the record of ``key`` says.

        Raises:
            RecordError: it cannot be read.
        """
        row = self._rows.get(key)
        if row is None or row[: 2 * _STAT] != self._now(key):
            row = [*self._now(key), *self._said(key)]
            self._rows[key] = row
            self._read += 1
        return Entry(*row[2 * _STAT :])

    def save(self, keys: Iterable[str]) -> None:
        """Write the index, with these keys in it, where enough was read to be worth it; a full disk does not matter."""
        for key in keys:
            with contextlib.suppress(RecordError):
                self.entry(key)
        if self._read < _FEW:
            return
        rows = {key: row for key, row in self._rows.items() if key in self._records}
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps({"version": _VERSION, "facts": self.facts, "rows": rows}).encode())

    def _now(self, key: str) -> list[int]:
        return [*self._records.get(key, _NONE), *self._samples.get(key, _NONE)]

    def _said(self, key: str) -> list[Any]:
        found = self._store.read(key)
        compared = {name: found.facts[name] for name in environment.COMPARED if found.facts.get(name) is not None}
        text = json.dumps(compared, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self.facts)
            self.facts.append(compared)
        kind = found.error["kind"] if found.error else None
        whole = key in self._samples and zipfile.is_zipfile(self._store.samples_path(key))  # looks at its end only
        return [found.status, kind, self._numbers[text], whole]


def _stats(folder: Path, suffix: str) -> dict[str, Stat]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(suffix)]
    except FileNotFoundError:
        return {}
    return {name.removesuffix(suffix): (stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found}


def _loaded(path: Path) -> tuple[list[JsonDict], dict[str, list[Any]]]:
    try:
        raw = json.loads(path.read_bytes())
        if raw["version"] == _VERSION:
            return raw["facts"], raw["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: the records say it all again
    return [], {}

"""Locate, write and read the files of one sweep."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import RecordError
from sweep.storage.record_file import encode, read
from sweep.system import atomic_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.storage.record import Record

_FOLDERS = ("records", "samples", "telemetry", "sentinel", "layers")
_TEMPORARY = re.compile(r"\..+\.(json|npz|html)\.([A-Za-z0-9_-]+-\d+-)?\w{8}")  # as ``write_atomic`` names them
_OLD_S = 86400.0  # age above which another host is certainly no longer writing a temporary file


@dataclass(frozen=True, slots=True)
class Store:
    """Locate the files of one sweep.

    Attributes:
        root: ``results/<sweep>``.
    """

    root: Path

    def record_path(self, key: str) -> Path:
        """Return the path of the record of ``key``."""
        return self.root / "records" / f"{key}.json"

    def samples_path(self, key: str) -> Path:
        """Return the path of the raw samples of ``key``."""
        return self.root / "samples" / f"{key}.npz"

    def telemetry_path(self, key: str) -> Path:
        """Return the path of the GPU readings taken during ``key`` (``gpu_readings.save``); no file without a GPU."""
        return self.root / "telemetry" / f"{key}.npz"

    def layers_path(self, key: str) -> Path:
        """Return the path of the layer profile of ``key``; no file where no layers were profiled (``layers=``)."""
        return self.root / "layers" / f"{key}.json"

    def write(self, record: Record) -> None:
        """Write a record atomically and durably: it survives a power cut once this returns.

        Raises:
            OSError: the file could not be written; the old one is untouched.
            ValueError: a value of the record is NaN or infinite.
        """
        write_atomic(self.record_path(record.key), encode(record))

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of processes that were killed while writing; the caller holds the sweep's lock.

        Those of another host stay for a day: its lock may not reach this host, and it may be writing.
        """
        for folder in (self.root, *(self.root / name for name in _FOLDERS)):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for item in entries:
                    if _TEMPORARY.fullmatch(item.name) and not (
                        atomic_files.is_of_other_host(item.name)
                        and time.time() - item.stat(follow_symlinks=False).st_mtime < _OLD_S
                    ):
                        Path(item.path).unlink(missing_ok=True)

    def sentinel_path(self, number: int, key: str) -> Path:
        """Return the path of the samples of the sentinel's run ``number``; ``key`` is ``Level.key``."""
        return self.root / "sentinel" / f"{number:04d}-{key}.npz"

    def sentinel_paths(self) -> list[Path]:
        """Return the files of the sentinel's runs, oldest first."""
        return sorted((self.root / "sentinel").glob("*.npz"))

    def sentinel_runs(self) -> list[tuple[int, Path]]:
        """Return number and file of each of the sentinel's runs, oldest first; files with other names are ignored."""
        runs = [(path.stem.partition("-")[0], path) for path in self.sentinel_paths()]
        return [(int(number), path) for number, path in runs if number.isdecimal()]

    def read(self, key: str) -> Record:
        """Read the record of ``key``.

        Raises:
            RecordError: there is none, it is damaged, or a newer version wrote it.
        """
        return read(self.record_path(key))

    def record_keys(self) -> list[str]:
        """Return the keys of the records on disk, sorted, without reading them."""
        return sorted(path.stem for path in (self.root / "records").glob("*.json"))

    def readable(self) -> Iterator[Record]:
        """Yield every readable record, sorted by key; damaged records are skipped."""
        for key in self.record_keys():
            try:
                yield self.read(key)
            except RecordError:
                continue

"""Measure what a sweep takes on disk, remove it with what the cache holds for it alone, and give it another name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.storage.cache import inventory
from sweep.system import atomic_files, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sweep.storage.cache import Item

_KINDS = ("engines", "onnx")  # models and references belong to a network, which other sweeps will ask for
_CONFIG, _INDEX = "config.json", "index.json"
_MOST_BYTES = 64 << 20  # of a record, or of config.json
Owner = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Describe a file or folder in that of a sweep.

    Attributes:
        name: its name.
        files: files in it.
        bytes: their size together, bytes.
    """

    name: str
    files: int
    bytes: int


def parts(root: Path) -> list[Part]:
    """Return the files and folders of a sweep, the largest first."""
    found = []
    for path in sorted(root.iterdir()):
        files = list(files_of(path))
        found.append(Part(name=path.name, files=len(files), bytes=sum(size for _, size, _ in _status(files))))
    return sorted(found, key=lambda part: -part.bytes)


def files_of(path: Path) -> Iterable[Path]:
    """Return a file, or all files below a folder; links count as files, and are not followed."""
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [path / os.path.relpath(at, path) / name for at, _, names in os.walk(path) for name in names]


def freed_bytes(paths: Iterable[Path]) -> int:
    """Return the bytes that the disk gets back if all these files are removed.

    A file with two names is freed with the second of them: plans of ``build_only=true`` share theirs with the cache.
    """
    removed: dict[tuple[int, int], int] = {}
    total = 0
    for identity, size, links in _status(paths):
        removed[identity] = removed.get(identity, 0) + 1
        total += size if removed[identity] == links else 0
    return total


def _status(paths: Iterable[Path]) -> Iterable[tuple[tuple[int, int], int, int]]:
    """Yield (identity, size, number of names) of each file that is still there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            yield (status.st_dev, status.st_ino), status.st_size, status.st_nlink


def cache_owners(roots: Iterable[Path]) -> set[Owner]:
    """Return kind and key of the cache entries that the records of these sweeps name; damaged records name none."""
    owners: set[Owner] = set()
    for root in roots:
        for path in sorted((root / "records").glob("*.json")):
            engine = _read(path).get("engine")
            if isinstance(engine, dict):
                named = {"engines": engine.get("key"), "onnx": engine.get("onnx_key")}
                owners |= {(kind, key) for kind, key in named.items() if isinstance(key, str)}
    return owners


def entries_of_these_alone(cache: Path, roots: Iterable[Path], others: Iterable[Path]) -> list[Item]:
    """Return the engines, with their runtime files, and typed ONNX that these sweeps use and no other.

    Models, references and timing caches stay: they belong to a network or a library, not to a sweep.

    Args:
        cache: folder of the cache; one that is a link may serve sweeps of other results folders, and keeps everything.
        roots: folders of the sweeps.
        others: folders of all other sweeps of this cache.
    """
    if cache.is_symlink() or not cache.is_dir():
        return []
    alone = cache_owners(roots) - cache_owners(others)
    return [item for item in inventory.items(cache) if item.owner in alone and item.owner[0] in _KINDS]


def entry_locks(cache: Path, entries: Iterable[Item]) -> list[Path]:
    """Return the lock files of cache entries, which go with them."""
    return [inventory.lock_path(cache, *owner) for owner in sorted({item.owner for item in entries})]


def remove(root: Path) -> None:
    """Remove the folder of a sweep, whose lock the caller holds: at once for whoever looks for it.

    Raises:
        OSError: it cannot be removed; what is left has a hidden name, which the next removal clears.
    """
    aside = atomic_files.temporary_path(root)
    root.rename(aside)
    shutil.rmtree(aside)


def renamed_records(root: Path, name: str) -> dict[str, tuple[bytes, bytes]]:
    """Return the files of the records of a sweep before and after it is given a name, by key.

    Records that cannot be read are left as they are.
    """
    changed = {}
    for path in sorted((root / "records").glob("*.json")):
        raw = _read(path)
        if "sweep" in raw:
            before = regular_files.read_bytes(path, follow=False, most=_MOST_BYTES)
            after = json.dumps({**raw, "sweep": name}, indent=1, allow_nan=False) + "\n"
            changed[path.stem] = (before, after.encode())
    return changed


def write_name(root: Path, name: str, records: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Write a sweep's new name into its records and its request; the index of its records is forgotten.

    Args:
        root: folder of the sweep, whose lock the caller holds.
        name: the new name.
        records: of ``renamed_records``.
    """
    for key, (before, after) in records.items():
        if before != after:
            write_atomic(root / "records" / f"{key}.json", after)
    (root / _INDEX).unlink(missing_ok=True)
    config = _read(root / _CONFIG)
    if config:
        write_atomic(root / _CONFIG, (json.dumps(_named(config, name), indent=1) + "\n").encode())


def _named(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the request of a sweep with this name, as if it had been typed."""
    named = {**config, "name": name}
    for key in ("command", "overrides"):
        words = config.get(key)
        if isinstance(words, list):
            named[key] = [word for word in words if not str(word).startswith("name=")] + [f"name={name}"]
    if isinstance(config.get("first"), dict):
        named["first"] = {**config["first"], "name": name}
    return named


def _read(path: Path) -> dict[str, Any]:
    """Return the table in a JSON file; an empty one where it cannot be read."""
    try:
        raw = json.loads(regular_files.read_bytes(path, follow=False, most=_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}

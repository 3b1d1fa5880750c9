"""Store content-addressed files: key + builder -> folder. Locked across processes, atomic, digest-verified.

An entry is a folder ``<root>/<kind>/<key>/`` with the built files and ``entry.json``, which holds their
sha256. A reader sees a whole entry or none; an entry that is damaged, or that another user may have written, is built
again, with a note. When a build takes the root above its limit, entries that are not in use are evicted, least recently
used first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from sweep.errors import CacheError
from sweep.storage.cache import eviction, inventory, location
from sweep.storage.cache.pins import Pins
from sweep.system import Stopwatch, atomic_files, file_locks, file_trust, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sweep.spec import JsonDict

MANIFEST = inventory.MANIFEST
_CHUNK = 1 << 20
_FULL_BYTES = 1 << 20
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold one entry of the cache.

    Attributes:
        path: its folder.
        cached: the entry existed already.
        seconds: duration of its build, s.
        bytes: size of its files, bytes.
        info: return value of the builder, stored beside the files.
        files: SHA-256 of each file, in hex, by its path in the folder.
        note: why a damaged entry was built again; None if the entry was intact or missing.
    """

    path: Path
    cached: bool
    seconds: float
    bytes: int
    info: JsonDict
    files: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None

    @property
    def content_digest(self) -> str | None:
        """Return the SHA-256 of what was built; of several files, that of their names and digests; None for no file.

        Files about an engine (``artifacts`` of the builder's facts) are no part of it.
        """
        about = self.info.get("artifacts", ())
        content = {name: digest for name, digest in sorted(self.files.items()) if name not in about}
        if len(content) == 1:
            return next(iter(content.values()))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest() if content else None


class Cache:
    """Share a folder of entries among every sweep and process on this machine.

    Entries that ``get`` returned are in use, so that no process evicts them, until ``close``, the end of a ``with``, or
    the end of this object.

    Args:
        root: the folder, usually ``results/cache``.
        limit_bytes: limit for all entries together, bytes; None for no limit.
        notify: called with one line when an entry was damaged, or when entries were evicted.

    Raises:
        ConfigError: the folder is a link to what is no cache (see ``location``).
    """

    def __init__(self, root: Path, limit_bytes: int | None = None, notify: Callable[[str], None] | None = None) -> None:
        location.check(root)
        self.root = root
        self._limit_bytes = limit_bytes
        self._notify = notify or _ignore
        self._pins = Pins(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every entry that ``get`` returned, so that it can be evicted."""
        self._pins.close()

    def get(self, kind: str, key: str, build: Callable[[Path], JsonDict], about: JsonDict | None = None) -> Entry:
        """Return the entry of ``key``, built by ``build(folder)`` if it is missing or damaged.

        Args:
            kind: ``models``, ``onnx`` or ``engines``; a folder name.
            key: hash of everything that decides the content.
            build: fills the given empty folder and returns JSON values to store beside the files.
            about: JSON values that describe the entry to a person; they are not part of the key.

        Returns:
            The entry, in use until ``close``.

        Raises:
            CacheError: the folder cannot be written. Errors of ``build`` pass through, and the unfinished folder is
                removed.
        """
        folder = self.root / kind / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"cache folder {folder.parent} cannot be created ({error.strerror}); make it writable, or set results="
            ) from error
        with file_locks.locked(inventory.lock_path(self.root, kind, key)):
            existing, note = _verify(folder)
            entry = existing or _build(folder, build, about or {}, note)
            self._pins.add(kind, key)
            _mark_used(folder)
        if note is not None:
            self._notify(note)
        if not entry.cached and self._limit_bytes is not None:
            self._make_room(self._limit_bytes)
        return entry

    def find(self, kind: str, key: str) -> Entry | None:
        """Return the entry of ``key`` if it is there and intact, in use until ``close``; nothing is built or removed.

        In a cache that this user may only read, nothing keeps others from evicting the entry: who copies its files has
        to compare their digests.

        Raises:
            CacheError: the cache cannot be written for another reason, such as a full disk.
        """
        folder = self.root / kind / key
        if not folder.is_dir():
            return None
        try:
            with file_locks.locked(inventory.lock_path(self.root, kind, key)):
                entry, _ = _verify(folder)
                if entry is not None:
                    self._pins.add(kind, key)
                    _mark_used(folder)
        except CacheError as error:
            if getattr(error.__cause__, "errno", None) not in _READ_ONLY:
                raise
            entry, _ = _verify(folder)
        return entry

    def _make_room(self, limit_bytes: int) -> None:
        inventory.write_limit(self.root, limit_bytes)
        pruned = eviction.to_bytes(self.root, limit_bytes)
        if pruned.evicted:
            names = ", ".join(f"{item.kind} {item.description or item.key}" for item in pruned.evicted)
            self._notify(f"cache: over its limit (cache_gib); least recently used made room: {names}")


def _ignore(_: str) -> None:
    pass


def _build(folder: Path, build: Callable[[Path], JsonDict], about: JsonDict, note: str | None) -> Entry:
    """Build into a scratch folder beside ``folder`` and rename it to ``folder``; the caller holds the lock.

    Another host may share the folder, and build the same entry under a lock that does not reach this one: whoever
    renames first has built the entry of both.
    """
    if note is not None:
        eviction.discard(folder)
    scratch = atomic_files.temporary_folder(folder)
    try:
        watch = Stopwatch()
        info = build(scratch)
        seconds = watch.seconds()
        files = {str(path.relative_to(scratch)): _sha256(path) for path in _files(scratch)}
        size = sum(path.stat().st_size for path in _files(scratch))
        manifest = {"key": folder.name, "seconds": seconds, "bytes": size, "info": info, "about": about, "files": files}
        write_atomic(scratch / MANIFEST, json.dumps(manifest, indent=1).encode(), durable=False)
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(path.stat().st_mode & ~file_trust.OTHERS)
        existing = _renamed(scratch, folder)
        if existing is not None:
            return existing
    except BaseException as error:
        full = isinstance(error, Exception) and shutil.disk_usage(scratch).free < _FULL_BYTES
        shutil.rmtree(scratch, ignore_errors=True)
        if full:  # a library may report a full disk in its own words, or as a fault of the graph
            raise CacheError(f"No space left on device: {folder.parent} cannot take {folder.name} ({error})") from error
        raise
    return Entry(path=folder, cached=False, seconds=seconds, bytes=size, info=info, files=files, note=note)


def _renamed(scratch: Path, folder: Path) -> Entry | None:
    """Rename the built entry to ``folder``; return the entry that another host renamed there first, if it is intact."""
    try:
        scratch.rename(folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        existing, _ = _verify(folder)
        if existing is None:
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        return existing
    return None


def _verify(folder: Path) -> tuple[Entry | None, str | None]:
    """Return the entry if it is intact, else None and the reason, which is None if there is no entry."""
    if not os.path.lexists(folder):  # a dangling link is there, and is not trusted
        return None, None
    try:
        for path in (folder, *folder.rglob("*")):
            reason = file_trust.distrust_reason(path)
            if reason is not None:
                return None, f"cache entry {path} {reason} and is not trusted: built again"
        manifest = json.loads(regular_files.read_bytes(folder / MANIFEST, follow=False, most=inventory.MOST_MANIFEST))
        if manifest.get("key", folder.name) != folder.name:
            return None, f"cache entry {folder} was made as {manifest['key']}: built again"
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                return None, f"cache entry {folder} is damaged ({name} changed): built again"
        return (
            Entry(
                path=folder,
                cached=True,
                seconds=manifest["seconds"],
                bytes=manifest["bytes"],
                info=manifest["info"],
                files=manifest["files"],
            ),
            None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return None, f"cache entry {folder} is damaged ({error}): built again"


def _mark_used(folder: Path) -> None:
    """Set the time of use to now: the manifest's mtime, since many file systems keep no atime."""
    now = time.time_ns()
    with contextlib.suppress(OSError):  # the entry is then evicted too early; no measurement is affected
        os.utime(folder / MANIFEST, ns=(now, now))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with regular_files.open_input(path, follow=False) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

"""Store content-addressed files: key + builder -> folder. Locked across processes, atomic, digest-verified.

An entry is a folder ``<root>/<kind>/<key>/`` with the built files and ``entry.json``, which holds their
sha256. A reader either sees a whole entry or none; a damaged one, or one that another user may have written, is built
again, with a note. When a build takes the root above its limit, entries that nobody uses are evicted, least recently
used first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sweep.errors import CacheError
from sweep.storage.cache import eviction, inventory
from sweep.storage.cache.pins import Pins
from sweep.system import file_locks, file_trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.spec import JsonDict

MANIFEST = inventory.MANIFEST
_CHUNK = 1 << 20
_FULL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold one entry of the cache.

    Attributes:
        path: its folder.
        cached: it was there already.
        seconds: duration of its build, s.
        bytes: size of its files, bytes.
        info: what the builder returned, as kept beside the files.
        note: why a damaged entry was built again; None when nothing was wrong.
    """

    path: Path
    cached: bool
    seconds: float
    bytes: int
    info: JsonDict
    note: str | None = None


class Cache:
    """Share a folder of entries among every sweep and process on this machine.

    What ``get`` returned is in use, and so not evicted by any process, until ``close``, the end of a ``with``, or the
    end of this object.

    Args:
        root: the folder, usually ``results/cache``.
        limit_bytes: most that all entries together may take, bytes; None lets them grow.
        say: called with one line when an entry was damaged, or when others made room.
    """

    def __init__(self, root: Path, limit_bytes: int | None = None, say: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._limit_bytes = limit_bytes
        self._say = say or _silent
        self._pins = Pins(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let what ``get`` returned be evicted."""
        self._pins.close()

    def get(self, kind: str, key: str, build: Callable[[Path], JsonDict], about: JsonDict | None = None) -> Entry:
        """Return the entry of ``key``, built by ``build(folder)`` if it is missing or damaged.

        Args:
            kind: ``models``, ``onnx`` or ``engines``; a folder name.
            key: hash of everything that decides the content.
            build: fills the empty folder it is given and returns plain values to keep beside the files.
            about: plain values that tell a person what it is; they decide nothing.

        Raises:
            CacheError: the folder cannot be written. Whatever ``build`` raises passes through, and
                leaves nothing behind.
        """
        folder = self.root / kind / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cache folder {folder.parent} cannot be made: {error.strerror}") from error
        with file_locks.locked(inventory.lock_of(self.root, kind, key)):
            present, note = _verified(folder)
            entry = present or _built(folder, build, about or {}, note)
            self._pins.add(kind, key)
            _stamp(folder)
        if note is not None:
            self._say(note)
        if not entry.cached and self._limit_bytes is not None:
            self._make_room(self._limit_bytes)
        return entry

    def _make_room(self, limit_bytes: int) -> None:
        inventory.keep_limit(self.root, limit_bytes)
        gone = eviction.to_bytes(self.root, limit_bytes)
        if gone.evicted:
            names = ", ".join(f"{item.kind} {item.what or item.key}" for item in gone.evicted)
            self._say(f"cache: over its limit (cache_gib); least recently used made room: {names}")


def _silent(_: str) -> None:
    pass


def _built(folder: Path, build: Callable[[Path], JsonDict], about: JsonDict, note: str | None) -> Entry:
    """Build into a folder beside ``folder``, and rename it; the caller holds its lock."""
    eviction.discard(folder)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        start = time.perf_counter()
        info = build(scratch)
        seconds = time.perf_counter() - start
        files = {str(path.relative_to(scratch)): _sha256(path) for path in _files(scratch)}
        size = sum(path.stat().st_size for path in _files(scratch))
        manifest = {"key": folder.name, "seconds": seconds, "bytes": size, "info": info, "about": about, "files": files}
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(path.stat().st_mode & ~file_trust.OTHERS)
        scratch.rename(folder)
    except BaseException as error:
        full = isinstance(error, Exception) and shutil.disk_usage(scratch).free < _FULL_BYTES
        shutil.rmtree(scratch, ignore_errors=True)
        if full:  # which a library may put in words of its own, or for a fault of the graph
            raise CacheError(f"No space left on device: {folder.parent} cannot take {folder.name} ({error})") from error
        raise
    return Entry(path=folder, cached=False, seconds=seconds, bytes=size, info=info, note=note)


def _verified(folder: Path) -> tuple[Entry | None, str | None]:
    """Return the entry if it is whole, else None and what is wrong with it (None where there is no entry)."""
    if not folder.exists():
        return None, None
    try:
        for path in (folder, *folder.rglob("*")):
            reason = file_trust.distrusted(path)
            if reason is not None:
                return None, f"cache entry {path} {reason} and is not trusted: built again"
        manifest = json.loads((folder / MANIFEST).read_bytes())
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
            ),
            None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"cache entry {folder} is damaged ({error}): built again"


def _stamp(folder: Path) -> None:
    """Set the time of use to now: the manifest's mtime, since many file systems keep no atime."""
    now = time.time_ns()
    with contextlib.suppress(OSError):  # costs it its place in the order of eviction, and no measurement
        os.utime(folder / MANIFEST, ns=(now, now))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

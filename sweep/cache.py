"""Content-addressed files: key + builder -> folder. Locked across processes, atomic, digest-verified.

An entry is a folder ``<root>/<kind>/<key>/`` with the built files and ``entry.json``, which holds their
sha256. A reader either sees a whole entry or none; a damaged one is built again and said so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sweep.axes import JsonDict

MANIFEST = "entry.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the cache.

    Attributes:
        path: its folder.
        cached: it was there already.
        seconds: what building it took, when it was built.
        bytes: size of its files.
        info: what the builder returned, as kept beside the files.
        note: why a damaged entry was built again; None when nothing was wrong.
    """

    path: Path
    cached: bool
    seconds: float
    bytes: int
    info: JsonDict
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries, shared by every sweep and process on this machine.

    Attributes:
        root: the folder, usually ``results/cache``.
    """

    root: Path

    def get(self, kind: str, key: str, build: Callable[[Path], JsonDict]) -> Entry:
        """The entry of ``key``, built by ``build(folder)`` if it is not there or damaged.

        Args:
            kind: ``models``, ``onnx`` or ``engines``; a folder name.
            key: hash of everything that decides the content.
            build: fills the empty folder it is given and returns plain values to keep beside the files.

        Raises:
            CacheError: the folder cannot be written. Whatever ``build`` raises passes through, and
                leaves nothing behind.
        """
        folder = self.root / kind / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cache folder {folder.parent} cannot be made: {error.strerror}") from error
        with _locked(folder.with_suffix(".lock")):
            found, note = _verified(folder)
            if found is not None:
                return found
            return self._build(folder, build, note)

    def _build(self, folder: Path, build: Callable[[Path], JsonDict], note: str | None) -> Entry:
        shutil.rmtree(folder, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            start = time.perf_counter()
            info = build(scratch)
            seconds = time.perf_counter() - start
            files = {str(path.relative_to(scratch)): _sha256(path) for path in _files(scratch)}
            size = sum(path.stat().st_size for path in _files(scratch))
            manifest = {"seconds": seconds, "bytes": size, "info": info, "files": files}
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return Entry(path=folder, cached=False, seconds=seconds, bytes=size, info=info, note=note)


def _verified(folder: Path) -> tuple[Entry | None, str | None]:
    """The entry if it is whole, else None and what is wrong with it (None when there is none)."""
    if not folder.exists():
        return None, None
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` exclusively among processes; the kernel lets go of it when its holder dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

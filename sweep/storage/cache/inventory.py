"""List a cache: entries, files that belong to them, and leftovers of processes that died.

Layout::

    <root>/<kind>/<key>/entry.json    an entry; the manifest's mtime is when it was last used
    <root>/<kind>/<key>.lock          held while it is looked up, built or evicted
    <root>/<kind>/.<key>.<random>/    being built or evicted if that lock is held, else a dead process's leftover
    <root>/<kind>/timing-*            TensorRT's timing caches, shared by builds; never evicted
    <root>/runtime/<key>*             compiled by TensorRT-RTX for the engine of that key; evicted with it
    <root>/.in-use/                   see ``pins``
    <root>/.limit                     the limit that was last applied, bytes
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.system import regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.spec import JsonDict

MANIFEST = "entry.json"
ENGINES = "engines"
RUNTIME = "runtime"
TIMING = "timing"
_SHARED = "timing-"
_LIMIT = ".limit"
_MOST_LIMIT = 64  # bytes
MOST_MANIFEST = 64 << 20
"""Most bytes of an entry's manifest."""
_NAMED = ("model", "precision", "batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Describe one entry, or one file that belongs to an entry.

    Attributes:
        kind: ``models``, ``onnx``, ``engines``; ``runtime`` or ``timing`` for plain files.
        key: key of the entry; key of the engine for ``runtime``; the file's name for ``timing``.
        path: its folder or file.
        bytes: size of all its files, bytes.
        used_ns: when it was last used, ns since 1970.
        about: model, precision, batch, knobs and library, as far as the manifest has them.
    """

    kind: str
    key: str
    path: Path
    bytes: int
    used_ns: int
    about: JsonDict = field(default_factory=dict)

    @property
    def owner(self) -> tuple[str, str]:
        """Return kind and key of the entry whose lock and pins protect this item."""
        return (ENGINES if self.kind == RUNTIME else self.kind, self.key)

    @property
    def description(self) -> str:
        """Return model, precision, batch, knobs and library in one line, as far as the manifest has them."""
        model, precision, batch = (self.about.get(name) for name in _NAMED)
        words = [model, precision, None if batch is None else f"b{batch}"]
        knobs = self.about.get("knobs")
        words += [f"{name}={value}" for name, value in knobs.items()] if isinstance(knobs, dict) else []
        words.append(self.about.get("library"))
        return " ".join(str(word) for word in words if word)


def items(root: Path) -> list[Item]:
    """Return the entries and the files that belong to them, least recently used first."""
    entries = [item for kind in _kinds(root) for path in _inside(kind) if (item := _item(kind.name, path)) is not None]
    return sorted(entries, key=lambda item: item.used_ns)


def scratch_folders(root: Path) -> list[tuple[str, str, Path]]:
    """Return (kind, key, folder) of each entry that is being built or evicted, or was when its process died."""
    return [
        (kind.name, path.name[1:].rpartition(".")[0], path)
        for kind in _kinds(root)
        if kind.name != RUNTIME
        for path in _inside(kind)
        if path.name.startswith(".") and path.is_dir()
    ]


def idle_locks(root: Path) -> list[Path]:
    """Return the lock files without an entry, except those of timing caches, which builds hold."""
    return [
        path
        for kind in _kinds(root)
        if kind.name != RUNTIME
        for path in _inside(kind)
        if path.suffix == ".lock" and not path.name.startswith(_SHARED) and not path.with_suffix("").exists()
    ]


def lock_path(root: Path, kind: str, key: str) -> Path:
    """Return the lock file of an entry."""
    return root / kind / f"{key}.lock"


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder, bytes; files removed meanwhile are left out."""
    total = 0
    files = [path] if path.is_file() else [Path(at) / name for at, _, names in os.walk(path) for name in names]
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def used_ns(path: Path) -> int | None:
    """Return when an entry or a plain file was last used, ns since 1970; None if it is not there."""
    for dated in (path / MANIFEST, path):  # an entry without a manifest is damaged, and has only its own mtime
        with contextlib.suppress(OSError):
            return dated.stat().st_mtime_ns
    return None


def runtime_files(root: Path, key: str) -> list[Path]:
    """Return the files that were compiled for the engine of `key`."""
    return [path for path in _inside(root / RUNTIME) if _engine_of(path) == key]


def write_limit(root: Path, limit_bytes: int) -> None:
    """Store the limit, bytes, for later listings of this cache."""
    if read_limit(root) != limit_bytes:
        with contextlib.suppress(OSError):  # the limit applies all the same; only the table then shows another
            write_atomic(root / _LIMIT, f"{limit_bytes}\n".encode(), durable=False)


def read_limit(root: Path) -> int | None:
    """Return the limit that was last stored here, bytes; None if none was."""
    try:
        return int(regular_files.read_text(root / _LIMIT, follow=False, most=_MOST_LIMIT))
    except (OSError, ValueError):
        return None


def _kinds(root: Path) -> list[Path]:
    return [path for path in _inside(root) if path.is_dir() and not path.name.startswith(".")]


def _inside(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(folder.iterdir())


def _item(kind: str, path: Path) -> Item | None:
    if kind == RUNTIME:
        return _describe(RUNTIME, _engine_of(path), path)
    if path.name.startswith(_SHARED):
        return None if path.suffix == ".lock" else _describe(TIMING, path.name, path)
    if path.name.startswith(".") or not path.is_dir():
        return None
    return _describe(kind, path.name, path)


def _describe(kind: str, key: str, path: Path) -> Item | None:
    last_used_ns = used_ns(path)
    if last_used_ns is None:  # evicted since it was listed
        return None
    return Item(
        kind=kind, key=key, path=path, bytes=size_bytes(path), used_ns=last_used_ns, about=_about(path / MANIFEST)
    )


def _engine_of(runtime: Path) -> str:
    """Return the key of a runtime file's engine, which has neither dots nor dashes."""
    return re.split(r"[.-]", runtime.name.lstrip("."))[0]


def _about(manifest: Path) -> JsonDict:
    """Return the description in a manifest; older versions wrote only the model, and in ``info``."""
    try:
        entry = json.loads(regular_files.read_bytes(manifest, follow=False, most=MOST_MANIFEST))
        about = entry.get("about") or {name: entry["info"][name] for name in ("model",) if name in entry["info"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}

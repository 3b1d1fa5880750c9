"""Evict entries, safely among processes.

An entry goes only while its lock is held, nobody pins it, and it has not been used since it was listed. It is renamed
first: whoever is killed meanwhile leaves all of it or remains that the next prune clears away. Remains are
told from work in progress by the entry's lock, which is held as long as the work lasts.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.storage.cache import inventory, pins
from sweep.system import file_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from sweep.storage.cache.inventory import Item

_LOCK = ".prune.lock"
_BEING_BUILT = "a process that builds or looks it up"
_CHANGED = "a process that has used it meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Report what a prune did.

    Attributes:
        evicted: what went, least recently used first, each engine with its runtime files.
        kept: what should have gone and is in use, with who uses it.
        failed: what should have gone and cannot be removed, with the system's reason.
        remains_bytes: size of what dead processes had left behind; it is gone.
    """

    evicted: tuple[Item, ...]
    kept: tuple[tuple[Item, str], ...]
    failed: tuple[tuple[Item, str], ...]
    remains_bytes: int


def to_bytes(root: Path, limit_bytes: int, kinds: Collection[str] = ()) -> Pruned:
    """Evict until what is left takes no more than ``limit_bytes``, or all of it is in use.

    Args:
        root: of the cache.
        limit_bytes: for everything in the cache, of whatever kind; 0 evicts all that nobody uses.
        kinds: evict these alone; empty means all.
    """
    return _prune(root, kinds, lambda _, total: total > limit_bytes)


def older_than(root: Path, used_ns: int, kinds: Collection[str] = ()) -> Pruned:
    """Evict what was last used before ``used_ns``, ns since 1970."""
    return _prune(root, kinds, lambda item, _: item.used_ns < used_ns)


def discard(folder: Path) -> None:
    """Remove an entry whose lock is held: by a rename, so that it is there whole or not at all."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _prune(root: Path, kinds: Collection[str], goes: Callable[[Item, int], bool]) -> Pruned:
    evicted: list[Item] = []
    kept: list[tuple[Item, str]] = []
    failed: list[tuple[Item, str]] = []
    with file_locks.locked(root / _LOCK):  # of two prunes at once, each would make the room that the other makes
        remains_bytes = _clear_remains(root)
        items = inventory.items(root)
        total = sum(item.bytes for item in items)
        for item in items:
            if item.kind not in (kinds or _entries(items)) or not goes(item, total):
                continue
            try:
                user = _evict(root, item)
            except (OSError, CacheError) as error:
                failed.append((item, str(error)))
                continue
            if user is not None:
                kept.append((item, user))
                continue
            gone = [item, *(_compiled_for(item, items) if item.kind == inventory.ENGINES else [])]
            evicted += gone
            total -= sum(each.bytes for each in gone)
    return Pruned(evicted=tuple(evicted), kept=tuple(kept), failed=tuple(failed), remains_bytes=remains_bytes)


def _entries(items: list[Item]) -> set[str]:
    """Return every kind that goes by itself: runtime files go with their engines, timing caches stay."""
    return {item.kind for item in items} - {inventory.RUNTIME, inventory.TIMING}


def _compiled_for(engine: Item, items: list[Item]) -> list[Item]:
    return [item for item in items if item.kind == inventory.RUNTIME and item.key == engine.key]


def _evict(root: Path, item: Item) -> str | None:
    """Remove `item`; return None if that is done, else who uses it."""
    kind, key = item.owner
    lock = inventory.lock_of(root, kind, key)
    lock.parent.mkdir(exist_ok=True)
    with file_locks.try_locked(lock) as locked:
        if not locked:
            return _BEING_BUILT
        user = pins.in_use(root).get(item.owner)
        if user is not None:
            return user
        if inventory.used_ns(item.path) != item.used_ns:
            return _CHANGED
        _remove(root, item)
        if not (root / kind / key).exists():
            lock.unlink(missing_ok=True)
    return None


def _remove(root: Path, item: Item) -> None:
    if item.kind == inventory.RUNTIME:
        item.path.unlink(missing_ok=True)
        return
    discard(item.path)
    if item.kind == inventory.ENGINES:
        for file in inventory.runtime_files(root, item.key):
            file.unlink(missing_ok=True)


def _clear_remains(root: Path) -> int:
    """Remove what dead processes left: pins, scratch folders, runtime files without an engine, idle locks."""
    pins.in_use(root)
    cleared = 0
    for kind, key, path in inventory.remains(root):
        with file_locks.try_locked(inventory.lock_of(root, kind, key)) as locked:
            if locked:
                cleared += inventory.size(path)
                shutil.rmtree(path, ignore_errors=True)
    for item in inventory.items(root):
        if item.kind == inventory.RUNTIME and not (root / inventory.ENGINES / item.key).exists():
            cleared += item.bytes if _evict(root, item) is None else 0
    for lock in inventory.idle_locks(root):
        with file_locks.try_locked(lock) as locked:
            if locked and not lock.with_suffix("").exists():
                lock.unlink(missing_ok=True)
    return cleared

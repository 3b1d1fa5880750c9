"""Evict entries safely while other processes use the cache.

An entry is evicted only while its lock is held, no process pins it, and it has not been used since it was listed. It is
renamed first: a process that is killed meanwhile leaves the whole entry, or a renamed folder that the next prune
removes. Such leftovers differ from work in progress in that nobody holds the entry's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import CacheError
from sweep.storage.cache import inventory, pins
from sweep.system import atomic_files, file_locks, lock_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from sweep.storage.cache.inventory import Item

_LOCK = ".prune.lock"
_BEING_BUILT = "a process that builds or looks it up"
_CHANGED = "a process that has used it meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Report the result of a prune.

    Attributes:
        evicted: entries that were removed, least recently used first, each engine with its runtime files.
        in_use: entries that were to be removed but are in use, with the user of each.
        failed: entries that were to be removed but could not be, with the system's reason.
        leftover_bytes: size of the removed leftovers of dead processes, bytes.
    """

    evicted: tuple[Item, ...]
    in_use: tuple[tuple[Item, str], ...]
    failed: tuple[tuple[Item, str], ...]
    leftover_bytes: int


def to_bytes(root: Path, limit_bytes: int, kinds: Collection[str] = ()) -> Pruned:
    """Evict the least recently used entries until the cache takes no more than ``limit_bytes``.

    Args:
        root: folder of the cache.
        limit_bytes: limit for all kinds of entries together, bytes; 0 evicts every entry that is not in use.
        kinds: kinds to evict; empty for all.

    Returns:
        The entries removed, in use and failed.
    """
    return _prune(root, kinds, lambda _, total: total > limit_bytes)


def older_than(root: Path, used_ns: int, kinds: Collection[str] = ()) -> Pruned:
    """Evict the entries that were last used before a time.

    Args:
        root: folder of the cache.
        used_ns: the time, ns since 1970.
        kinds: kinds to evict; empty for all.

    Returns:
        The entries removed, in use and failed.
    """
    return _prune(root, kinds, lambda item, _: item.used_ns < used_ns)


def entries(root: Path, owners: Collection[tuple[str, str]]) -> Pruned:
    """Evict single entries, each engine with its runtime files.

    Args:
        root: folder of the cache.
        owners: kind and key of each.

    Returns:
        The entries removed, in use and failed.
    """
    return _prune(root, {kind for kind, _ in owners}, lambda item, _: item.owner in owners)


def remove(root: Path, kind: str, key: str) -> None:
    """Remove one entry that nobody will ask for again, with its runtime files; one in use stays."""
    for item in inventory.items(root):
        if item.owner == (kind, key) and item.kind == kind:
            with contextlib.suppress(OSError, CacheError):  # it is evicted like any other, later
                _evict(root, item)


def discard(folder: Path) -> None:
    """Remove an entry whose lock the caller holds. It is renamed first, so that no reader sees part of it."""
    if not os.path.lexists(folder):
        return
    aside = atomic_files.temporary_path(folder)
    folder.rename(aside)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:  # a link, dangling or not, or a file in place of the folder
        aside.unlink(missing_ok=True)


def _prune(root: Path, kinds: Collection[str], is_due: Callable[[Item, int], bool]) -> Pruned:
    """Evict the entries for which ``is_due(entry, bytes of the cache)`` is true, and remove leftovers."""
    evicted: list[Item] = []
    in_use: list[tuple[Item, str]] = []
    failed: list[tuple[Item, str]] = []
    with file_locks.locked(root / _LOCK):  # two prunes at once would each evict as much as one has to
        leftover_bytes = _remove_leftovers(root)
        items = inventory.items(root)
        total = sum(item.bytes for item in items)
        for item in items:
            if item.kind not in (kinds or _prunable_kinds(items)) or not is_due(item, total):
                continue
            try:
                user = _evict(root, item)
            except (OSError, CacheError) as error:
                failed.append((item, str(error)))
                continue
            if user is not None:
                in_use.append((item, user))
                continue
            removed = [item, *(_runtime_files_of(item, items) if item.kind == inventory.ENGINES else [])]
            evicted += removed
            total -= sum(each.bytes for each in removed)
    return Pruned(evicted=tuple(evicted), in_use=tuple(in_use), failed=tuple(failed), leftover_bytes=leftover_bytes)


def _prunable_kinds(items: list[Item]) -> set[str]:
    """Return every kind that can be evicted by itself: runtime files go with their engine, timing caches stay."""
    return {item.kind for item in items} - {inventory.RUNTIME, inventory.TIMING}


def _runtime_files_of(engine: Item, items: list[Item]) -> list[Item]:
    return [item for item in items if item.kind == inventory.RUNTIME and item.key == engine.key]


def _evict(root: Path, item: Item) -> str | None:
    """Remove `item` and return None, or return the user that keeps it in use."""
    kind, key = item.owner
    lock = inventory.lock_path(root, kind, key)
    lock.parent.mkdir(exist_ok=True)
    with file_locks.try_locked(lock) as locked:
        if not locked:
            owner = lock_owner.read(lock)
            return _BEING_BUILT if owner is None else f"{owner}, which builds it or looks it up"
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


def _remove_leftovers(root: Path) -> int:
    """Remove pins, scratch folders, runtime files without an engine and idle locks of dead processes.

    Returns:
        Size of what was removed, bytes.
    """
    pins.in_use(root)
    removed_bytes = 0
    for kind, key, path in inventory.scratch_folders(root):
        if atomic_files.is_of_other_host(path.name):  # its builder may be alive: its lock need not reach this host
            continue
        with file_locks.try_locked(inventory.lock_path(root, kind, key)) as locked:
            if locked:
                removed_bytes += inventory.size_bytes(path)
                shutil.rmtree(path, ignore_errors=True)
    for item in inventory.items(root):
        if item.kind == inventory.RUNTIME and not (root / inventory.ENGINES / item.key).exists():
            removed_bytes += item.bytes if _evict(root, item) is None else 0
    for lock in inventory.idle_locks(root):
        with file_locks.try_locked(lock) as locked:
            if locked and not lock.with_suffix("").exists():
                lock.unlink(missing_ok=True)
    return removed_bytes

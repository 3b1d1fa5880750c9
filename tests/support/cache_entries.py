"""Entries for the tests of the cache: small real files whose content is known by the key."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sweep.storage.cache import Cache, inventory

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 100_000


def content(key: str) -> bytes:
    return random.Random(key).randbytes(SIZE)  # noqa: S311 - test data


def fill(key: str, calls: list[str] | None = None):
    def build(folder: Path) -> dict[str, object]:
        (folder / "file").write_bytes(content(key))
        if calls is not None:
            calls.append(key)
        return {}

    return build


def put(root: Path, *keys: str, kind: str = "engines", limit_bytes: int | None = None) -> None:
    """Entries that nobody uses once this returns, each used a little later than the one before."""
    for key in keys:
        with Cache(root, limit_bytes) as cache:
            cache.get(kind, key, fill(key))


def there(root: Path, kind: str = "engines") -> set[str]:
    return {item.key for item in inventory.items(root) if item.kind == kind}


def nothing_but(folder: Path, *keys: str) -> bool:
    return {path.name for path in folder.iterdir()} == {*keys, *(f"{key}.lock" for key in keys)}

"""Decide whether the cache may be a link, to a folder on a larger disk.

An archive that is unpacked belongs to whoever unpacks it, links included: the owner of a link does not tell who chose
its target. What is behind it does: a folder that a sweep has marked as a cache, or an empty one. In any other folder,
an eviction would remove files that are no entries.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.system import file_trust, regular_files

if TYPE_CHECKING:
    from pathlib import Path

MARKER = ".sweep-cache"
_TEXT = b"Models, ONNX files and engines of sweep, which can be built again: `sweep cache prune` removes them.\n"


def check(root: Path) -> None:
    """Refuse a cache that is a link, unless it leads to a cache of this user's own, or to an empty folder.

    Args:
        root: path of the cache, ``results/cache``.

    Raises:
        ConfigError: the link leads elsewhere; with what to do.
    """
    if not root.is_symlink():
        return
    reason = _refusal(root)
    if reason is not None:
        raise ConfigError(
            f"{root} is a link to {root.readlink()}, {reason}: give it an empty folder of your own, or remove the link"
        )


def mark(root: Path) -> None:
    """Mark a folder as a cache, so that a link may lead to it once it is moved; create it if it is missing.

    A failure to write is ignored: whatever builds into the cache reports it.
    """
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(root / MARKER):
            with regular_files.open_output(root / MARKER) as file:
                file.write(_TEXT)


def _refusal(root: Path) -> str | None:
    """Return why the folder behind the link is not to be written to, or emptied; None if it may be."""
    try:
        target = root.resolve(strict=True)
        if not target.is_dir():
            return "which is no folder"
        link_owner, distrust = root.lstat().st_uid, file_trust.distrust_reason(target)
        if link_owner not in {os.geteuid(), 0}:
            return f"and the link belongs to user {link_owner}"
        if distrust is not None:
            return f"which {distrust}"
        names = os.listdir(target)  # noqa: PTH208 - names
        marked = MARKER in names and stat.S_ISREG((target / MARKER).lstat().st_mode)
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        return f"which cannot be looked at ({getattr(error, 'strerror', None) or error})"
    return None if marked or not names else f"which holds other files and no {MARKER}"

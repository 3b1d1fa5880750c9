"""Who may write what: nothing of ours is writable by other users, and what they may have written is not trusted."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


def restrict() -> None:
    """From here on this process and its children make nothing that group or others may write, whatever the umask."""
    os.umask(os.umask(OTHERS) | OTHERS)


def distrusted(path: Path) -> str | None:
    """Why another user may have written the file or folder, or None: it is ours (or root's) and ours alone to write.

    Raises:
        OSError: it cannot be looked at.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "is a link"
    if found.st_uid not in {os.geteuid(), _ROOT}:
        return f"belongs to user {found.st_uid}"
    return "can be written by other users" if found.st_mode & OTHERS else None

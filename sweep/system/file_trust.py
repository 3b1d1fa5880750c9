"""Restrict who may write our files, and distrust files that other users may have written."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


def restrict() -> None:
    """Clear the write permission of group and others on all files that this process and its children create."""
    os.umask(os.umask(OTHERS) | OTHERS)


def distrust_reason(path: Path) -> str | None:
    """Return why another user may have written the file or folder; None if only this user or root can have.

    Raises:
        OSError: the path cannot be inspected.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid not in {os.geteuid(), _ROOT}:
        return f"belongs to user {status.st_uid}"
    return "can be written by other users" if status.st_mode & OTHERS else None

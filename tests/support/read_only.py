"""Run a command as a user for whom a folder is read-only, root included."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_VERSION_3 = 0x20080522  # of the header of capset(2)
_WRITE, _READ = 0o222, 0o555


def take_writing_away(folder: Path) -> None:
    """Make all below a folder read-only, for whoever is bound by the modes of files."""
    for at, _, files in os.walk(folder):
        for path in (at, *(os.path.join(at, name) for name in files)):  # noqa: PTH118 - of many
            os.chmod(path, os.stat(path).st_mode & ~_WRITE)  # noqa: PTH101, PTH116


def give_writing_back(folder: Path) -> None:
    """Let the owner write below a folder again."""
    for at, _, files in os.walk(folder):
        for path in (at, *(os.path.join(at, name) for name in files)):  # noqa: PTH118
            os.chmod(path, os.stat(path).st_mode | 0o200)  # noqa: PTH101, PTH116


def run_bound(words: list[str], folder: str) -> tuple[int, str, str]:
    """Run a command in `folder` as one who is bound by the modes of files; return its code and both outputs.

    To be called in a process of its own, which loses what root may do.
    """
    from sweep.cli import commands

    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
        library = ctypes.CDLL(None, use_errno=True)
        if library.capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")
    os.chdir(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = commands.main(words)
    return code, out.getvalue(), err.getvalue()

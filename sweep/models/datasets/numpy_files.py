"""Read arrays from files that a user gives, without running what a file says."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.system import regular_files

if TYPE_CHECKING:
    from pathlib import Path

UNREADABLE = (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What numpy and zipfile raise for a file that is cut off, damaged, too large, or packed in a way they lack."""


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of an .npz by name; the only array of an .npy is called "".

    Raises:
        OSError: the file is missing, or a pipe, socket or device.
        ValueError: it holds Python objects, or more than 4 GiB. Other members of `UNREADABLE` if it is damaged.
    """
    with regular_files.open_input(path, follow=True) as opened:
        regular_files.check_size(opened)
        read = np.load(opened, allow_pickle=False)
        if not isinstance(read, np.lib.npyio.NpzFile):
            return {"": read}
        with read as archive:
            return dict(archive)


def read_npz(path: Path, content: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of an .npz by name.

    Args:
        path: of the file.
        content: what the arrays should be, for the message.

    Raises:
        ValueError: the file is a single array. Otherwise as ``read_arrays``.
    """
    arrays = read_arrays(path)
    if "" in arrays:
        raise ValueError(f"it is one array, not an .npz of {content}")
    return arrays

"""Read arrays from files that a user gives, without running what a file says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.system import array_files

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

UNREADABLE = (OSError, ValueError, MemoryError)
"""What is raised for a file that is cut off, damaged, packed in an unknown way, or too large for this machine."""


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of an .npz by name; the only array of an .npy is called "".

    Raises:
        OSError: the file is missing, or a pipe, socket or device.
        ValueError: it is damaged, holds Python objects, or more than 4 GiB.
    """
    return array_files.read_arrays(path, follow=True)


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

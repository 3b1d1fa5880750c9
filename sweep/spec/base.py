"""Define what several classes of axes use."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Protocol

NOT_IN_KEY = {"key": False}  # metadata of a field outside the key: the path of a file whose digest is another field
JsonDict = dict[str, Any]


class DataSource(Protocol):
    """Describe a user's own samples: files or a function.

    Attributes:
        kind: format of the files, or function.
        name: of the function; None for files.
        path: of the files; None for a function.
    """

    @property
    def kind(self) -> str:
        """Return the format of the files, or function."""

    @property
    def name(self) -> str | None:
        """Return the name of the function, or None for files."""

    @property
    def path(self) -> str | None:
        """Return the path of the files, or None for a function."""


def source_name(data: DataSource | None) -> str:
    """Return the name of the samples in tables: the function, or the name of the file or folder without its path."""
    if data is None:
        return "null"
    return str(data.name or PurePath(str(data.path)).name)


def source_override(data: DataSource | None, prefixes: tuple[str, ...]) -> str | None:
    """Return the value of the command line that selects the samples; None for none.

    Args:
        data: the samples; None for none.
        prefixes: kinds that are written before the path, as in images:FOLDER.
    """
    if data is None or data.path is None:
        return None if data is None else data.name
    return f"{data.kind}:{data.path}" if data.kind in prefixes else data.path

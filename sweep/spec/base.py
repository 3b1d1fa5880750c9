"""Share what the classes of axes have in common."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Protocol

NOT_IN_KEY = {"key": False}  # of a field that identifies nothing, as the path of a file whose digest is there
JsonDict = dict[str, Any]


class DataSource(Protocol):
    """Describe samples of a user: files or a function.

    Attributes:
        kind: how the files are read, or function.
        name: of the function; None for files.
        path: of the files; None for a function.
    """

    @property
    def kind(self) -> str:
        """Return how the files are read."""

    @property
    def name(self) -> str | None:
        """Return the name of the function."""

    @property
    def path(self) -> str | None:
        """Return the path of the files."""


def source_name(data: DataSource | None) -> str:
    """Return how tables call the samples: the function, or the file or folder without where it lies."""
    if data is None:
        return "null"
    return str(data.name or PurePath(str(data.path)).name)


def source_override(data: DataSource | None, prefixes: tuple[str, ...]) -> str | None:
    """Return how the samples are asked for on the command line.

    Args:
        data: the samples; None for none.
        prefixes: kinds that are typed before the path, as in images:FOLDER.
    """
    if data is None or data.path is None:
        return None if data is None else data.name
    return f"{data.kind}:{data.path}" if data.kind in prefixes else data.path

"""Attach files to runs, where MLflow's answer says that they go.

A server is not trusted: one that answers ``file:///home/me/.config`` would have its client write there. Its artifacts
therefore go to a place on the network alone, unless the user allows a folder of this machine.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sweep.errors import printable, shorten
from sweep.report.mlflow.client import failure
from sweep.report.mlflow.store_uri import is_http
from sweep.system import regular_files, write_atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALLOW = "SWEEP_ARTIFACTS"
"""Environment variable: folders, separated by colons, in which a server may have its artifacts written."""

_LOCAL = ("", "file")  # schemes of a path


class Artifacts:
    """Attach files to the runs of one store.

    Args:
        client: client of the store.
        uri: tracking URI of the store.
        own: folder of this sweep's artifacts, which earlier versions named to servers too; it is always allowed.

    Attributes:
        client: client of the store.
        uri: tracking URI of the store.
    """

    def __init__(self, client: MlflowClient, uri: str, own: Path | None = None) -> None:
        self.client, self.uri, self._own = client, uri, own

    def attach(
        self, run_id: str, name: str, content: bytes, folder: str | None = None, *, location: str | None = None
    ) -> None:
        """Attach `content` as the file `name` of a run, in its folder `folder`.

        Args:
            run_id: id of the run.
            name: name of the file.
            content: its bytes.
            folder: folder among the run's artifacts; None is their root.
            location: where the artifacts of the run lie, where the caller knows it; None asks MLflow.

        Raises:
            TrackingError: a server chose a folder of this machine that its user does not allow.
        """
        location = location or str(self.client.get_run(run_id).info.artifact_uri)
        local = None if is_http(self.uri) else _folder_of(location)
        if local is not None:  # a database's files on this machine: no copy by way of a temporary folder
            place = local / folder if folder else local
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / name, content, durable=False)
            return
        repository = self._repository(location)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            write_atomic(path, content, durable=False)
            repository.log_artifact(str(path), folder)

    def attach_file(self, run_id: str, path: Path, folder: str | None = None, *, location: str | None = None) -> None:
        """Attach the file at `path`; a file that is missing, a link or no regular file is left out.

        The arguments are those of ``attach``.

        Raises:
            TrackingError: as ``attach``.
        """
        try:
            content = regular_files.read_bytes(path, follow=False)
        except OSError:
            return
        self.attach(run_id, path.name, content, folder, location=location)

    def _repository(self, location: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if is_http(self.uri) and not is_allowed(location, self._own):
            place = shorten(printable(location))
            raise failure(
                self.uri,
                f"the server has artifacts written to {place}, a folder of this machine: start it with "
                f"--artifacts-destination, or allow the folder by {ALLOW}=FOLDER",
            )
        return get_artifact_repository(location, tracking_uri=self.uri)


def _folder_of(location: str) -> Path | None:
    """Return the folder of this machine at `location`; None if it is elsewhere."""
    parts = urlsplit(location)
    if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
        return None
    return Path(unquote(parts.path))


def is_allowed(location: str, own: Path | None = None) -> bool:
    """Return whether a server may have artifacts written to `location`: not to a path that its user did not name."""
    parts = urlsplit(location)
    if parts.scheme.lower() not in _LOCAL:
        return True
    folder = Path(unquote(parts.path) if parts.scheme else location).resolve()
    allowed = [Path(name).expanduser().resolve() for name in os.environ.get(ALLOW, "").split(os.pathsep) if name]
    return any(folder.is_relative_to(place) for place in (*allowed, *([own.resolve()] if own else [])))

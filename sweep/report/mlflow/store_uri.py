"""Resolve the tracking store, probe it, and give the link to it, without an import of mlflow."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from sweep.errors import ConfigError
from sweep.report.mlflow import sqlite_store

SERVER_ERROR = 500
NOT_FOUND = 404


def default_uri(results: Path) -> str:
    """Return the URI of the store that needs no set-up: a sqlite file in the results folder.

    Raises:
        ConfigError: the folder's path has a ``?``, which ends the path in the URI of a database: the store would be
            made beside the folder.
    """
    if "?" in str(results.resolve()):
        raise ConfigError(
            f"results={results}: MLflow's store cannot lie below a folder with ? in its name: set results= to another, "
            "tracking.uri (--uri) to a store elsewhere, or tracking=none"
        )
    return f"sqlite:///{results.resolve()}/mlflow.db"


def resolve_uri(explicit: str | None, results: Path) -> str:
    """Return the URI of the store to use: `explicit`, else ``MLFLOW_TRACKING_URI``, else ``default_uri``."""
    return explicit or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(results)


def is_http(uri: str) -> bool:
    """Return whether the URI names a server, not a database."""
    return _split(uri).scheme in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of the file of a sqlite store; None for every other store.

    Links among its folders are resolved; the file itself may be one, which no publisher follows.
    """
    scheme, separator, text = uri.partition(":///")
    if not separator or not scheme.startswith("sqlite"):
        return None
    path = Path(text.partition("?")[0])
    return path.parent.resolve() / path.name


def without_password(uri: str) -> str:
    """Remove user and password from the URI, so that it can be printed."""
    parts = _split(uri)
    if not parts.scheme:  # also of a text that is no URI
        return re.sub(r"//[^/]*@", "//", uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _split(uri: str) -> SplitResult:
    """Return the parts of the URI; empty ones of a text that is none, such as ``http://[::1``."""
    try:
        return urlsplit(uri)
    except ValueError:
        return SplitResult("", "", "", "", "")


def reachable(uri: str, timeout_s: float = 3.0) -> str | None:
    """Probe whether the store can be written to, a server by its ``/health``.

    The time limit includes name resolution. Databases other than sqlite are not probed.

    Args:
        uri: tracking URI.
        timeout_s: time after which a server that has not answered counts as dead, s.

    Returns:
        The reason why the store cannot be written to; None if it can, or if it was not probed.
    """
    if is_http(uri):
        return _within(uri, timeout_s)
    path = sqlite_path(uri)
    if path is not None:
        if "/" in uri.partition("?")[2]:  # the file's name would end at the question mark, in another folder
            return "a path with a question mark cannot name an sqlite store: name another (tracking.uri, --uri)"
        return _unusable(path)
    if _split(uri) == SplitResult("", "", "", "", ""):
        return "that is no address: set tracking.uri (--uri) to http://HOST:PORT or sqlite:////absolute/path/mlflow.db"
    if _split(uri).scheme in ("", "file"):
        return "MLflow 3.17 cannot use a folder as its store: set tracking.uri to sqlite:////absolute/path/mlflow.db"
    return None


def _within(uri: str, timeout_s: float) -> str | None:
    answer: list[str | None] = []
    probe = threading.Thread(target=lambda: answer.append(_health(uri, timeout_s)), daemon=True)
    probe.start()
    probe.join(timeout_s)  # the socket's own limit knows neither DNS nor a server that answers byte by byte
    return answer[0] if answer else _silence(timeout_s)


def _silence(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s"


def _health(uri: str, timeout_s: float) -> str | None:
    try:
        request = urllib.request.Request(f"{without_password(uri).rstrip('/')}/health")  # noqa: S310 - scheme checked by is_http
        urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310 - same
    except urllib.error.HTTPError as error:
        if error.code == NOT_FOUND:
            return "that server is not MLflow (it has no /health)"
        return f"the server answers HTTP {error.code}" if error.code >= SERVER_ERROR else None
    except (OSError, ValueError, http.client.HTTPException) as error:  # a ValueError also stands for a bad port
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            return _silence(timeout_s)
        if isinstance(reason, ssl.SSLError):
            return None  # alive; mlflow knows of a lab's own certificates (REQUESTS_CA_BUNDLE), urllib does not
        return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
    return None


def _unusable(path: Path) -> str | None:
    target = path
    try:
        problem = sqlite_store.fault(path)
        while not target.exists():
            target = target.parent
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL byte
        problem = getattr(error, "strerror", None) or str(error)
    if problem is not None:
        return f"{path} {problem}"
    return None if os.access(target, os.W_OK) else f"{target} cannot be written"

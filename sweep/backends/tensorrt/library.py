"""Import NVIDIA's ``tensorrt`` (10.x, 11.x) or ``tensorrt_rtx`` behind one interface.

They share one API, less what a version dropped or an edition lacks. Features are detected on the module, never from a
table of versions. Nothing is imported before ``load``; the other functions work in a process that must not load CUDA.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import UnsupportedError, shorten, without_source_places
from sweep.system import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("tensorrt", "tensorrt_rtx")
INSTALL = {
    "tensorrt": "pip install --extra-index-url https://pypi.nvidia.com 'tensorrt>=10.3' 'cuda-python>=12.6'",
    "tensorrt_rtx": "pip install 'tensorrt-rtx>=1.4' 'cuda-python>=13.0'",
}
_SUFFIXES = ("", "-cu13", "-cu12", "-cu13-bindings", "-cu12-bindings", "-bindings")  # of the packages that carry it
_LISTING = "Layers:\nName: "  # starts the message in which a builder lists the layers of a detailed engine
_NO_DRIVER = re.compile(r"\s*Error Code 1: Cuda Runtime \(.*?cudaError 35\b[^)]*\)+")
"""Match what a library adds to any other error where no GPU is; builds need none."""
_KEPT_MESSAGES = 12
_SHOWN_CHARACTERS = 1000


class Log:
    """Keep the library's first and last warnings and errors, and print nothing.

    A process has one per library, since the library keeps the first logger that it is given.
    """

    def __init__(self) -> None:
        self._first: list[tuple[str, str]] = []  # what went wrong first is often why the rest did
        self._last: deque[tuple[str, str]] = deque(maxlen=_KEPT_MESSAGES)
        self.listing: str | None = None

    def clear(self) -> None:
        """Discard the messages so far."""
        self._first.clear()
        self._last.clear()
        self.listing = None

    def add(self, severity: str, message: str) -> None:
        """Keep warnings and errors, and the builder's listing of the layers."""
        if severity not in {"VERBOSE", "INFO"}:
            entry = (severity, " ".join(message.split()))
            (self._first if len(self._first) < _KEPT_MESSAGES else self._last).append(entry)
        elif message.startswith(_LISTING):
            self.listing = message

    def tail(self) -> str:
        """Return the messages on one line, shortened: errors if there are any, else warnings."""
        entries = [*self._first, *self._last]
        errors = [text for severity, text in entries if severity.endswith("ERROR")]
        messages = errors or [text for _, text in entries]
        return explain("; ".join(dict.fromkeys(messages))) or "it gave no reason"


def explain(text: str) -> str:
    """Return a library's message on one line, shortened, without what says nothing of its cause."""
    causes = [_NO_DRIVER.sub("", without_source_places(part)).strip() for part in text.split("; ")]
    return shorten("; ".join(dict.fromkeys(filter(None, causes))) or text, _SHOWN_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Library:
    """Hold an imported library.

    Attributes:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        trt: its module.
        log: its messages.
        logger: the ``ILogger`` that writes to ``log``.
    """

    name: str
    trt: Any
    log: Log
    logger: Any

    @property
    def label(self) -> str:
        """Return name and version, as in ``tensorrt_rtx 1.6.1.120``."""
        return f"{self.name} {self.trt.__version__}"

    def member(self, enum: str, name: str) -> Any:
        """Return member ``name`` of the library's enumeration ``enum``.

        Raises:
            UnsupportedError: this version has no such enumeration or member.
        """
        value = getattr(getattr(self.trt, enum, None), name, None)
        if value is None:
            raise UnsupportedError(f"{self.label} has no {enum}.{name}")
        return value

    def has(self, enum: str, name: str) -> bool:
        """Return whether this version has member ``name`` of ``enum``."""
        return getattr(getattr(self.trt, enum, None), name, None) is not None


@functools.cache
def load(name: str) -> Library:
    """Import ``name``, once per process.

    Raises:
        UnsupportedError: it is not installed, or cannot be imported.
    """
    if not installed(name):
        raise UnsupportedError(f"{name} is not installed; {INSTALL[name]}")
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise UnsupportedError(f"{name} cannot be imported: {' '.join(str(error).split())}") from error
    log = Log()
    logger = _logger(trt, log)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")  # those that the library ships; a graph may name them
    return Library(name, trt, log, logger)


def _logger(trt: Any, log: Log) -> Any:
    """Create the library's ``ILogger``; the class can be defined only after its base is imported."""

    class RecordingLogger(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]  # the base is known when it runs
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.add(severity.name, msg)

    return RecordingLogger()


def installed(name: str) -> bool:
    """Return whether ``name`` can be imported, without importing it; type stubs alone do not count."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def version(name: str) -> str | None:
    """Return the installed version, from the package's metadata or else from the module; None if not installed."""
    return next(_versions(name), None) or environment.module_version(name) if installed(name) else None


def _versions(name: str) -> Iterator[str]:
    for suffix in _SUFFIXES:
        try:
            yield importlib.metadata.version(name.replace("_", "-") + suffix)
        except importlib.metadata.PackageNotFoundError:
            continue

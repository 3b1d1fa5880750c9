"""Record what the GPU runs, by its own clock, with NVIDIA's CUPTI (the package ``cupti-python``).

It adds no events between kernels. Only this module imports ``cupti``, and only where layers are profiled.

Source:
    *Activity API* of the CUPTI documentation.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = "pip install 'sweep[layers]' times kernels by the GPU's own clock"
_KINDS = {"CONCURRENT_KERNEL": "kernel", "MEMSET": "memset", "MEMCPY": "memcpy"}
_BUFFER_BYTES = 8 << 20
_FLUSH_ALL = 1


@dataclass(frozen=True, slots=True, order=True)
class Activity:
    """Hold one thing that the GPU ran.

    Attributes:
        start_ns: its start, on the GPU's clock, ns.
        end_ns: its end.
        kind: kernel, memset or memcpy.
        name: function of a kernel, demangled where that is possible; the kind of anything else.
        stream: number of its stream.
    """

    start_ns: int
    end_ns: int
    kind: str
    name: str
    stream: int


def installed() -> bool:
    """Return whether ``cupti-python`` is installed, without importing it."""
    return importlib.util.find_spec("cupti") is not None


@contextmanager
def record() -> Iterator[list[Activity]]:
    """Record what the GPU runs inside the block; the list is filled, in the order of the starts, once that ends.

    Raises:
        SessionError: CUPTI cannot be used here; with its own message.
    """
    cupti = _load()
    records: list[Activity] = []

    def complete(activities: list[Any]) -> None:
        records.extend(_activity(item, kind) for item in activities if (kind := numbers.get(int(item.kind))))

    numbers = {int(getattr(cupti.ActivityKind, name)): kind for name, kind in _KINDS.items()}
    enabled: list[Any] = []
    try:
        cupti.activity_register_callbacks(lambda: (_BUFFER_BYTES, 0), complete)
        for name in _KINDS:
            cupti.activity_enable(getattr(cupti.ActivityKind, name))
            enabled.append(getattr(cupti.ActivityKind, name))
    except Exception as error:
        for kind in enabled:
            cupti.activity_disable(kind)
        raise SessionError(f"CUPTI records no kernels here: {_text(error)}") from error
    try:
        yield records
    finally:
        cupti.activity_flush_all(_FLUSH_ALL)
        for kind in enabled:
            cupti.activity_disable(kind)
    records.sort()


def _load() -> Any:
    try:
        from cupti import cupti
    except Exception as error:  # its library may be of another CUDA than the driver
        raise SessionError(f"cupti-python cannot be loaded: {_text(error)}") from error
    return cupti


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _activity(item: Any, kind: str) -> Activity:
    name = str(item.name) if kind == "kernel" else kind
    return Activity(int(item.start), int(item.end), kind, name, int(item.stream_id))

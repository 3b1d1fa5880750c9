"""Turn frozen dataclasses into plain JSON values and back, for messages between processes."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return a dataclass instance as nested dicts and lists."""
    return msgspec.to_builtins(value)


def from_plain(kind: type[T], plain: Any) -> T:
    """Return an instance of dataclass `kind` from what ``to_plain`` gave, also after a trip through JSON.

    Raises:
        msgspec.ValidationError: a value is missing or of another type.
    """
    return msgspec.convert(plain, kind)

"""Turn frozen dataclasses into plain JSON values and back, for messages between processes."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Convert a dataclass instance to nested dicts and lists."""
    return msgspec.to_builtins(value)


def from_plain(kind: type[T], plain: Any) -> T:
    """Convert plain values back to an instance of a dataclass.

    Args:
        kind: the dataclass.
        plain: result of ``to_plain``, also after encoding and decoding as JSON.

    Raises:
        msgspec.ValidationError: a value is missing or of another type.
    """
    return msgspec.convert(plain, kind)

"""Frozen dataclasses <-> plain JSON values, for messages between processes."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A dataclass instance as nested dicts and lists."""
    return dataclasses.asdict(value)


def from_plain(kind: type[T], plain: Any) -> T:
    """The inverse of ``to_plain`` (also after a trip through JSON): an instance of dataclass ``kind``."""
    hints = typing.get_type_hints(kind)
    values = {
        item.name: _restore(hints[item.name], plain[item.name])
        for item in dataclasses.fields(kind)  # type: ignore[arg-type]  # T is a dataclass by contract
        if item.name in plain
    }
    return kind(**values)


def _restore(hint: Any, plain: Any) -> Any:
    if plain is None:
        return None
    if typing.get_origin(hint) in {types.UnionType, typing.Union}:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return _restore(options[0], plain) if len(options) == 1 else plain
    if typing.get_origin(hint) is tuple:
        return tuple(_restore(typing.get_args(hint)[0], item) for item in plain)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast("type[Any]", hint), plain)
    return plain

"""Decide which names a sweep can have: its folder is named by it."""

from __future__ import annotations

import re

from sweep.errors import ConfigError

_RESERVED = ("cache", "recipes", "reference", "mlartifacts")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+-]{0,99}")


def check_name(name: str) -> None:
    """Refuse a name that no sweep can have.

    Raises:
        ConfigError: it has other characters, or is that of a folder with another purpose.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(f"name={name}: letters, digits and . _ , = + - only, and none of {', '.join(_RESERVED)}")

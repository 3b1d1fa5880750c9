"""Checks of single values, each with its one line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def at_least(least: int, **values: float) -> None:
    """Refuse a value below ``least``."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ConfigError(f"{name}={value}: must be {least} or more")


def above_zero(**values: float) -> None:
    """Refuse a value that is not above 0 and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value:g}: must be above 0")


def one_of(key: str, value: str | None, known: Sequence[str]) -> str | None:
    """``value``, refused unless it is None or one of ``known``."""
    if value is not None and value not in known:
        raise ConfigError(f"{key}={value}: no such choice; there are: {', '.join(known)}")
    return value

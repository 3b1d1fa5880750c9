"""Check one value of one key: a check raises `ConfigError` with one line, or returns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from sweep.errors import ConfigError

Check = Callable[[str, Any], None]


MOST = 2**31 - 1
"""Largest count: what libraries take for a dimension."""
_MOST_RATE = 1e9


def at_least(least: int, most: int = MOST) -> Check:
    """Return a check that refuses a number below `least` or above `most`, and one that is not finite."""

    def check(key: str, value: float) -> None:
        if not least <= value < math.inf:
            raise ConfigError(f"{key}={value}: must be {least} or more")
        if value > most:
            raise ConfigError(f"{key}={value}: must be at most {most}")

    return check


def above_zero(key: str, value: float) -> None:
    """Refuse a number that is not above 0 and finite."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{key}={value:g}: must be above 0")


def each_above_zero(key: str, values: list[float]) -> None:
    """Refuse a list with a number that is not above 0 and finite."""
    for value in values:
        above_zero(key, value)


def each_rate(key: str, values: list[float]) -> None:
    """Refuse a list with a number that is not above 0, or that asks for more than one arrival a nanosecond."""
    each_above_zero(key, values)
    for value in values:
        if value > _MOST_RATE:
            raise ConfigError(f"{key}={value:g}: must be at most {_MOST_RATE:g}, since clocks count in ns")


def between(least: float, most: float, rule: str) -> Check:
    """Return a check that refuses a number outside of `least` to `most`; `rule` ends its message."""

    def check(key: str, value: float) -> None:
        if not least <= value <= most:
            raise ConfigError(f"{key}={value}: {rule}")

    return check


def compute_capability(key: str, value: str) -> None:
    """Refuse what is not a compute capability, such as 8.9."""
    if not re.fullmatch(r"[1-9][0-9]?\.[0-9]", value):
        raise ConfigError(f"{key}={value}: give the compute capability of a GPU, as in {key}=8.9")


def joined_names(key: str, value: str) -> None:
    """Refuse what is not names joined by +, such as cublas+cudnn."""
    if not re.fullmatch(r"[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*", value):
        raise ConfigError(f"{key}={value}: give the library's names joined by +, as in {key}=one+two")


def one_of(*choices: str, rule: str | None = None) -> Check:
    """Return a check that refuses what is not one of `choices`; `rule` replaces the end of its message."""
    no_such_choice = f"no such choice; there are: {', '.join(choices)}"

    def check(key: str, value: str) -> None:
        if value not in choices:
            raise ConfigError(f"{key}={value}: {rule or no_such_choice}")

    return check

"""Check single values of settings, several at a time."""

from __future__ import annotations

from sweep.spec import checks


def at_least(least: int, most: int = checks.MOST, /, **values: float) -> None:
    """Refuse a value below `least` or above `most`."""
    for name, value in values.items():
        checks.at_least(least, most)(name, value)


def above_zero(**values: float) -> None:
    """Refuse a value that is not above 0 and finite."""
    for name, value in values.items():
        checks.above_zero(name, value)

"""Ctrl-C and SIGTERM as KeyboardInterrupt, remembered where some library swallows it.

An interrupt that arrives inside a C extension's import or a destructor can be lost: Python raises it there and
the library clears it. The flag stays, and the sweep asks for it before each variant.
"""

from __future__ import annotations

import signal
from typing import NoReturn

EXIT_CODE = 130
_arrived: list[int] = []


def install() -> None:
    """Take over SIGINT and SIGTERM; before anything heavy is imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def arrived() -> bool:
    """Whether an interrupt arrived at any time before."""
    return bool(_arrived)


def raise_if_arrived() -> None:
    """Raise KeyboardInterrupt if an interrupt arrived at any time before."""
    if arrived():
        raise KeyboardInterrupt


def _handle(number: int, _frame: object) -> NoReturn:
    _arrived.append(number)
    raise KeyboardInterrupt

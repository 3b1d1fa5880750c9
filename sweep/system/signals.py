"""Handle Ctrl-C and SIGTERM: stop now, or first finish the variant that is measured.

While a sweep measures (``patient``), the first SIGINT asks for an end after the variant that is measured; a second one,
SIGTERM, and either at any other time raise KeyboardInterrupt in the main thread. One that arrives inside a C
extension's import or a destructor can be lost: Python raises it there and the library clears it. So it is remembered
too, and whoever waits for long asks for it (``raise_if_now``), in any thread.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_CODE = 130
_arrived: list[int] = []
_now: list[int] = []
_patient: list[int] = []  # the pipe that passes the first SIGINT on, while a sweep measures


def install() -> None:
    """Take over SIGINT and SIGTERM; before anything heavy is imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def arrived() -> bool:
    """Return whether an interrupt arrived at any time before: nothing new is begun."""
    return bool(_arrived)


def raise_if_now() -> None:
    """Raise KeyboardInterrupt if an interrupt arrived that does not wait for the variant that is measured."""
    if _now:
        raise KeyboardInterrupt


@contextmanager
def patient(notify: Callable[[], None]) -> Iterator[None]:
    """Raise nothing for the first SIGINT within; `notify` is called for it, in a thread of its own.

    Raises:
        KeyboardInterrupt: at the end, where any interrupt arrived.
    """
    reader, writer = os.pipe()
    listener = threading.Thread(target=_listen, args=(reader, notify), name="interrupts", daemon=True)
    listener.start()
    _patient.append(writer)
    try:
        yield
    finally:
        _patient.clear()
        os.close(writer)
        listener.join()
        os.close(reader)
    if arrived():
        raise KeyboardInterrupt


def _listen(reader: int, notify: Callable[[], None]) -> None:
    """Call `notify` for each byte in the pipe.

    A signal handler must not print: what it broke into may hold the terminal's lock. A byte in a pipe is safe.
    """
    while os.read(reader, 1):
        notify()


def _handle(number: int, _frame: object) -> None:
    first = number == signal.SIGINT and signal.SIGINT not in _arrived
    _arrived.append(number)
    if first and _patient:
        os.write(_patient[0], b".")
        return
    _now.append(number)
    raise KeyboardInterrupt

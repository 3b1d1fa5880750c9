"""Handle Ctrl-C and SIGTERM: stop at once, or first finish the variant in progress.

While a sweep measures (``patient``), the first SIGINT requests an end after the variant in progress; a second SIGINT,
SIGTERM, and either of them at any other time raise KeyboardInterrupt in the main thread. An exception that is raised
inside a C extension's import or a destructor can be lost, because the library clears it. Therefore the signal is stored
too, and long waits check for it (``raise_if_now``), in any thread.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_CODE = 130
_arrived: list[int] = []
_immediate: list[int] = []
_patient: list[int] = []  # write end of the pipe for the first SIGINT, while a sweep measures


def install() -> None:
    """Install the handlers of SIGINT and SIGTERM; to be called before heavy imports."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)
    sys.unraisablehook = _report_lost


def arrived() -> bool:
    """Return whether any interrupt has arrived, after which nothing new is started."""
    return bool(_arrived)


def raise_if_now() -> None:
    """Raise KeyboardInterrupt if an interrupt has arrived that does not wait for the variant in progress."""
    if _immediate:
        raise KeyboardInterrupt


@contextmanager
def patient(notify: Callable[[], None]) -> Iterator[None]:
    """Defer the first SIGINT within the context to its end.

    Args:
        notify: called at the first SIGINT, in a thread of its own.

    Raises:
        KeyboardInterrupt: at the end of the context, if any interrupt arrived.
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


def _report_lost(lost: sys.UnraisableHookArgs) -> None:
    """Report an exception that nobody can catch, unless an interrupt raised it, which is stored: see above."""
    if lost.exc_type is not KeyboardInterrupt or not _arrived:
        sys.__unraisablehook__(lost)


def _listen(reader: int, notify: Callable[[], None]) -> None:
    """Call `notify` for each byte in the pipe.

    A signal handler must not print, since the interrupted code may hold the terminal's lock. A byte in a pipe is safe.
    """
    while os.read(reader, 1):
        notify()


def _handle(number: int, _frame: object) -> None:
    first = number == signal.SIGINT and signal.SIGINT not in _arrived
    _arrived.append(number)
    if first and _patient:
        os.write(_patient[0], b".")
        return
    _immediate.append(number)
    raise KeyboardInterrupt

"""Take readings at a fixed rate in a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class ReadingThread:
    """Call a function at a fixed rate from enter to exit, and once more at the end, so that readings enclose a window.

    Args:
        name: name of the thread.
        read: takes one reading and returns whether to go on.
        interval_s: time between readings, s.
        least_pause: pause after a reading, in times of its own duration, at least; it lowers the rate of dear readings.
    """

    def __init__(self, name: str, read: Callable[[], bool], interval_s: float, least_pause: float = 0.0) -> None:
        self._read = read
        self._interval_s = interval_s
        self._least_pause = least_pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        due = start = time.perf_counter()
        while self._read():
            end = time.perf_counter()
            due = max(due + self._interval_s, end + self._least_pause * (end - start))
            if self._stop.wait(due - end):
                self._read()
                return
            start = time.perf_counter()

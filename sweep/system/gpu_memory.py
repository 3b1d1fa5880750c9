"""The memory of a GPU, seen free again after a worker was killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sweep.system import devices, signals

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 10.0
_SLACK_BYTES = 512 << 20  # that an MPS server or a desktop may have taken meanwhile
_LOOK_S = 0.1
_GIB = 1 << 30


class Memory:
    """Compares what is in use with what was before any worker of ours ran.

    Args:
        uuid: of the GPU; None where there is none to ask.
        say: called with one line where memory stays taken.
        used: gives the bytes in use on a GPU, None where that cannot be told.
    """

    def __init__(
        self,
        uuid: str | None,
        say: Callable[[str], None],
        used: Callable[[str | None], int | None] = devices.memory_used_bytes,
    ) -> None:
        self._uuid = uuid
        self._say = say
        self._used = used
        self._before: int | None = None

    def mark(self) -> None:
        """No worker of ours runs: remember what is in use."""
        self._before = self._used(self._uuid)

    def wait(self) -> None:
        """Return once memory is as free as it was at the mark; says so if it is not after ``WAIT_S``."""
        if self._before is None:
            return
        due = time.monotonic() + WAIT_S
        while (used := self._used(self._uuid)) is not None and used > self._before + _SLACK_BYTES:
            signals.raise_if_now()
            if time.monotonic() >= due:
                self._say(
                    f"GPU memory is not free {WAIT_S:g} s after a worker was ended: {used / _GIB:.1f} GiB in use, "
                    f"{self._before / _GIB:.1f} before it; the next variant starts all the same"
                )
                return
            time.sleep(_LOOK_S)

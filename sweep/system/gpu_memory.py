"""Wait until the memory of a GPU is free again after a worker was killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sweep.system import devices, signals

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 10.0
_SLACK_BYTES = 512 << 20  # allowance for an MPS server or a desktop
_POLL_S = 0.1
_GIB = 1 << 30


class Memory:
    """Compare the GPU memory in use with its use before any of our workers ran.

    Args:
        uuid: of the GPU; None where there is none to query.
        report: called with one line if memory stays in use.
        used: returns the bytes in use on a GPU, None if unknown.
    """

    def __init__(
        self,
        uuid: str | None,
        report: Callable[[str], None],
        used: Callable[[str | None], int | None] = devices.memory_used_bytes,
    ) -> None:
        self._uuid = uuid
        self._report = report
        self._used = used
        self._before: int | None = None

    def mark(self) -> None:
        """Store the memory in use while none of our workers runs."""
        self._before = self._used(self._uuid)

    def wait(self) -> None:
        """Return once memory use is back at the mark; report it if it is not after ``WAIT_S``."""
        if self._before is None:
            return
        due = time.monotonic() + WAIT_S
        while (used := self._used(self._uuid)) is not None and used > self._before + _SLACK_BYTES:
            signals.raise_if_now()
            if time.monotonic() >= due:
                self._report(
                    f"GPU memory is not free {WAIT_S:g} s after a worker was ended: {used / _GIB:.1f} GiB in use, "
                    f"{self._before / _GIB:.1f} before it; the next variant starts nevertheless"
                )
                return
            time.sleep(_POLL_S)

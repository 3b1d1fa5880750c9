"""Define the interface of a server of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sweep.backends.base import Stream

BUSY, OVER = 0, -1  # answers of ``advance`` that are no times


class Server(Protocol):
    """Drives one stream.

    Attributes:
        stream: the stream.
    """

    stream: Stream

    def step(self) -> bool:
        """Serve one request; False when there is nothing left to do."""
        ...

    def advance(self) -> int:
        """Do what can be done without waiting, on a stream that is ``SupportsPolling``.

        Returns:
            ``BUSY`` to be called again at once, ``OVER`` when there is nothing left to do, else the time in ns before
            which there is nothing to do.
        """
        ...

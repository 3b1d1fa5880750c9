"""Define the interface of a server of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sweep.backends import Stream

CALL_AGAIN, FINISHED = 0, -1  # answers of ``advance`` that are no times


class Server(Protocol):
    """Drive one stream.

    Attributes:
        stream: the stream.
    """

    stream: Stream

    def step(self) -> bool:
        """Serve one request, or one batch of them.

        Returns:
            False when there is nothing left to do.
        """
        ...

    def advance(self) -> int:
        """Do what can be done without waiting, on a stream that is ``SupportsPolling``.

        Returns:
            ``CALL_AGAIN`` to be called again at once, ``FINISHED`` when there is nothing left to do, else the time
            before which there is nothing to do, ns.
        """
        ...

"""Let client processes exchange values through the pipe to their parent."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from sweep.loadgen import SINGLE_CLIENT
from sweep.runner import messages
from sweep.storage import samples_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sweep.loadgen import Communicator
    from sweep.runner.worker.events import Events
    from sweep.storage import PointSamples


class PipeCommunicator:
    """Exchange values with the other clients through the parent, which knows all of them.

    Args:
        rank: number of this client, from 0.
        size: number of clients.
        samples: file of the request; each client hands its samples over in one beside it.
        events: to the parent.
    """

    def __init__(self, rank: int, size: int, samples: Path, events: Events) -> None:
        self.rank = rank
        self.size = size
        self._events = events
        self._round = 0
        self._files = samples_file.client_paths(samples, size)

    def all_gather(self, value: Any) -> list[Any]:
        """Return every client's ``value``, by rank."""
        self._events.send(messages.Exchange(round=self._round, value=value))
        self._round += 1
        line = sys.stdin.readline()
        if not line:
            sys.exit("the parent is gone")
        return messages.decode(line, messages.Values).values

    def all_gather_points(self, own_samples: PointSamples) -> list[PointSamples]:
        """Return every client's samples of the point, by rank."""
        samples_file.save_uncompressed(self._files[self.rank], [own_samples])
        self.all_gather(None)
        return [
            own_samples if rank == self.rank else samples_file.load(path)[0] for rank, path in enumerate(self._files)
        ]


@contextlib.contextmanager
def connect_clients(request: messages.Request, events: Events) -> Iterator[Communicator]:
    """Connect the clients of `request`; they end it together."""
    clients = request.variant.session.processes
    if clients == 1 or request.only_build or request.layers is not None:
        yield SINGLE_CLIENT
        return
    communicator = PipeCommunicator(request.client, clients, request.samples, events)
    yield communicator
    communicator.all_gather(None)

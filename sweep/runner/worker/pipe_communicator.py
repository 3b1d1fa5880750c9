"""Let client processes exchange values through the pipe to their parent."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from sweep.loadgen.communicator import ALONE
from sweep.storage.samples_file import hand_over, handed_over, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sweep.loadgen.communicator import Meeting
    from sweep.runner.worker.job import Job
    from sweep.storage.samples import PointSamples


class Piped:
    """Meets the other clients through the parent, which knows all of them.

    Args:
        client: number of this one, from 0.
        clients: how many there are.
        samples: file of the job; each client hands its samples over in one beside it.
        send: sends an event to the parent.
    """

    def __init__(self, client: int, clients: int, samples: Path, send: Callable[..., None]) -> None:
        self.client = client
        self.clients = clients
        self._send = send
        self._round = 0
        self._files = handed_over(samples, clients)

    def all(self, value: Any) -> list[Any]:
        """Every client's ``value``, by client."""
        self._send("meet", round=self._round, value=value)
        self._round += 1
        line = sys.stdin.readline()
        if not line:
            sys.exit("the parent is gone")
        values: list[Any] = json.loads(line)["met"]
        return values

    def points(self, own: PointSamples) -> list[PointSamples]:
        """Every client's samples of the point, by client."""
        hand_over(self._files[self.client], [own])
        self.all(None)
        return [own if number == self.client else load(path)[0] for number, path in enumerate(self._files)]


@contextlib.contextmanager
def communicator(job: Job, client: int, send: Callable[..., None]) -> Iterator[Meeting]:
    """Where the job's clients meet; they end it together."""
    clients = job.variant.session.clients
    if clients == 1 or job.only_build:
        yield ALONE
        return
    meeting = Piped(client, clients, job.samples, send)
    yield meeting
    meeting.all(None)

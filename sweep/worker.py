"""The child process that builds, loads and measures: ``python -m sweep.worker``.

Jobs come in as JSON lines on stdin, events go out as JSON lines on what was stdout; whatever a library prints
goes to stderr, which the parent keeps. One worker lives for a group of variants that share an engine, and dies
with its parent. Of several clients each is a worker; in the middle of a job they meet: each sends a ``meet`` event and
reads one line with the values of all.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import plain, private
from sweep.accuracy import Gates
from sweep.axes import Variant
from sweep.errors import SweepError
from sweep.load.meeting import ALONE
from sweep.load.search import Ask
from sweep.measure import Job, measure
from sweep.samples import hand_over, handed_over, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from sweep.load.meeting import Meeting
    from sweep.samples import PointSamples

_PR_SET_PDEATHSIG = 1
_ANYWHERE = ("sweep", "plan")  # stages of errors that any stage may raise


def main() -> None:
    """Serve jobs until stdin ends."""
    _die_with_parent()
    private.restrict()
    with os.fdopen(os.dup(1), "w", buffering=1) as events:
        os.dup2(2, 1)
        for line in iter(sys.stdin.readline, ""):
            _serve(json.loads(line), events)


def _serve(message: dict[str, Any], events: TextIO) -> None:
    def send(event: str, **values: object) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")

    stage = "start"

    def report(name: str, detail: str = "", done: float = 0.0) -> None:
        nonlocal stage
        stage = name
        send("stage", stage=name, detail=detail, done=done)

    try:
        job = Job(
            variant=plain.from_plain(Variant, message["variant"]),
            repeat=message["repeat"],
            rates_ips=message["rates_ips"],
            cache=Path(message["cache"]),
            samples=Path(message["samples"]),
            cache_limit_bytes=message.get("cache_limit_bytes"),
            gates=Gates(**message.get("gates", {})),
            search=Ask(**message["search"]) if message.get("search") else None,
            known=Path(message["known"]) if message.get("known") else None,
            accuracy=message.get("accuracy", True),
            only_build=message.get("only_build", False),
        )
        with _meeting(job, message.get("client", 0), send) as meeting:
            tell = (lambda text: send("note", text=text), lambda key: send("engine", key=key))
            result = measure(job, report, *tell, meeting)
    except Exception as error:  # noqa: BLE001 - whatever went wrong becomes this variant's record
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        own = error.stage if isinstance(error, SweepError) and error.stage not in _ANYWHERE else stage
        send("error", stage=own, kind=type(error).__name__, message=_said(error))
    else:
        send("result", **result)


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
def _meeting(job: Job, client: int, send: Callable[..., None]) -> Iterator[Meeting]:
    """Where the job's clients meet; they end it together."""
    clients = job.variant.session.clients
    if clients == 1 or job.only_build:
        yield ALONE
        return
    meeting = Piped(client, clients, job.samples, send)
    yield meeting
    meeting.all(None)


def _said(error: Exception) -> str:
    """The error in one line; Python's own MemoryError says nothing."""
    if isinstance(error, MemoryError):
        return f"memory of the host ran out, or the limit of this process is reached {error}".rstrip()
    return " ".join(str(error).split()) or type(error).__name__


def _die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies, and go at once if it already has."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        sys.exit("the parent process is gone")


if __name__ == "__main__":
    main()

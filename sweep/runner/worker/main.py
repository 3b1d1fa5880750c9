"""The child process that builds, loads and measures: ``python -m sweep.runner.worker.main``.

Jobs come in as JSON lines on stdin, events go out as JSON lines on what was stdout; whatever a library prints
goes to stderr, which the parent keeps. One worker lives for a group of variants that share an engine, and dies
with its parent. Of several clients each is a worker; in the middle of a job they meet: each sends a ``meet`` event and
reads one line with the values of all.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import SweepError
from sweep.loadgen.capacity_search import Ask
from sweep.runner.worker.job import Job
from sweep.runner.worker.measure import measure
from sweep.runner.worker.pipe_communicator import communicator
from sweep.spec import Variant
from sweep.spec.gates import Gates
from sweep.system import file_trust, serialization

if TYPE_CHECKING:
    from typing import TextIO


_PR_SET_PDEATHSIG = 1
_ANYWHERE = ("sweep", "plan")  # stages of errors that any stage may raise


def main() -> None:
    """Serve jobs until stdin ends."""
    _die_with_parent()
    file_trust.restrict()
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
            variant=serialization.from_plain(Variant, message["variant"]),
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
        with communicator(job, message.get("client", 0), send) as meeting:
            tell = (lambda text: send("note", text=text), lambda key: send("engine", key=key))
            result = measure(job, report, *tell, meeting)
    except Exception as error:  # noqa: BLE001 - whatever went wrong becomes this variant's record
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        own = error.stage if isinstance(error, SweepError) and error.stage not in _ANYWHERE else stage
        send("error", stage=own, kind=type(error).__name__, message=_said(error))
    else:
        send("result", **result)


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

"""Build, load and measure in a child process: ``python -m sweep.runner.worker.main``.

Requests come in on stdin, events go out on what was stdout (``sweep.runner.messages``); whatever a library prints goes
to stderr, which the parent keeps. One worker lives for a group of variants that share an engine, and dies with its
parent.
"""

from __future__ import annotations

import sys

from sweep.system import child_process

if __name__ == "__main__":
    child_process.die_with_parent()  # before the imports below, which take a second or, on a busy machine, several

from sweep.errors import SweepError
from sweep.runner import messages
from sweep.runner.worker.events import Events
from sweep.runner.worker.measure import measure
from sweep.runner.worker.pipe_communicator import connect_clients
from sweep.system import file_trust

_ANY_STAGE = ("sweep", "plan")  # stages of errors that any stage may raise


def main() -> None:
    """Serve requests until stdin ends."""
    file_trust.restrict()
    with child_process.answer_stream() as stream:
        for line in iter(sys.stdin.readline, ""):
            _serve(line, Events(stream))


def _serve(line: str, events: Events) -> None:
    """Do what one request asks, and send its result or why it failed."""
    try:
        request = messages.decode(line, messages.Request)
        with connect_clients(request, events) as communicator:
            result = measure(request, events, communicator)
    except Exception as error:  # noqa: BLE001 - whatever went wrong becomes this variant's record
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        events.send(_failure(error, events.last_stage))
    else:
        events.send(result)


def _failure(error: Exception, last_stage: str) -> messages.Failure:
    has_stage = isinstance(error, SweepError) and error.stage not in _ANY_STAGE
    stage = error.stage if isinstance(error, SweepError) and has_stage else last_stage
    return messages.Failure(stage=stage, kind=type(error).__name__, message=_one_line(error))


def _one_line(error: Exception) -> str:
    """Return the message of `error` in one line; Python's own MemoryError has none."""
    if isinstance(error, MemoryError):
        return f"memory of the host ran out, or the limit of this process is reached {error}".rstrip()
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()

"""The parent's end of a worker: start it, give it a job, watch it, survive it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sweep.spec import JsonDict

_TAIL_LINES = 12
_GRACE_S = 2.0
_LOOK_S = 0.5  # how often a silent child is looked after
_LIMITED = {"build": "build", "load": "load", "measure": "point"}  # stages with a limit of their own
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "outofmemory")  # as onnxruntime, CUDA and TensorRT put it
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: a record status.
        result: what the worker found out; None unless it finished.
        error: the record's ``error``; None when it finished.
    """

    status: str
    result: JsonDict | None = None
    error: JsonDict | None = None


class Worker:
    """One child process, in a session of its own so that Ctrl-C reaches the parent alone.

    Args:
        stderr: file that keeps what the child and its libraries print.
        environment: variables added to the parent's (an MPS share binds when the context is made).
        cores: logical CPUs that the child and its threads run on; None leaves those of the parent.
    """

    def __init__(
        self, stderr: Path, environment: dict[str, str] | None = None, cores: Iterable[int] | None = None
    ) -> None:
        stderr.parent.mkdir(parents=True, exist_ok=True)
        self._stderr = stderr
        self._stage = "start"
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        with stderr.open("ab") as log, _on(cores):
            self._from = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweep.runner.worker.main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
                start_new_session=True,
            )
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for; tells mypy
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def run(self, job: JsonDict, on_event: Callable[[JsonDict], None], timeout_s: float) -> Outcome:
        """Give the child one job and wait for its end.

        Args:
            job: the message that ``sweep.runner.worker.main`` takes. Its ``limits_s`` bounds single stages, in seconds:
                {build, load, point}; one that is None or not there has ``timeout_s``.
            on_event: called with each ``stage`` and ``note`` event.
            timeout_s: longest time from one ``stage`` event to the next; past it the child and its children are killed.

        Raises:
            KeyboardInterrupt: an interrupt arrived that says to stop now, in whatever thread this is.
        """
        self._stage = "start"
        limits = {name: limit for name, limit in (job.get("limits_s") or {}).items() if limit is not None}
        began = time.monotonic()
        try:
            assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for; tells mypy
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return self._died()
        while True:
            key = _LIMITED.get(self._stage, "")
            limit_s = limits.get(key, timeout_s)
            event = self._next_event(began + limit_s)
            if event is None:
                return self._died()
            if event["event"] == "timeout":
                self.kill()
                name = f"timeout.{key}_s" if key in limits else "timeout_s"
                message = f"nothing was heard from the worker for {limit_s:g} s ({name})"
                return Outcome(status="timeout", error=self._error("Timeout", message))
            if event["event"] == "result":
                return Outcome(status="ok", result=event)
            if event["event"] == "error":
                return self._raised(event)
            if event["event"] == "stage":
                self._stage, began = event["stage"], time.monotonic()
            if event["event"] != "stray":
                handed = time.monotonic()
                on_event(event)
                began += time.monotonic() - handed  # a client that waits for the others is not silent

    def answer(self, message: JsonDict) -> None:
        """Tell the child what it asked for by an event; one that is gone hears nothing."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for; tells mypy
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def strike(self) -> None:
        """SIGKILL to the child and its children, from any thread: whoever is in ``run`` sees it die."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)

    def _next_event(self, deadline: float) -> JsonDict | None:
        """The next event, ``{"event": "timeout"}``, or None when the child is gone."""
        while b"\n" not in self._buffer:
            signals.raise_if_now()
            ready = self._selector.select(min(_LOOK_S, max(deadline - time.monotonic(), 0)))
            if not ready and self._process.poll() is not None:
                return None  # something that it started may still hold the pipe
            if not ready and time.monotonic() >= deadline:
                return {"event": "timeout"}
            if not ready:
                continue
            chunk = os.read(ready[0][0].fd, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            event: JsonDict = json.loads(line)
            event["event"]
        except (ValueError, TypeError, KeyError):  # printed before the worker took its stdout over, by a site's set-up
            with self._stderr.open("ab") as log:
                log.write(line + b"\n")
            return {"event": "stray"}
        else:
            return event

    def _raised(self, event: JsonDict) -> Outcome:
        memory = event["kind"] == "MemoryError" or any(words in event["message"].lower() for words in _OUT_OF_MEMORY)
        status = {"UnsupportedError": "unsupported"}.get(event["kind"], "oom" if memory else "failed")
        error = {**self._error(event["kind"], event["message"]), "stage": event["stage"]}
        return Outcome(status=status, error=error)

    def _died(self) -> Outcome:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (the kernel does that when memory runs out: see dmesg)" if name == "SIGKILL" else ""
            return Outcome(status="crashed", error=self._error(name, f"the worker was killed by {name}{hint}"))
        return Outcome(status="crashed", error=self._error("Exit", f"the worker exited with code {code}"))

    def _error(self, kind: str, message: str) -> JsonDict:
        return {"stage": self._stage, "kind": kind, "message": message, "stderr_tail": self._tail()}

    def _tail(self) -> list[str]:
        with self._stderr.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]

    def close(self) -> None:
        """Let the child end by itself, and see to it that it does."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._release()

    def kill(self) -> None:
        """End the child and every process it started: SIGTERM, and SIGKILL for what is left."""
        strays = _strays(self._process.pid)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        for stray in strays:
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.kill()
        self._process.wait()
        self._release()

    def _signal(self, number: int) -> None:
        """To the child's whole process group, which may outlive the child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _release(self) -> None:
        self._selector.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _strays(pid: int) -> list[psutil.Process]:
    """Descendants that left the child's process group; psutil tells a pid that was taken anew from the one it saw."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) != pid:
                    found.append(process)
    return found


@contextlib.contextmanager
def _on(cores: Iterable[int] | None) -> Iterator[None]:
    """This thread on those cores meanwhile: a process that it starts stays on them, from its first thread on."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

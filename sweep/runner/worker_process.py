"""Run requests in a worker process: start it, send a request, follow its events, survive its end."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import MessageError
from sweep.runner import messages
from sweep.spec import Status
from sweep.system import ChildProcess, Stopwatch, module_command, module_environment, regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from sweep.runner.messages import AnyEvent, Failure, Request, Result, Values
    from sweep.storage import ErrorInfo

    OnEvent = Callable[[AnyEvent], None]

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_TAIL_LINES = 12
_LIMITED = {"build": "build", "load": "load", "measure": "point"}  # stages with a limit of their own
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "outofmemory")  # as onnxruntime, CUDA and TensorRT put it


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Describe how a request ended.

    Attributes:
        status: a record status.
        result: what the worker found; None unless it finished.
        error: the record's ``error``; None when it finished.
    """

    status: Status
    result: Result | None = None
    error: ErrorInfo | None = None


class Worker:
    """Run requests in one child process, in a session of its own so that Ctrl-C reaches the parent alone.

    Args:
        stderr: file that keeps what the child and its libraries print.
        environment: variables added to the parent's (an MPS share binds when the context is made).
        cores: logical CPUs that the child and its threads run on; None leaves those of the parent.
    """

    def __init__(
        self, stderr: Path, environment: Mapping[str, str] | None = None, cores: Iterable[int] | None = None
    ) -> None:
        stderr.parent.mkdir(parents=True, exist_ok=True)
        if stderr.is_symlink():  # in a folder from elsewhere: the log takes its place
            stderr.unlink()
        self._stage = "start"
        # NumPy's BLAS starts a thread per core when it is imported, and these spin before they sleep: on the cores that
        # the inference is timed on.
        blas = {_BLAS_THREADS: os.environ.get(_BLAS_THREADS, "1")}
        self._child = ChildProcess(
            module_command("sweep.runner.worker.main"),
            "the worker",
            environment=module_environment(blas | dict(environment or {})),
            stderr=regular_files.open_output(stderr, append=True),
            own_session=True,
            cores=cores,
        )
        # The figures of the first variant need it. Here it costs nothing: the child imports its libraries meanwhile.
        importlib.import_module("scipy.special")

    @property
    def pid(self) -> int:
        """Return the process id of the child."""
        return self._child.pid

    def run(self, request: Request, on_event: OnEvent, timeout_s: float) -> Outcome:
        """Send the child one request and wait for its end.

        Args:
            request: what to do. Its ``limits_s`` bounds single stages; one that is None or not there has `timeout_s`.
            on_event: called with each event but the last.
            timeout_s: longest time from one ``Stage`` to the next; past it the child and its children are killed.

        Raises:
            KeyboardInterrupt: an interrupt arrived that says to stop now, in whatever thread this is.
        """
        self._stage = "start"
        limits = {name: limit for name, limit in request.limits_s.items() if limit is not None}
        try:
            self._child.send(messages.encode(request))
        except OSError:
            return self._exit_outcome()
        try:
            return self._follow(on_event, limits, timeout_s)
        except MessageError as error:
            self.kill()
            return Outcome(status=Status.FAILED, error=self._error(type(error).__name__, str(error)))

    def _follow(self, on_event: OnEvent, limits: Mapping[str, float], timeout_s: float) -> Outcome:
        """Pass events on until the request has ended."""
        stage, paused_s = Stopwatch(), 0.0
        while True:
            left_s = limits.get(self._limit_name, timeout_s) - (stage.seconds() - paused_s)
            try:
                line = self._child.read_line(time.monotonic() + left_s)
            except TimeoutError:
                return self._timeout_outcome(limits, timeout_s)
            if line is None:
                return self._exit_outcome()
            event = messages.decode_event(line)
            match event:
                case None:
                    self._child.log(line)
                    continue
                case messages.Result():
                    return Outcome(status=Status.OK, result=event)
                case messages.Failure():
                    return self._failure_outcome(event)
                case messages.Stage():
                    self._stage, stage, paused_s = event.stage, Stopwatch(), 0.0
            pause = Stopwatch()
            on_event(event)
            paused_s += pause.seconds()  # a client that waits for the others is not silent

    @property
    def _limit_name(self) -> str:
        return _LIMITED.get(self._stage, "")

    def answer(self, values: Values) -> None:
        """Answer an ``Exchange``; a child that is gone hears nothing."""
        with contextlib.suppress(OSError):
            self._child.send(messages.encode(values))

    def send_sigkill(self) -> None:
        """Send SIGKILL to the child and its children, from any thread; a thread in ``run`` sees the child end."""
        self._child.send_sigkill()

    def close(self) -> None:
        """Let the child end by itself, and see to it that it does."""
        self._child.close()

    def kill(self) -> None:
        """End the child and every process it started."""
        self._child.kill()

    def _timeout_outcome(self, limits: Mapping[str, float], timeout_s: float) -> Outcome:
        self.kill()
        key = self._limit_name
        name = f"timeout.{key}_s" if key in limits else "timeout_s"
        message = f"nothing was heard from the worker for {limits.get(key, timeout_s):g} s ({name})"
        return Outcome(status=Status.TIMEOUT, error=self._error("Timeout", message))

    def _failure_outcome(self, failure: Failure) -> Outcome:
        memory = failure.kind == "MemoryError" or any(words in failure.message.lower() for words in _OUT_OF_MEMORY)
        status = {"UnsupportedError": Status.UNSUPPORTED}.get(failure.kind, Status.OOM if memory else Status.FAILED)
        return Outcome(status=status, error={**self._error(failure.kind, failure.message), "stage": failure.stage})

    def _exit_outcome(self) -> Outcome:
        code = self._child.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (the kernel does that when memory runs out: see dmesg)" if name == "SIGKILL" else ""
            return Outcome(status=Status.CRASHED, error=self._error(name, f"the worker was killed by {name}{hint}"))
        return Outcome(status=Status.CRASHED, error=self._error("Exit", f"the worker exited with code {code}"))

    def _error(self, kind: str, message: str) -> ErrorInfo:
        tail = self._child.output_tail().splitlines()[-_TAIL_LINES:]
        return {"stage": self._stage, "kind": kind, "message": message, "stderr_tail": tail}

"""Start a child process, exchange lines with it, and end it together with every process that it started.

The parent uses ``ChildProcess``. The child uses ``serve`` and the functions after it: they need only the standard
library, so that a child may run in an interpreter that has none of the dependencies.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sweep.errors import shorten
from sweep.system import signals
from sweep.system.clock_jumps import ClockWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import TextIO

_PR_SET_PDEATHSIG = 1
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # of Linux
# `preexec_fn` of every process that is to die with this one: it asks Linux for SIGKILL before the program starts, so
# that one that is stopped, or busy with its imports, cannot outlive its parent. Only C code runs between fork and exec:
# no lock of another thread is needed there, and no signal handler of Python runs.
DIE_WITH_PARENT = None if _PRCTL is None else functools.partial(_PRCTL, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
_PARENT = "SWEEP_PARENT_PID"  # variable of a child
_GRACE_S = 2.0  # time for a child to end by itself, and again after SIGTERM
_TAIL_BYTES = 1 << 20
_POLL_S = 0.5  # interval of the checks whether a silent child still lives
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class RefusedError(Exception):
    """Explain in one line why a child cannot fulfil a request; the requester raises an error of its own."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` with `arguments` in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def module_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of this process with `variables` added; ``sweep`` can be imported from anywhere in it."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(variables or {})}


class ChildProcess:
    """Run a child process that reads lines and answers with lines.

    Args:
        command: command that starts the child.
        name: name of the child in messages, such as ``the exporting process``.
        environment: all of its variables; None for those of this process.
        stderr: file for the output of the child and its libraries, closed with the child; None for a temporary file.
        own_session: start the child in a session of its own, so that Ctrl-C reaches this process alone.
        cores: logical CPUs that the child and its threads run on; None for those of this process.
        outlives_parent: the child ends by itself once its stdin is closed, and is not killed with this process.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(  # noqa: PLR0913 - each names one property of the child
        self,
        command: Sequence[str],
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
        own_session: bool = False,
        cores: Iterable[int] | None = None,
        outlives_parent: bool = False,
    ) -> None:
        self._name = name
        self._own_session = own_session
        self._stderr = stderr or tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed with the child
        self._output_tail = ""
        self._stderr_start = os.fstat(self._stderr.fileno()).st_size
        try:
            with _pinned_to(cores):
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env={**(os.environ if environment is None else environment), _PARENT: str(os.getpid())},
                    start_new_session=own_session,
                    preexec_fn=None if outlives_parent else DIE_WITH_PARENT,  # noqa: PLW1509 - see there
                )
        except BaseException:
            self._stderr.close()
            raise
        assert self._process.stdin is not None  # noqa: S101 - PIPE was requested; tells mypy
        assert self._process.stdout is not None  # noqa: S101 - likewise
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Return the process id of the child."""
        return self._process.pid

    def send(self, line: bytes) -> None:
        """Write one line, including its line end, to the child's stdin.

        Raises:
            OSError: the child has ended.
        """
        if self._stdin.closed:
            raise BrokenPipeError
        self._stdin.write(line)
        self._stdin.flush()

    def read_line(self, deadline: float = math.inf) -> bytes | None:
        """Return the next line of the child, without its line end; None if the child has ended.

        Args:
            deadline: latest time to return, s, on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: the deadline has passed.
            KeyboardInterrupt: an interrupt arrived that stops at once; raised in any thread.
        """
        watch = ClockWatch()
        while b"\n" not in self._buffer:
            signals.raise_if_now()
            ready = self._selector.select(min(_POLL_S, max(deadline + watch.jump_s() - time.monotonic(), 0)))
            if not ready:
                if self._process.poll() is not None:
                    return None  # a process that the child started may keep the pipe open
                if time.monotonic() >= deadline + watch.jump_s():  # a clock that was set is no silence
                    raise TimeoutError
                continue
            chunk = os.read(self._stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send `message` to a child that calls ``serve`` and return its answer.

        Raises:
            RefusedError: the child refused, with its reason, or ended, with the last line that it printed.
        """
        try:
            self.send(json.dumps(message).encode() + b"\n")
            line = self.read_line()
        except BrokenPipeError:
            line = None
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def wait(self) -> int:
        """Wait until the child ends and return its exit status; negative for a signal."""
        return self._process.wait()

    def output_tail(self) -> str:
        """Return the end of the output of the child and its libraries; empty if its stderr cannot be read back."""
        if not self._stderr.closed and self._stderr.readable():
            descriptor = self._stderr.fileno()
            end = os.fstat(descriptor).st_size
            start = max(self._stderr_start, end - _TAIL_BYTES)
            self._output_tail = os.pread(descriptor, max(end - start, 0), start).decode(errors="replace")
        return self._output_tail

    def log(self, line: bytes) -> None:
        """Write one line to the file of the child's stderr."""
        os.write(self._stderr.fileno(), line + b"\n")

    def send_sigkill(self) -> None:
        """Send SIGKILL to the child and its group, from any thread; a thread that reads from the child sees it end."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the child's stdin and wait for it to end; kill it if it does not. A second call does nothing."""
        self._close_stdin()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._release()

    def kill(self) -> None:
        """End the child and every process that it started: SIGTERM first, then SIGKILL for those that remain."""
        import psutil  # here, because the child's half runs in interpreters without it

        strays = []
        with contextlib.suppress(psutil.NoSuchProcess):
            strays = [
                item for item in psutil.Process(self.pid).children(recursive=True) if self._is_unreached(item.pid)
            ]
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        for stray in strays:  # psutil does not signal a pid that was reused by another process
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.kill()
        self._process.wait()
        self._release()

    def _signal(self, number: int) -> None:
        """Signal the child, or its whole process group if it has one of its own; the group may outlive the child."""
        if not self._own_session:
            self._process.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _is_unreached(self, pid: int) -> bool:
        """Return whether no signal to the child or its group reaches the process `pid`."""
        try:
            return not self._own_session or os.getpgid(pid) != self.pid
        except ProcessLookupError:
            return False

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):  # a buffered rest cannot be written to a child that has ended
            self._stdin.close()

    def _release(self) -> None:
        self.output_tail()  # stored, because it may be requested after the file is closed
        self._close_stdin()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self.output_tail().strip().splitlines()
        return f"{self._name} ended with status {status}: {lines[-1] if lines else 'it printed nothing'}"


@contextlib.contextmanager
def _pinned_to(cores: Iterable[int] | None) -> Iterator[None]:
    """Pin this thread to `cores` within the context, so that a process started in it inherits them."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies, and exit at once if it already has, perhaps before it was asked.

    An orphan is adopted by process 1 or, below a service manager or a container's init, by a process of any number.
    """
    parent = os.getppid()
    if DIE_WITH_PARENT is not None:
        DIE_WITH_PARENT()
    own_parent = os.environ.get(_PARENT)
    adopted = parent == 1 if own_parent is None else own_parent != str(parent)
    if os.getppid() != parent or adopted:
        sys.exit("the parent process is gone")


@contextlib.contextmanager
def answer_stream() -> Iterator[TextIO]:
    """Yield the original stdout, for answers only; within, output of libraries to stdout goes to stderr."""
    with os.fdopen(os.dup(1), "w", buffering=1) as stream:
        os.dup2(2, 1)
        yield stream


def serve(answer: Callable[[Any], Mapping[str, Any]]) -> None:
    """Answer every JSON line on stdin with one on the original stdout, until stdin ends.

    An exception becomes an answer of one line as well. The process dies with its parent.

    Args:
        answer: maps a decoded line to the answer.
    """
    die_with_parent()
    with answer_stream() as stream:
        for line in sys.stdin:
            try:
                reply = dict(answer(json.loads(line)))
            except RefusedError as error:
                reply = {"error": str(error)}
            except Exception as error:  # noqa: BLE001 - errors of libraries and user code are answered in one line
                reply = {"error": one_line(error)}
            stream.write(json.dumps(reply) + "\n")


def required(name: str, doing: str, install: str) -> ModuleType:
    """Import a module that a request needs.

    Args:
        name: name of the module.
        doing: what needs it, the beginning of the message.
        install: how to install it, the end of the message.

    Raises:
        RefusedError: the module cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RefusedError(f"{doing} needs {name}, which cannot be imported ({error}); {install}") from error


@contextlib.contextmanager
def refusing(doing: str) -> Iterator[None]:
    """Turn any exception within the context into a RefusedError whose message begins with `doing`."""
    try:
        yield
    except Exception as error:
        raise RefusedError(f"{doing}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the type and the message of the root cause of `error`, on one line that keeps what names the cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {shorten(str(error)) or 'no message'}"

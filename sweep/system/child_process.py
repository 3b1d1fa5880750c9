"""Start a child process, talk to it in lines, and see to it that nothing of it stays.

The parent's half is ``ChildProcess``. The child's half is ``serve`` and what stands below it: it needs nothing but the
standard library, so that a child may run in an interpreter that has none of the dependencies.
"""

from __future__ import annotations

import contextlib
import ctypes
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

from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import TextIO

_PR_SET_PDEATHSIG = 1
_PARENT = "SWEEP_PARENT_PID"  # variable of a child
_LINE_CHARACTERS = 300
_GRACE_S = 2.0  # that a child has to end by itself, and again after SIGTERM
_PRINTED_BYTES = 1 << 20
_POLL_S = 0.5  # how often a silent child is looked after
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class RefusedError(Exception):
    """Tell why a child cannot do what was requested, in one line. Whoever requested it raises an error of its own."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def module_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of this process with `variables`, in which ``sweep`` can be imported from anywhere."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(variables or {})}


class ChildProcess:
    """Run a child process that reads lines and answers with lines.

    Args:
        command: starts it.
        name: what messages call it, such as ``the exporting process``.
        environment: all of its variables; None for those of this process.
        stderr: takes what the child and its libraries print, closed with the child; None for a file that is thrown
            away with it.
        own_session: put it into a session of its own, so that Ctrl-C reaches this process alone.
        cores: logical CPUs that the child and its threads run on; None leaves those of this process.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
        own_session: bool = False,
        cores: Iterable[int] | None = None,
    ) -> None:
        self._name = name
        self._own_session = own_session
        self._stderr = stderr or tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed with the child
        self._printed = ""
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
        """Write one line, its end included, to the child's stdin.

        Raises:
            OSError: the child is gone.
        """
        if self._stdin.closed:
            raise BrokenPipeError
        self._stdin.write(line)
        self._stdin.flush()

    def read_line(self, deadline: float = math.inf) -> bytes | None:
        """Return the next line of the child, without its end; None when the child is gone.

        Args:
            deadline: latest time to return, s, on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: the deadline is over.
            KeyboardInterrupt: an interrupt arrived that says to stop now, in whatever thread this is.
        """
        while b"\n" not in self._buffer:
            signals.raise_if_now()
            ready = self._selector.select(min(_POLL_S, max(deadline - time.monotonic(), 0)))
            if not ready:
                if self._process.poll() is not None:
                    return None  # a process that it started may still hold the pipe
                if time.monotonic() >= deadline:
                    raise TimeoutError
                continue
            chunk = os.read(self._stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of a child that calls ``serve`` to `message`.

        Raises:
            RefusedError: the child said why not, or ended; then its last words.
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
        """Wait for the end of the child, and return its exit status; negative for a signal."""
        return self._process.wait()

    def printed(self) -> str:
        """Return the last of what the child and its libraries printed; nothing where its stderr cannot be read back."""
        if not self._stderr.closed and self._stderr.readable():
            descriptor = self._stderr.fileno()
            end = os.fstat(descriptor).st_size
            start = max(self._stderr_start, end - _PRINTED_BYTES)
            self._printed = os.pread(descriptor, max(end - start, 0), start).decode(errors="replace")
        return self._printed

    def log(self, line: bytes) -> None:
        """Write one line to where the child's stderr goes."""
        os.write(self._stderr.fileno(), line + b"\n")

    def strike(self) -> None:
        """Send SIGKILL to the child and its group, from any thread: whoever reads from it sees it die."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let the child end by itself, and see to it that it does; nothing the second time."""
        self._close_stdin()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._release()

    def kill(self) -> None:
        """End the child and every process that it started: SIGTERM, and SIGKILL for what is left."""
        import psutil  # here: the child's half runs where there is none

        strays = []
        with contextlib.suppress(psutil.NoSuchProcess):
            strays = [item for item in psutil.Process(self.pid).children(recursive=True) if self._misses(item.pid)]
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        for stray in strays:  # psutil tells a pid that was taken again from the process that it saw
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.kill()
        self._process.wait()
        self._release()

    def _signal(self, number: int) -> None:
        """Signal the child's whole process group where it has one of its own; that may outlive the child."""
        if not self._own_session:
            self._process.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _misses(self, pid: int) -> bool:
        """Return whether no signal to the child or its group reaches the process `pid`."""
        try:
            return not self._own_session or os.getpgid(pid) != self.pid
        except ProcessLookupError:
            return False

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):  # what is left in its buffer cannot be written to a child that is gone
            self._stdin.close()

    def _release(self) -> None:
        self.printed()  # it may be requested later
        self._close_stdin()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self.printed().strip().splitlines()
        return f"{self._name} ended with status {status}: {lines[-1] if lines else 'it printed nothing'}"


@contextlib.contextmanager
def _pinned_to(cores: Iterable[int] | None) -> Iterator[None]:
    """Keep this thread on `cores` meanwhile: a process that it starts stays on them, from its first thread on."""
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
    """Ask Linux for SIGKILL when the parent dies, and exit at once if it already has."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    adopted = parent == 1 and os.environ.get(_PARENT) != "1"  # in a container the parent itself may be process 1
    if os.getppid() != parent or adopted:
        sys.exit("the parent process is gone")


@contextlib.contextmanager
def answer_stream() -> Iterator[TextIO]:
    """Give what was stdout, for answers alone: from here on whatever libraries print to stdout goes to stderr."""
    with os.fdopen(os.dup(1), "w", buffering=1) as stream:
        os.dup2(2, 1)
        yield stream


def serve(answer: Callable[[Any], Mapping[str, Any]]) -> None:
    """Answer every JSON line on stdin with one on what was stdout, until stdin ends.

    Exceptions are answers of one line as well. Dies with its parent.
    """
    die_with_parent()
    with answer_stream() as stream:
        for line in sys.stdin:
            try:
                reply = dict(answer(json.loads(line)))
            except RefusedError as error:
                reply = {"error": str(error)}
            except Exception as error:  # noqa: BLE001 - what libraries or a user's code raise is said in one line
                reply = {"error": first_line(error)}
            stream.write(json.dumps(reply) + "\n")


def required(name: str, doing: str, install: str) -> ModuleType:
    """Import the module `name`.

    Raises:
        RefusedError: it cannot be imported; `doing` begins the line, `install` ends it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RefusedError(f"{doing} needs {name}, which cannot be imported ({error}); {install}") from error


@contextlib.contextmanager
def refusing(doing: str) -> Iterator[None]:
    """Turn what is raised within into a refusal that begins with `doing`."""
    try:
        yield
    except Exception as error:
        raise RefusedError(f"{doing}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of the first cause that has one, its type before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:_LINE_CHARACTERS]

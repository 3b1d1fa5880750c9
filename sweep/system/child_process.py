"""A child process that answers JSON lines, for libraries that must not live in a process that plans or measures.

The parent's half is ``SideProcess``; the child's half is ``serve`` and what stands below it, which need nothing but
the standard library, so that a child may run in an interpreter of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

_PR_SET_PDEATHSIG = 1
_LINE = 300
_PATIENCE_S = 5


class RefusedError(Exception):
    """What was asked of the child cannot be done, in one line. Whoever asked makes it an error of its own."""


class SideProcess:
    """A child process that ends a question with one line and has its output kept.

    Args:
        command: starts it; it calls ``serve``.
        name: what messages call it, such as ``the exporting process``.
        environment: variables set for it beside those of this process.

    Raises:
        RefusedError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the child
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            self._printed.close()
            raise RefusedError(f"{name} cannot be started: {error}") from error

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to ``message``.

        Raises:
            RefusedError: the child said why not, or ended; then its last words.
        """
        try:
            print(json.dumps(message), file=self._child.stdin, flush=True)
            line = self._child.stdout.readline() if self._child.stdout else ""
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def printed(self) -> str:
        """Everything that the child and its libraries printed so far."""
        self._printed.seek(0)
        return self._printed.read()

    def close(self) -> None:
        """End the child; nothing the second time."""
        if self._child.stdin and not self._child.stdin.closed:
            self._child.stdin.close()
        if self._child.stdout:
            self._child.stdout.close()
        try:
            self._child.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._printed.close()

    def _last_words(self) -> str:
        status = self._child.wait()
        lines = self.printed().strip().splitlines()
        return f"{self._name} ended with status {status}: {lines[-1] if lines else 'it said nothing'}"


def serve(answer: Callable[[Any], Mapping[str, Any]]) -> None:
    """Answer every JSON line on stdin with one on what was stdout; whatever libraries print goes to stderr.

    Exceptions are answers of one line as well. Dies with its parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                given = dict(answer(json.loads(line)))
            except RefusedError as error:
                given = {"error": str(error)}
            except Exception as error:  # noqa: BLE001 - what libraries or a user's code raise is said in one line
                given = {"error": first_line(error)}
            answers.write(json.dumps(given) + "\n")


def required(name: str, doing: str, install: str) -> ModuleType:
    """The module ``name``.

    Raises:
        RefusedError: it cannot be imported; ``doing`` begins the line, ``install`` ends it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RefusedError(f"{doing} needs {name}, which cannot be imported ({error}); {install}") from error


@contextlib.contextmanager
def said(doing: str) -> Iterator[None]:
    """Within, what is raised becomes a refusal that begins with ``doing``."""
    try:
        yield
    except Exception as error:
        raise RefusedError(f"{doing}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of the first cause that says something, its type before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:_LINE]

"""Runs the command line in forks of one process that has imported it, so that no run pays for the imports again.

Everything else is that of a process of its own: arguments, environment, folder, signals, exit code and both outputs.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import pickle
import runpy
import subprocess
import sys
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import forked_worker

if TYPE_CHECKING:
    from collections.abc import Callable

PRELOADED = ("sweep.cli.run", "scipy.special", "scipy.optimize", "plotly.graph_objects", "plotly.io", "rich.live")
PATH = "PYTHONPATH"

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([*PRELOADED, "preloaded", __name__])


def _start_server() -> None:
    """Start the process that forks, which finds modules of this folder by its environment alone."""
    before = os.environ.get(PATH)
    os.environ[PATH] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        del os.environ[PATH]
        if before is not None:
            os.environ[PATH] = before


def run_forked(
    words: tuple[str, ...],
    environment: dict[str, str],
    folder: Path,
    timeout_s: float = 200,
    module: str = "sweep",
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m MODULE WORDS`` to its end; what it printed and its exit code.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout_s``, and was killed.
    """
    with TemporaryDirectory() as scratch:
        output, error = Path(scratch, "output"), Path(scratch, "error")
        process = _start(module, words, environment, folder, (output, error))
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(words), timeout_s, output.read_bytes(), error.read_bytes())
        return subprocess.CompletedProcess(words, process.exitcode, output.read_text(), error.read_text())


def _start(*arguments: Any, leads_session: bool = False) -> multiprocessing.process.BaseProcess:
    """Start a command as of `_main`."""
    _start_server()
    process = _FORKS.Process(target=_main, args=arguments, kwargs={"leads_session": leads_session})
    process.start()
    return process


class ForkedCommand:
    """Run one command in a session of its own, as a shell would; it has what tests use of ``subprocess.Popen``.

    Args:
        words: words of ``python -m sweep``.
        environment: its variables.
        folder: its working folder.

    Attributes:
        pid: its process, which leads its group.
        returncode: its exit code, negative for a signal; None while it runs, as far as is known.
    """

    def __init__(self, words: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
        self._scratch = TemporaryDirectory()
        self._output = Path(self._scratch.name, "output")
        self._process = _start("sweep", words, environment, folder, (self._output, self._output), leads_session=True)
        self.pid = self._process.pid
        self.returncode: int | None = None
        weakref.finalize(self, _end, self._process)  # of a test that failed meanwhile

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than `timeout` seconds.
        """
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("sweep", timeout or 0.0, self._output.read_bytes())
        return self._process.exitcode or 0

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; return what it printed, on stdout and stderr together."""
        self.wait(timeout)
        return self._output.read_text(), None

    def kill(self) -> None:
        """Send it SIGKILL."""
        self._process.kill()


def _end(process: multiprocessing.process.BaseProcess) -> None:
    if process.exitcode is None:
        process.kill()
        process.join()


def call_forked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in tests/support, in a process whose workers are forks; return what it returns.

    Args:
        function: named at the top of its module; arguments and value are pickled.
        arguments: of the function.
    """
    with TemporaryDirectory() as scratch:
        value = Path(scratch, "value")
        _start_server()
        process = _FORKS.Process(target=_call, args=(function, arguments, dict(os.environ), value))
        process.start()
        process.join()
        assert process.exitcode == 0, f"{function.__name__} ended with {process.exitcode}; its traceback is on stderr"
        return pickle.loads(value.read_bytes())  # noqa: S301 - written by `_call`


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str], value: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    forked_worker.install()
    value.write_bytes(pickle.dumps(function(*arguments)))


def _main(
    module: str,
    words: tuple[str, ...],
    environment: dict[str, str],
    folder: Path,
    streams: tuple[Path, Path],
    *,
    leads_session: bool,
) -> None:
    if leads_session:
        os.setsid()
    for descriptor, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # as `python -m` does
    forked_worker.install()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

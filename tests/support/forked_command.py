"""Runs the command line in forks of one process that has imported it, so that no run pays for the imports again.

Everything else is that of a process of its own: arguments, environment, folder, signals, exit code and both outputs.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import runpy
import subprocess
import sys
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
        _start_server()
        process = _FORKS.Process(target=_main, args=(module, words, environment, folder, output, error))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(words), timeout_s, output.read_bytes(), error.read_bytes())
        return subprocess.CompletedProcess(words, process.exitcode, output.read_text(), error.read_text())


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
    module: str, words: tuple[str, ...], environment: dict[str, str], folder: Path, output: Path, error: Path
) -> None:
    for descriptor, path in ((1, output), (2, error)):
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

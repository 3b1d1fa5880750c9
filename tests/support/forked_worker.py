"""Starts the worker of a forked command as a fork too: it has its imports, which are most of what a short worker costs.

All else is that of a process of its own: a child in its own session, with its pipes, environment and signal handlers,
and with no file of its parent. It runs the ``sitecustomize.py`` on its PYTHONPATH as Python does at its start, with the
words of a worker in ``sys.orig_argv``. A worker whose libraries read a variable at their start is a fresh process; so
is every worker of a command that is one itself (``fresh=True``).
"""

from __future__ import annotations

import functools
import gc
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.system import child_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

WORKER = "sweep.runner.worker.main"
_PATH = "PYTHONPATH"
_READ_LATER = {
    "SWEEP_PARENT_PID",
    "TMPDIR",
    "OPENBLAS_NUM_THREADS",
    _PATH,
}  # conftest.py sets the threads for the server too
_FIRST = 3  # the first descriptor after stdin, stdout and stderr


def install() -> None:
    """Let the workers of this process be forks of it."""
    child_process.subprocess = _Subprocess()  # type: ignore[assignment]


class _Subprocess:
    """The module ``subprocess`` with a Popen that forks workers."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: N802 - as it is there
        if list(command) == child_process.module_command(WORKER) and _can_be_forked(options["env"]):
            options["preexec_fn"] = functools.partial(_become_worker, options["env"], options["preexec_fn"])
        try:
            return subprocess.Popen(command, **options)
        except subprocess.SubprocessError:  # a signal for the worker met it in `preexec_fn`, which the product has not
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], **options | {"preexec_fn": None})


def _run_site(environment: Mapping[str, str]) -> None:
    """Search PYTHONPATH as Python does at its start: modules are found there, and its ``sitecustomize.py`` is run."""
    entries = list(filter(None, environment.get(_PATH, "").split(os.pathsep)))
    sys.path[:0] = [entry for entry in entries if entry not in sys.path]
    site = next((path for entry in entries if (path := Path(entry, "sitecustomize.py")).exists()), None)
    if site is not None:
        runpy.run_path(str(site))


def _can_be_forked(environment: Mapping[str, str]) -> bool:
    """Return whether nothing differs that Python or a library reads when it starts."""
    changed = {name for name, value in environment.items() if os.environ.get(name) != value}
    return changed <= _READ_LATER


def _become_worker(environment: Mapping[str, str], die_with_parent: Callable[[], None]) -> NoReturn:
    """Be the worker instead of starting a program: in the forked child, which has its three streams already."""
    status = 1
    try:
        die_with_parent()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers
            if descriptor >= _FIRST:  # not closed: an object of the parent's would close what has its number next
                os.dup2(null, descriptor)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # what the parent found
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        gc.enable()  # Popen switches it off around a fork
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - those of the process
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115 - likewise
        sys.argv = [WORKER]
        sys.orig_argv = child_process.module_command(WORKER)
        _run_site(environment)
        runpy.run_module(WORKER, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter shows what nobody catches
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

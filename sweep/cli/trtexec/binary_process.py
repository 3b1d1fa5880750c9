"""Run the binary without a shell, with its output in a file and a time limit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli.trtexec import output_parser
from sweep.errors import ConfigError, ParityError
from sweep.system import child_process, regular_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_INSTALL = {
    "trtexec": "it comes with TensorRT's tar and Debian packages (bin/trtexec) and NVIDIA's containers, not with pip",
    "tensorrt_rtx": "it comes with the TensorRT-RTX SDK's tar package (bin/tensorrt_rtx), not with pip",
}


def locate(name: str, binary: str | None) -> str:
    """Return the absolute path of the executable.

    Args:
        name: name of the binary.
        binary: its path, or another name to look for; None looks for `name` on PATH.

    Raises:
        ConfigError: if there is no such executable.
    """
    path = shutil.which(binary or name)
    if path is None:
        problem = f"--binary {binary} is no executable" if binary else f"{name} is not on PATH"
        raise ConfigError(f"--parity: {problem}; {_INSTALL[name]}; put it on PATH or give --binary /path/to/{name}")
    return str(Path(path).resolve())


def run(command: Sequence[str], env: Mapping[str, str], log: Path, timeout_s: float) -> float:
    """Run `command` to its end; return its wall time in seconds.

    Args:
        command: executable and arguments.
        env: variables that are added to this process's environment.
        log: file for everything that it prints; replaced.
        timeout_s: seconds after which it and its children are killed.

    Raises:
        ParityError: if it could not be started, ran past the limit, or ended with another code than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with regular_files.open_output(log) as out:
        try:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
                preexec_fn=child_process.DIE_WITH_PARENT,  # noqa: PLW1509 - see there
            )
        except OSError as error:
            raise ParityError(f"{command[0]} cannot be started: {error.strerror}") from error
        code = _wait(child, command[0], log, timeout_s)
    if code != 0:
        how = f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        raise ParityError(f"{command[0]} {how}{_reason(log)}")
    return time.monotonic() - start


def _wait(child: subprocess.Popen[bytes], name: str, log: Path, timeout_s: float) -> int:
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise ParityError(f"{name} ran past --timeout-s {timeout_s:g} and was killed; its output: {log}") from None
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _reason(log: Path) -> str:
    reason = output_parser.failure_reason(regular_files.read_text(log, follow=False, errors="replace"))
    return f"{f': {reason}' if reason else ''}; its output: {log}"

"""Talk to NVIDIA's MPS control daemon: its variables, its commands, and the processes that belong to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from sweep.errors import MpsError

NAME = "nvidia-cuda-mps-control"
PIPES, LOGS, SHARE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
NO_DAEMON = "/dev/null"  # no daemon can have its pipes there, so that CUDA runs without one
NOT_FOUND = f"MPS needs {NAME}, which is not on PATH; it comes with the NVIDIA driver's compute utilities"
ANSWER_S = 20.0
_COMM = "nvidia-cuda-mps"  # what /proc keeps of the names of the daemon and of its servers


def binary() -> str:
    """Return the path of the daemon's program.

    Raises:
        MpsError: it is not on PATH.
    """
    path = shutil.which(NAME)
    if path is None:
        raise MpsError(NOT_FOUND)
    return path


def send_command(pipes: Path, command: str) -> str:
    """Send ``command`` to the daemon whose pipes lie in the folder ``pipes`` and return its answer.

    Raises:
        MpsError: there is no daemon, or it does not answer.
    """
    try:
        completed = subprocess.run(
            [binary()],
            input=command + "\n",
            env={**os.environ, PIPES: str(pipes)},
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MpsError(f"the MPS daemon at {pipes} does not answer: {error}") from error
    if completed.returncode != 0:
        words = " ".join((completed.stdout + completed.stderr).split()) or "it said nothing"
        raise MpsError(f"no MPS daemon answers at {pipes}: {words}")
    return completed.stdout


def find_processes(pipes: Path) -> list[int]:
    """Return the pids of this user's MPS daemons and servers at ``pipes``, identified by their own environment."""
    variable, uid, pids = f"{PIPES}={pipes}".encode(), os.getuid(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not for us to look at
            ours = entry.stat().st_uid == uid and (entry / "comm").read_text().startswith(_COMM)
            if ours and variable in (entry / "environ").read_bytes().split(b"\0"):
                pids.append(int(entry.name))
    return [pid for pid in sorted(pids) if start_ticks(pid) is not None]


def is_server(pid: int) -> bool:
    """Return whether the process is a server, which the daemon starts when the first client comes."""
    return b"mps-server" in _read(pid, "cmdline")


def start_ticks(pid: int) -> int | None:
    """Return when a living process started, in the kernel's ticks since boot; None if it is dead."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return None if not fields or fields[0] in {b"Z", b"X"} else int(fields[19])


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""

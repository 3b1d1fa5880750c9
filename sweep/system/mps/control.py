"""NVIDIA's control daemon: its variables, what it is asked, and which processes are its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from sweep.errors import MpsError

NAME = "nvidia-cuda-mps-control"
PIPES, LOGS, SHARE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
NOWHERE = "/dev/null"  # no daemon can have its pipes there, so that CUDA runs without one
NOT_FOUND = f"MPS needs {NAME}, which is not on PATH; it comes with the NVIDIA driver's compute utilities"
ANSWER_S = 20.0
_COMM = "nvidia-cuda-mps"  # what /proc keeps of the names of the daemon and of its servers


def binary() -> str:
    """Path of the daemon's program.

    Raises:
        MpsError: it is not here.
    """
    found = shutil.which(NAME)
    if found is None:
        raise MpsError(NOT_FOUND)
    return found


def ask(pipes: Path, command: str) -> str:
    """What the daemon whose pipes these are answers.

    Raises:
        MpsError: there is none, or it does not answer.
    """
    try:
        done = subprocess.run(
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
    if done.returncode != 0:
        words = " ".join((done.stdout + done.stderr).split()) or "it said nothing"
        raise MpsError(f"no MPS daemon answers at {pipes}: {words}")
    return done.stdout


def processes(pipes: Path) -> list[int]:
    """Pids of this user's MPS daemons and servers whose pipes lie at ``pipes``, by their own environment."""
    wanted, own, found = f"{PIPES}={pipes}".encode(), os.getuid(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not for us to look at
            mine = entry.stat().st_uid == own and (entry / "comm").read_text().startswith(_COMM)
            if mine and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in sorted(found) if started(pid) is not None]


def is_server(pid: int) -> bool:
    """Whether it is a server, which the daemon starts when the first client comes."""
    return b"mps-server" in _read(pid, "cmdline")


def started(pid: int) -> int | None:
    """When a living process started, in the kernel's ticks since it booted; None if it is dead."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return None if not fields or fields[0] in {b"Z", b"X"} else int(fields[19])


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""

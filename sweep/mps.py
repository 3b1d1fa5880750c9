"""CUDA MPS: the control daemon that lets processes share a GPU at once, each with a share of its SMs.

A share is bound when a process makes its CUDA context, by variables in its environment, so everything here is done in
the parent before a child starts. A daemon of our own has a folder of its own below ``<tmp>/sweep-mps-<uid>``: short, as
unix sockets want it, and closed to others. Three things end it: ``Mps.close``; a watcher process, once the process that
started it is gone, however that died; and, should the watcher have died too, the next start of a daemon.

Variables and commands are those of NVIDIA's *Multi-Process Service* guide (https://docs.nvidia.com/deploy/mps).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import nvml
from sweep.errors import MpsError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS, SHARE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
_FULL = 100  # per cent
_NOWHERE = "/dev/null"  # no daemon can have its pipes there, so CUDA runs without one
_COMM = "nvidia-cuda-mps"  # what /proc keeps of the names of the control daemon and its servers
_STATE = "state.json"
_LONGEST = 60  # bytes of our folder's path; a socket's whole path may have 107
_PRIVATE = 0o700
_ANSWER_S, _QUIT_S, _TERM_S = 20.0, 5.0, 2.0
_FIRST_WITH_SHARES = 7  # major compute capability: Volta


class Mps:
    """The daemon that a sweep's children are sent to.

    Args:
        pipe_directory: of a daemon that the user runs; None starts one of our own when a share is first asked for.
        gpu: UUID of the one GPU that our own daemon serves, as in CUDA_VISIBLE_DEVICES; None serves all.
    """

    def __init__(self, pipe_directory: str | None, gpu: str | None = None) -> None:
        self._theirs = pipe_directory
        self._gpu = gpu
        self._own: _Daemon | None = None

    def environment(self, share: int | None) -> dict[str, str]:
        """Variables for a child that is to have ``share`` per cent of the SMs.

        None keeps the child away from every daemon, also from one that the user's own variables name: with several
        such children the GPU slices time between them. A daemon of ours that has died since is replaced by a new one.

        Raises:
            MpsError: no daemon could be started, or the user's does not answer; one line.
        """
        if share is None:
            return {PIPES: _NOWHERE}
        if not 1 <= share <= _FULL:
            raise MpsError(f"mps={share}: a percentage from 1 to 100")
        if self._theirs is not None:
            _ask(Path(self._theirs), "get_server_list")
            return {PIPES: self._theirs, SHARE: str(share)}
        if self._own is None or not self._own.alive():
            self.close()
            self._own = _Daemon(self._gpu)
            atexit.register(self.close)
        return {PIPES: str(self._own.pipes), LOGS: str(self._own.logs), SHARE: str(share)}

    def close(self) -> None:
        """End the daemon and its server if they are ours; nothing the second time."""
        if self._own is not None:
            self._own.close()
            self._own = None
            atexit.unregister(self.close)


def available() -> str | None:
    """Why MPS cannot be used here, in one line; None if it can."""
    if shutil.which(CONTROL) is None:
        return f"MPS needs {CONTROL}, which is not on PATH; it comes with the NVIDIA driver's compute utilities"
    if "microsoft" in os.uname().release.lower():
        return "MPS does not run under WSL"
    found = nvml.library()
    if found is None:
        return "MPS needs an NVIDIA GPU and none is seen here"
    try:
        return _lacking(found)
    except found.NVMLError as error:
        return f"MPS needs an NVIDIA GPU and none is seen here ({error})"
    finally:
        nvml.close(found)


def _lacking(found: Any) -> str | None:
    device = nvml.visible(found)
    with contextlib.suppress(found.NVMLError_NotSupported):
        if found.nvmlDeviceGetMigMode(device)[0] == found.NVML_DEVICE_MIG_ENABLE:
            return "MPS shares are not used on a GPU in MIG mode, whose instances divide it already"
    major, minor = found.nvmlDeviceGetCudaComputeCapability(device)
    if major < _FIRST_WITH_SHARES:
        return f"MPS gives shares from compute capability 7.0 on; this GPU has {major}.{minor}"
    return None


def share_of(environment: Mapping[str, str]) -> int | None:
    """The share that a process with these variables asked for; None if it is to run without MPS."""
    if environment.get(PIPES) == _NOWHERE or not environment.get(SHARE, "").isdecimal():
        return None
    return int(environment[SHARE])


class _Daemon:
    """A control daemon of our own, running once this is made.

    Attributes:
        pipes: folder of its sockets.
        logs: folder of its logs.
    """

    def __init__(self, gpu: str | None) -> None:
        root = _root()
        with _locked(root / ".lock"):
            _clean(root)
            self._folder = Path(tempfile.mkdtemp(dir=root, prefix=""))
            self._lock = os.open(self._folder / _STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # the kernel lets go of it when this process dies
        self.pipes, self.logs = self._folder / "pipe", self._folder / "log"
        for folder in (self.pipes, self.logs):
            folder.mkdir(mode=_PRIVATE)
        self._watcher = _watcher(self._folder)
        try:
            self._pid = self._start(gpu)
            self._begun = started(self._pid)
        except BaseException:
            self.close()
            raise
        state = {"pid": self._pid, "started": self._begun, "uid": os.getuid(), "sweep": os.getpid()}
        os.write(self._lock, json.dumps(state).encode() + b"\n")

    def _start(self, gpu: str | None) -> int:
        """The control daemon's pid, once it listens."""
        control = shutil.which(CONTROL)
        if control is None:
            raise MpsError(f"MPS needs {CONTROL}, which is not on PATH")
        environment = {key: value for key, value in os.environ.items() if key not in {SHARE, "CUDA_VISIBLE_DEVICES"}}
        environment |= {PIPES: str(self.pipes), LOGS: str(self.logs)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        said = self.logs / "start"  # a pipe would stay open for as long as the daemon runs
        with said.open("wb") as out:
            try:
                code = subprocess.run(
                    [control, "-d"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    timeout=_ANSWER_S,
                    check=False,
                ).returncode
            except (OSError, subprocess.TimeoutExpired) as error:
                raise MpsError(f"{control} -d could not be started: {error}") from error
        _ask(self.pipes, "get_server_list")
        found = [pid for pid in _processes(self._folder) if b"server" not in _read(pid, "cmdline")]
        if code != 0 or not found:
            words = " ".join(said.read_text(errors="replace").split()) or "and said nothing"
            raise MpsError(f"{control} -d ended with code {code} and runs no daemon: {words}")
        return found[0]

    def alive(self) -> bool:
        """Whether the daemon still runs."""
        return started(self._pid) == self._begun

    def close(self) -> None:
        """End the daemon, its server and the watcher, and remove the folder; nothing the second time."""
        if self._lock < 0:
            return
        end(self._folder)
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        self._watcher.wait(_ANSWER_S)
        os.close(self._lock)
        self._lock = -1


def _watcher(folder: Path) -> subprocess.Popen[bytes]:
    """A process that calls ``end`` once this one is gone: its stdin then ends."""
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "sweep.mps", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def end(folder: Path) -> None:
    """End the daemon of this folder of ours and its servers, and remove the folder: quit, SIGTERM, SIGKILL."""
    if _processes(folder):
        with contextlib.suppress(MpsError):
            _ask(folder / "pipe", "quit")
        _wait_gone(folder, _QUIT_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(folder):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        _wait_gone(folder, _TERM_S)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_gone(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _processes(folder) and time.monotonic() < deadline:
        time.sleep(0.02)


def _clean(root: Path) -> None:
    """End what dead sweeps of this user left; whoever lives holds the lock on its state."""
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        handle = os.open(folder / _STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)


def _root() -> Path:
    """The folder of all daemons of this user, made if it is not there.

    Raises:
        MpsError: it is somebody else's, or open to others.
    """
    uid = os.getuid()
    wanted = Path(tempfile.gettempdir()).resolve()
    base = wanted if len(os.fsencode(wanted / f"sweep-mps-{uid}")) <= _LONGEST else Path("/tmp")  # noqa: S108 - checked below
    root = base / f"sweep-mps-{uid}"
    try:
        root.mkdir(mode=_PRIVATE, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise MpsError(f"MPS: the folder {root} cannot be made: {error.strerror}") from error
    if root.is_symlink() or found.st_uid != uid or found.st_mode & 0o077:
        raise MpsError(f"MPS: the folder {root} is not this user's alone; remove it")
    return root


@contextlib.contextmanager
def _locked(path: Path) -> contextlib.Generator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _ask(pipes: Path, command: str) -> str:
    """What the daemon answers.

    Raises:
        MpsError: there is none, or it does not answer.
    """
    control = shutil.which(CONTROL)
    if control is None:
        raise MpsError(f"MPS needs {CONTROL}, which is not on PATH")
    try:
        done = subprocess.run(
            [control],
            input=command + "\n",
            env={**os.environ, PIPES: str(pipes)},
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MpsError(f"the MPS daemon of {pipes} does not answer {command}: {error}") from error
    if done.returncode != 0:
        words = " ".join((done.stdout + done.stderr).split())
        raise MpsError(f"no MPS daemon answers at {pipes} (mps_pipe_directory): {words}")
    return done.stdout


def _processes(folder: Path) -> list[int]:
    """Pids of this user's MPS processes whose pipes lie in ``folder``.

    The folder's name is drawn at random and stands in their environment, so that no other's are among them and a pid
    that was given out anew does no harm.
    """
    wanted = f"{PIPES}={folder / 'pipe'}".encode()
    own = os.getuid()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            mine = entry.stat().st_uid == own and (entry / "comm").read_text().startswith(_COMM)
            if mine and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""


def started(pid: int) -> int | None:
    """When a living process started, in the kernel's ticks since it booted; None if it is dead."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return None if not fields or fields[0] in b"ZX" else int(fields[19])


def main() -> None:
    """Wait until the process at the other end of stdin is gone, and end what it left."""
    sys.stdin.buffer.read()
    end(Path(sys.argv[1]))


if __name__ == "__main__":
    main()

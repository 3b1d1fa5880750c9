"""A control daemon of our own: started when it is first needed, ended whatever happens to who started it.

Its folder lies below ``<tmp>/sweep-mps-<uid>``: short, as unix sockets want it, and closed to others. Three things end
it: ``Daemon.close``; a watcher process, once the process that started it is gone, however that died; and, should the
watcher have died too, the next start of a daemon by this user. None of them touches a process that does not carry the
folder's name, drawn at random, in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from sweep.errors import MpsError
from sweep.system import file_locks
from sweep.system.child_process import ChildProcess, module_command, module_environment
from sweep.system.mps import control

_STATE = "state.json"
_LOCK = ".lock"
_LONGEST = 60  # bytes of the path of our root; the whole path of a socket may have 107
_PRIVATE = 0o700
_QUIT_S, _TERM_S, _KILL_S = 5.0, 2.0, 2.0
_LOOK_S = 0.02


class Daemon:
    """A control daemon that listens once this is made.

    Args:
        gpu: UUID of the one GPU that it serves; None serves all.

    Attributes:
        pipes: folder of its sockets.
        logs: folder of its logs.

    Raises:
        MpsError: it cannot be started; its own words.
    """

    def __init__(self, gpu: str | None) -> None:
        root = root_folder()
        self._owner = os.getpid()
        with file_locks.locked(root / _LOCK):
            _clean(root)
            self._folder = Path(tempfile.mkdtemp(dir=root, prefix=""))
            self._state = file_locks.open_lock_file(self._folder / _STATE)
            file_locks.lock_descriptor(self._state, wait=True)
        self.pipes, self.logs = pipes_of(self._folder), self._folder / "log"
        self._watcher: ChildProcess | None = None
        try:
            for folder in (self.pipes, self.logs):
                folder.mkdir(mode=_PRIVATE)
            self._watcher = _watch(self._folder)
            self._start(gpu)
            self._pid = self._found()
            self._started = control.started(self._pid)
            state = {"pid": self._pid, "started": self._started, "uid": os.getuid(), "sweep": self._owner}
            os.write(self._state, json.dumps(state).encode() + b"\n")
        except BaseException:
            self.close()
            raise

    def _start(self, gpu: str | None) -> None:
        """Start it; ``-d`` returns once it listens."""
        hidden = {control.SHARE, "CUDA_VISIBLE_DEVICES"}  # one would bound all shares, the other renumber the GPUs
        variables = {key: value for key, value in os.environ.items() if key not in hidden}
        variables |= {control.PIPES: str(self.pipes), control.LOGS: str(self.logs)}
        variables |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        said = self.logs / "start.log"  # a pipe would stay open for as long as the daemon runs
        command = [control.binary(), "-d"]
        try:
            with said.open("wb") as out:
                code = subprocess.run(
                    command,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    timeout=control.ANSWER_S,
                    check=False,
                ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MpsError(f"the MPS daemon could not be started: {error}") from error
        if code != 0:
            words = " ".join(said.read_text(errors="replace").split()) or "it said nothing"
            raise MpsError(f"the MPS daemon could not be started ({' '.join(command)}: code {code}): {words}")

    def _found(self) -> int:
        """Pid of the daemon, once it has answered."""
        control.ask(self.pipes, "get_server_list")
        found = [pid for pid in control.processes(self.pipes) if not control.is_server(pid)]
        if not found:
            raise MpsError(f"the MPS daemon at {self.pipes} answers, but no process of this user is it")
        return found[0]

    def alive(self) -> bool:
        """Whether it still runs."""
        return control.started(self._pid) == self._started

    def close(self) -> None:
        """End it, its servers and the watcher, and remove the folder; nothing the second time, or in a forked child."""
        if self._state < 0 or os.getpid() != self._owner:
            return
        end(self._folder)
        if self._watcher is not None:
            self._watcher.close()
        os.close(self._state)
        self._state = -1


def pipes_of(folder: Path) -> Path:
    """Where the sockets of the daemon of that folder lie."""
    return folder / "pipe"


def end(folder: Path) -> None:
    """End the daemon of this folder of ours and its servers by quit, SIGTERM, SIGKILL, and remove the folder."""
    pipes = pipes_of(folder)
    if control.processes(pipes):
        with contextlib.suppress(MpsError):
            control.ask(pipes, "quit")
        _gone(pipes, _QUIT_S)
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        for pid in control.processes(pipes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _gone(pipes, patience_s)
    shutil.rmtree(folder, ignore_errors=True)


def _gone(pipes: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while control.processes(pipes) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _watch(folder: Path) -> ChildProcess:
    """The watcher (``sweep.system.mps.__main__``): its stdin ends when this process does, whatever ended it."""
    return ChildProcess(
        module_command("sweep.system.mps", str(folder)),
        "the watcher of the MPS daemon",
        environment=module_environment(),
        own_session=True,
    )


def _clean(root: Path) -> None:
    """End what dead sweeps of this user left; one that lives holds the lock on its state."""
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        try:
            handle = file_locks.open_lock_file(folder / _STATE)
        except FileNotFoundError:  # its watcher was quicker
            continue
        try:
            if file_locks.lock_descriptor(handle, wait=False):
                end(folder)
        finally:
            os.close(handle)


def root_folder() -> Path:
    """The folder of all daemons of this user, made if it is not there.

    Raises:
        MpsError: it is somebody else's, or open to others.
    """
    name = f"sweep-mps-{os.getuid()}"
    wanted = Path(tempfile.gettempdir()).resolve() / name
    root = wanted if len(os.fsencode(wanted)) <= _LONGEST else Path("/tmp") / name  # noqa: S108 - its owner is checked
    try:
        root.mkdir(mode=_PRIVATE, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise MpsError(f"MPS: the folder {root} cannot be made: {error.strerror}") from error
    if root.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise MpsError(f"MPS: the folder {root} is not this user's alone; remove it")
    return root

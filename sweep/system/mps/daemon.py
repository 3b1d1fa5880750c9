"""Run a control daemon of our own: start it when it is first needed, and end it however its starter ends.

Its folder lies below ``<tmp>/sweep-mps-<uid>``: short, since unix sockets limit its length, and closed to others. Three
things end the daemon: ``Daemon.close``; a watcher process, once the process that started it is gone, however that died;
and, should the watcher have died too, the next start of a daemon by this user. None of them touches a process that does
not carry the folder's name, drawn at random, in its environment.
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
from sweep.system import file_locks, regular_files
from sweep.system.child_process import ChildProcess, module_command, module_environment
from sweep.system.mps import control

_STATE = "state.json"
_LOCK = ".lock"
_LONGEST_ROOT_BYTES = 60  # bytes of the path of our root; the whole path of a socket may have 107
_OWNER_ONLY = 0o700
_QUIT_S, _TERM_S, _KILL_S = 5.0, 2.0, 2.0
_POLL_S = 0.02


class Daemon:
    """Start a control daemon and own it; it listens once the constructor returns.

    Args:
        gpu: UUID of the one GPU that it serves; None serves all.

    Attributes:
        pipes: folder of its sockets.
        logs: folder of its logs.

    Raises:
        MpsError: it cannot be started; with its own message.
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
                folder.mkdir(mode=_OWNER_ONLY)
            self._watcher = _watch(self._folder)
            self._start(gpu)
            self._pid = self._find_pid()
            self._started = control.start_ticks(self._pid)
            state = {"pid": self._pid, "started": self._started, "uid": os.getuid(), "sweep": self._owner}
            os.write(self._state, json.dumps(state).encode() + b"\n")
        except BaseException:
            self.close()
            raise

    def _start(self, gpu: str | None) -> None:
        """Start the daemon; ``-d`` returns once it listens."""
        hidden = {control.SHARE, "CUDA_VISIBLE_DEVICES"}  # one would bound all shares, the other renumber the GPUs
        variables = {key: value for key, value in os.environ.items() if key not in hidden}
        variables |= {control.PIPES: str(self.pipes), control.LOGS: str(self.logs)}
        variables |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        log = self.logs / "start.log"  # a pipe would stay open for as long as the daemon runs
        command = [control.binary(), "-d"]
        try:
            with regular_files.open_output(log) as out:
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
            words = " ".join(regular_files.read_text(log, follow=False, errors="replace").split()) or "it said nothing"
            raise MpsError(f"the MPS daemon could not be started ({' '.join(command)}: code {code}): {words}")

    def _find_pid(self) -> int:
        """Return the pid of the daemon, once it has answered."""
        control.send_command(self.pipes, "get_server_list")
        pids = [pid for pid in control.find_processes(self.pipes) if not control.is_server(pid)]
        if not pids:
            raise MpsError(f"the MPS daemon at {self.pipes} answers, but no process of this user is it")
        return pids[0]

    def alive(self) -> bool:
        """Return whether the daemon still runs."""
        return control.start_ticks(self._pid) == self._started

    def close(self) -> None:
        """End the daemon, its servers and the watcher, and remove the folder.

        A second call does nothing, nor does one in a forked child.
        """
        if self._state < 0 or os.getpid() != self._owner:
            return
        end(self._folder)
        if self._watcher is not None:
            self._watcher.close()
        os.close(self._state)
        self._state = -1


def pipes_of(folder: Path) -> Path:
    """Return the folder of the sockets of the daemon in ``folder``."""
    return folder / "pipe"


def end(folder: Path) -> None:
    """End the daemon in ``folder`` and its servers by quit, SIGTERM, SIGKILL, and remove the folder."""
    pipes = pipes_of(folder)
    if control.find_processes(pipes):
        with contextlib.suppress(MpsError):
            control.send_command(pipes, "quit")
        _wait_until_ended(pipes, _QUIT_S)
    for number, timeout_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        for pid in control.find_processes(pipes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _wait_until_ended(pipes, timeout_s)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ended(pipes: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while control.find_processes(pipes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _watch(folder: Path) -> ChildProcess:
    """Start the watcher (``sweep.system.mps.__main__``): its stdin ends when this process does, for whatever reason."""
    return ChildProcess(
        module_command("sweep.system.mps", str(folder)),
        "the watcher of the MPS daemon",
        environment=module_environment(),
        own_session=True,
        outlives_parent=True,
    )


def _clean(root: Path) -> None:
    """End the daemons that dead sweeps of this user left; a living sweep holds the lock on its state."""
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
    """Return the folder of all daemons of this user, created if it is missing.

    Raises:
        MpsError: it belongs to another user, or is open to others.
    """
    name = f"sweep-mps-{os.getuid()}"
    default = Path(tempfile.gettempdir()).resolve() / name
    root = default if len(os.fsencode(default)) <= _LONGEST_ROOT_BYTES else Path("/tmp") / name  # noqa: S108 - its owner is checked
    try:
        root.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        raise MpsError(f"MPS: the folder {root} cannot be made: {error.strerror}") from error
    if root.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise MpsError(f"MPS: the folder {root} is not this user's alone; remove it")
    return root

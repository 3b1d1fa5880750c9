"""Send a sweep's child processes to an MPS daemon."""

from __future__ import annotations

import atexit
from pathlib import Path

from sweep.errors import MpsError
from sweep.system.mps import control
from sweep.system.mps.daemon import Daemon

_FULL_SHARE = 100  # per cent


class Mps:
    """Provide the daemon that a sweep's child processes are sent to.

    Args:
        pipe_directory: of a daemon that the user runs; None starts one of our own when a share is first requested.
        gpu: UUID of the one GPU that our own daemon serves, as in CUDA_VISIBLE_DEVICES; None serves all. A child
            then names its GPU by UUID too, for the daemon counts only those that it serves.
    """

    def __init__(self, pipe_directory: str | None, gpu: str | None = None) -> None:
        self._user_pipes = pipe_directory
        self._gpu = gpu
        self._own: Daemon | None = None

    def environment(self, share: int | None) -> dict[str, str]:
        """Return the variables for a child process that is to have ``share`` per cent of the SMs.

        None keeps the child away from every daemon, also from one that the user's own variables name: with several such
        children the GPU slices time between them. A daemon of ours that has died is replaced by a new one.

        Raises:
            MpsError: no daemon could be started, or the user's does not answer; one line.
        """
        if share is None:
            return {control.PIPES: control.NO_DAEMON}
        if not 1 <= share <= _FULL_SHARE:
            raise MpsError(f"mps={share}: a percentage from 1 to 100")
        if self._user_pipes is not None:
            control.send_command(Path(self._user_pipes), "get_server_list")
            return {control.PIPES: self._user_pipes, control.SHARE: str(share)}
        if self._own is None or not self._own.alive():
            self.close()
            self._own = Daemon(self._gpu)
            atexit.register(self.close)
        return {
            control.PIPES: str(self._own.pipes),
            control.LOGS: str(self._own.logs),
            control.SHARE: str(share),
        }

    def close(self) -> None:
        """End the daemon and its servers if they are ours; a second call does nothing."""
        if self._own is not None:
            self._own.close()
            self._own = None
            atexit.unregister(self.close)

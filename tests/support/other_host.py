"""Run code as a process of another host: one with a host name of its own, in a child process."""

from __future__ import annotations

import ctypes
import os
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWUTS = 0x04000000


def run_on(host: str, work: Callable[[], object]) -> int:
    """Run `work` in a fork whose host is called `host`; return its exit code, 1 after an exception.

    The name is that of a namespace of the kernel; where this user may make none, ``os.uname`` alone says it.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _become(host)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - as the interpreter shows what nobody catches
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(host: str) -> None:
    library = ctypes.CDLL(None)
    if library.unshare(_CLONE_NEWUTS) or library.sethostname(host.encode(), len(host)):
        os.uname = lambda: SimpleNamespace(nodename=host)  # type: ignore[assignment,return-value]

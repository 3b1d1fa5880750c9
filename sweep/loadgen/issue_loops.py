"""Drive one server per stream: in turn on virtual clocks, in compiled code, in one thread that polls, or in one each.

A free server takes the next arrival, waits for its due time and issues it; a request that is due while
all servers are busy is taken by the first that becomes free. That is a first-in-first-out queue in front of
the streams, without a dispatcher between the schedule and the session.
"""

from __future__ import annotations

import ctypes
import gc
import heapq
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.backends import SupportsPolling
from sweep.loadgen import compiled_loop
from sweep.loadgen.closed_loop import ClosedServer
from sweep.loadgen.stream_server import CALL_AGAIN, FINISHED, Server
from sweep.system import ClockWatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweep.backends import Stream

_companions: list[Server] = []  # servers that ``_run_polled`` drives beside those it is given (``beside``)
_PR_SET_TIMERSLACK = 29
_SWITCH_S = 0.0005  # a finished stream gets the GIL back within this
_LONGEST_SLEEP_NS = 500_000_000  # a clock that was set back is noticed after it
_WAKE_NS = 10_000_000  # before a request is due; a sleeper wakes late, to a slow core and bus: 20 us more on an H200


def run(servers: Sequence[Server], *, virtual: bool) -> None:
    """Serve until no server has anything left.

    Where it is enabled, compiled code drives the streams whose calls are prepared, a thread each (docs/decisions/0069).
    In Python, one thread drives all streams that can be polled: on an H200, four streams of a 20 us engine gave it 4.3
    times the throughput of a thread each, which take turns at the GIL (docs/decisions/0013).

    Args:
        servers: one a stream.
        virtual: their streams have virtual clocks.

    Raises:
        Exception: whatever a step of a server raised.
    """
    if virtual:
        _run_in_turn(servers)
        return
    with quiet_interpreter():
        calls = compiled_loop.prepared(servers) if compiled_loop.is_enabled() and not _companions else None
        if calls is not None:
            compiled_loop.run(servers, calls)
        else:
            run_python(servers)


def run_python(servers: Sequence[Server]) -> None:
    """Serve until no server has anything left, in Python: the reference of the compiled loops, and their fallback."""
    with quiet_interpreter():
        if polled([server.stream for server in servers]) and (_companions or not _is_one_closed_loop(servers)):
            _run_polled(servers)
        elif len(servers) == 1:
            _run_alone(servers[0])
        else:
            _run_threads(servers)


@contextmanager
def beside(servers: Sequence[Server]) -> Iterator[None]:
    """Drive `servers`, whose streams can be polled, in every loop that this process runs within the context.

    Two threads that poll would take turns at the GIL, 0.5 ms each.
    """
    _companions.extend(servers)
    try:
        yield
    finally:
        for server in servers:
            _companions.remove(server)


def loop_name(streams: Sequence[Stream], *, mixed: bool) -> str:
    """Return what ``run`` drives these streams with, on the host's clock: ``compiled`` code, or ``python``.

    Args:
        streams: none has an inference in flight.
        mixed: requests have shapes of a mix.
    """
    if mixed or _companions or not compiled_loop.is_enabled():
        return "python"
    return "python" if compiled_loop.stream_calls(streams) is None else "compiled"


def _run_in_turn(servers: Sequence[Server]) -> None:
    """Step the server whose virtual clock is furthest behind: the order in which servers become free.

    A step moves the clock of its own server alone; of equal clocks the first server's is taken.
    """
    times = [(server.stream.clock.now_ns(), number) for number, server in enumerate(servers)]
    heapq.heapify(times)
    clocks, steps = [server.stream.clock for server in servers], [server.step for server in servers]
    while len(times) > 1:
        number = times[0][1]
        if steps[number]():
            heapq.heapreplace(times, (clocks[number].now_ns(), number))
        else:
            heapq.heappop(times)
    for _, number in times:
        step = steps[number]
        while step():
            pass


def polled(streams: Sequence[Stream]) -> bool:
    """Return whether one thread drives these streams."""
    return all(isinstance(stream, SupportsPolling) and stream.spins for stream in streams)


def _is_one_closed_loop(servers: Sequence[Server]) -> bool:
    """Return whether this is a single closed loop: it has nothing else to do, and CUDA's own wait beats polling."""
    return len(servers) == 1 and isinstance(servers[0], ClosedServer)


def _run_polled(servers: Sequence[Server]) -> None:
    _precise_sleep()
    going, watch = list(servers), ClockWatch()
    companions = [server for server in _companions if server not in going]
    while going:
        wake = sys.maxsize
        for server in going:
            answer = server.advance()
            if answer == FINISHED:
                going = [other for other in going if other is not server]
            elif answer < wake:
                wake = answer
        for server in companions:
            answer = server.advance()
            if answer != FINISHED and answer < wake:
                wake = answer
        if CALL_AGAIN < wake < sys.maxsize:
            ahead = wake - time.perf_counter_ns() - _WAKE_NS
            if ahead > 2 * _LONGEST_SLEEP_NS:
                time.sleep(_LONGEST_SLEEP_NS / 1e9)
                watch.check()
            elif ahead > 0:
                time.sleep(ahead / 1e9)


def _run_alone(server: Server) -> None:
    _precise_sleep()
    if isinstance(server, ClosedServer):
        server.serve()
        return
    step = server.step
    while step():
        pass


def _run_threads(servers: Sequence[Server]) -> None:
    errors: list[BaseException] = []

    def work(server: Server) -> None:
        try:
            _run_alone(server)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _precise_sleep() -> None:
    """Ask Linux to wake this thread on time rather than within its default 50 us of slack."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """Keep the garbage collector out of the timed loop and pass the GIL on quickly; nested, it does nothing."""
    if not gc.isenabled():
        yield
        return
    before = sys.getswitchinterval()
    gc.collect(1)  # what is new; a full collection walks every imported library, 20 ms or more
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.enable()

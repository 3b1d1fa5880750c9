"""Keep a session under a steady load while another one is measured, and tell what it got in the windows of that one.

The load is an arrival process at one rate, or a closed loop. It runs from before the first window to after the last
without a pause, so that nothing has to be agreed between the two but the start and the end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles
from sweep.errors import LoadError
from sweep.loadgen import issue_loops
from sweep.loadgen.arrival_processes import PROCESSES, process
from sweep.loadgen.closed_loop import ClosedServer
from sweep.loadgen.stream_server import CALL_AGAIN, FINISHED
from sweep.system import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sweep.backends import Session, Stream
    from sweep.spec import JsonDict, LoadAxes

    Window = tuple[int, int, int, int]  # rung (-1 for the closed loop), pass, start and end, ns

_ARRIVALS = 7003  # of the seed's children: no rung of a ladder has this number
_DRAWS_AT_ONCE = 4096
_FIRST_S = 60.0  # for the first inference under load
_POLL_S = 0.002
_NEVER_NS = 1 << 62


class _End:
    """Decide when a background load ends: when it is stopped, or at a time that is set."""

    def __init__(self) -> None:
        self.at_ns = _NEVER_NS
        self.stopped = False

    def over(self, now_ns: int, count: int) -> bool:
        """Return whether a server has to stop at ``now_ns``."""
        del count
        return self.stopped or now_ns >= self.at_ns


class _Arrivals:
    """Give the arrivals of a process without end to the servers of a session, each once."""

    def __init__(self, load: LoadAxes, rate_rps: float, start_ns: int) -> None:
        self._rng = generator(load.seed, _ARRIVALS)
        self._gaps = process(load.kind).gaps
        self._rate = rate_rps
        self._start_ns = start_ns
        self._lock = threading.Lock()
        self._times = self._draw()

    def next(self) -> int:
        """Return the time of the next arrival, ns."""
        with self._lock:
            return next(self._times)

    def _draw(self) -> Iterator[int]:
        last = float(self._start_ns)
        while True:
            times = last + np.cumsum(self._gaps(self._rng, _DRAWS_AT_ONCE)) * (1e9 / self._rate)
            last = float(times[-1])
            yield from times.astype(np.int64).tolist()


class _ArrivalServer:
    """Serve arrivals without end on one stream; one that waited for too long is dropped.

    Attributes:
        stream: runs them.
        scheduled: when each served request was due, ns.
        done: when its completion was seen, ns.
        dropped: requests that were dropped.
    """

    def __init__(self, stream: Stream, arrivals: _Arrivals, max_wait_ns: int, end: _End) -> None:
        self.stream = stream
        self.scheduled: list[int] = []
        self.done: list[int] = []
        self.dropped = 0
        self._arrivals = arrivals
        self._max_wait_ns = max_wait_ns
        self._end = end
        self._due: int | None = None
        self._running = False

    def step(self) -> bool:
        """Take the next arrival, wait for it, run it to completion."""
        clock, due = self.stream.clock, self._arrivals.next()
        now = clock.now_ns()
        while now < due:
            if self._end.over(due, 0):
                return False
            now = clock.sleep_until_ns(due)
        if self._end.over(now, 0):
            return False
        if now - due > self._max_wait_ns:
            self.dropped += 1
            return True
        self.stream.enqueue()
        self.stream.wait()
        self.scheduled.append(due)
        self.done.append(clock.now_ns())
        return True

    def advance(self) -> int:
        """Note a completion, take the next arrival, issue it if it is due."""
        now = self.stream.clock.now_ns()
        if self._running:
            if not self.stream.poll():  # type: ignore[attr-defined]  # ``run`` calls this for streams that have it
                return CALL_AGAIN
            self.done.append(self.stream.clock.now_ns())
            self._running = False
        if self._end.over(now, 0):
            return FINISHED
        due = self._arrivals.next() if self._due is None else self._due
        if now < due:
            self._due = due
            return due
        self._due = None
        if now - due > self._max_wait_ns:
            self.dropped += 1
            return CALL_AGAIN
        self.stream.enqueue()
        self.scheduled.append(due)
        self._running = True
        return CALL_AGAIN


class BackgroundLoad:
    """Keep one session under its load.

    Args:
        session: what is driven.
        load: its arrival process at the highest of its rates, or a closed loop for every other kind.
        batch: samples of a request.
        name: of the network, for errors.
    """

    def __init__(self, session: Session, load: LoadAxes, batch: int, name: str) -> None:
        self.name = name
        self.virtual = session.virtual
        self._streams = session.streams
        self._load = load
        self._batch = batch
        self._end = _End()
        self._servers: Sequence[ClosedServer | _ArrivalServer] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._among_others: contextlib.ExitStack | None = None

    def start(self, *, one_process: bool = False) -> None:
        """Start, and return once every stream has completed a request; on virtual clocks nothing starts yet.

        Args:
            one_process: whether the measured session runs in this process too. One thread then drives the streams of
                both, where they can be polled (``issue_loops.beside``).

        Raises:
            LoadError: no request was completed.
        """
        if self.virtual:
            return
        self._make_servers(max(stream.clock.now_ns() for stream in self._streams))
        if one_process and issue_loops.polled(self._streams):
            self._among_others = contextlib.ExitStack()
            self._among_others.enter_context(issue_loops.beside(self._servers))
            return
        self._thread = threading.Thread(target=self._run, name=f"load of {self.name}", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + max(_FIRST_S, 10 / (self._rate_rps() or _FIRST_S))
        while not any(server.done for server in self._servers):
            self.check()
            if time.monotonic() > deadline:
                raise LoadError(f"{self.name}: completed no request")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop, and wait for the requests in flight.

        Raises:
            LoadError: the load failed meanwhile.
        """
        self._end.stopped = True
        if self._among_others is not None:
            issue_loops.run(self._servers, virtual=False)
            self._among_others.close()
            self._among_others = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Check that the load still runs.

        Raises:
            LoadError: it has failed.
        """
        if self._error is not None:
            raise LoadError(f"{self.name}, beside the measured network: {self._error}") from self._error

    @property
    def completed(self) -> int:
        """Return the requests that were completed so far."""
        return sum(len(server.done) for server in self._servers)

    def figures(self, windows: Sequence[Window]) -> list[JsonDict]:
        """Return what this load got in each window of the measured one, once it has stopped.

        Args:
            windows: rung, pass, start and end (ns on the clock of both), in the order in which they were measured.

        Returns:
            For each: index, repeat, achieved_ips, requests, p50_ms, p99_ms and overlap, the share of the window between
            the first start and the last completion of this load.
        """
        if not windows:
            return []
        if self.virtual:
            self._simulate(min(window[2] for window in windows), max(window[3] for window in windows))
        starts: list[int] = []
        ends: list[int] = []
        for server in self._servers:
            own = server.issued if isinstance(server, ClosedServer) else server.scheduled
            starts += own[: len(server.done)]
            ends += server.done
        start, done = np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)
        return [self._window(window, start, done) for window in windows]

    def _window(self, window: Window, start: NDArray[np.int64], done: NDArray[np.int64]) -> JsonDict:
        index, repeat, first, last = window
        inside = (done > first) & (done <= last)
        summary = percentiles.latency_summary((done[inside] - start[inside]) / 1e6)
        covered = min(last, int(done.max(initial=0))) - max(first, int(start.min(initial=_NEVER_NS)))
        return {
            "index": index,
            "repeat": repeat,
            "achieved_ips": float(np.count_nonzero(inside) * self._batch / ((last - first) / 1e9)),
            "requests": int(np.count_nonzero(inside)),
            "p50_ms": summary["p50"],
            "p99_ms": summary["p99"],
            "overlap": max(0.0, covered / (last - first)),
        }

    def _rate_rps(self) -> float | None:
        if self._load.kind not in PROCESSES:
            return None
        return max(self._load.rates_ips) / self._batch

    def _make_servers(self, start_ns: int) -> None:
        rate = self._rate_rps()
        if rate is None:
            self._servers = [ClosedServer(stream, self._load.depth, self._end) for stream in self._streams]
            return
        arrivals, wait_ns = _Arrivals(self._load, rate, start_ns), round(self._load.max_wait_s * 1e9)
        self._servers = [_ArrivalServer(stream, arrivals, wait_ns, self._end) for stream in self._streams]

    def _run(self) -> None:
        try:
            issue_loops.run(self._servers, virtual=False)
        except BaseException as error:  # noqa: BLE001 - raised again by ``check``, in the main thread
            self._error = error

    def _simulate(self, start_ns: int, end_ns: int) -> None:
        """Run the load on virtual clocks over the time of all windows, with a little around it."""
        around = (end_ns - start_ns) // 10
        for stream in self._streams:
            stream.clock.sleep_until_ns(start_ns - around)
        self._end = _End()
        self._end.at_ns = end_ns + around
        self._make_servers(start_ns - around)
        issue_loops.run(self._servers, virtual=True)

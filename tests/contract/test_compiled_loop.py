"""The compiled loops and Python's: the same calls in the same order, the same samples, on one virtual driver."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest
import virtual_driver
from virtual_driver import VirtualDriver

from sweep.loadgen import compiled_loop, issue_loops
from sweep.loadgen.closed_loop import ClosedServer, Until
from sweep.loadgen.dynamic_batching import BatchQueue, BatchServer, Rule
from sweep.loadgen.open_loop import OpenServer, Queue

US = 1_000
SERVICES = [[7 * US, 3 * US, 11 * US], [5 * US, 9 * US], [4 * US], [13 * US, 2 * US]]


@pytest.fixture(autouse=True)
def cores(monkeypatch) -> None:
    """As many as any test needs: nothing runs at the same time."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))


def both(count, make, *, poll=False, copies=False, batch=1, failing=-1):
    """What ``make(streams)`` gives, (servers, columns of results), and the calls: of Python's loop, of the compiled."""
    found = []
    for compiled in (False, True):
        driver = VirtualDriver()
        driver.failing = failing
        streams = virtual_driver.streams_of(driver, SERVICES[:count], copies=copies, batch=batch)
        servers, results = make(streams)
        if compiled:
            virtual_driver.run_compiled(driver, servers, poll=poll)
        else:
            virtual_driver.run_python(servers)
        timed = [stream.take_parts_ms() for stream in streams]
        found.append((results(), [times[:, :3] for times in timed], driver.log))
        assert all((times[:, 3] >= 0).all() for times in timed)
    return found


def assert_same(found) -> None:
    (python, python_times, python_log), (compiled, compiled_times, compiled_log) = found
    assert compiled_log == python_log
    assert all(python_log)
    for name, values in python.items():
        np.testing.assert_array_equal(np.asarray(compiled[name]), np.asarray(values), name)
        assert len(values)
    for ours, theirs in zip(compiled_times, python_times, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(("count", "depth", "poll"), [(1, 1, False), (1, 8, True), (3, 2, False)])
@pytest.mark.parametrize("bounds", [(300 * US, 900 * US, 0), (10 * US, 400 * US, 17), (0, 0, 1000)])
def test_closed_loops_are_the_same(count, depth, poll, copies, bounds) -> None:
    """Ended by time, by count and by the longest time; with more results than one array of them has room for."""

    def make(streams):
        servers = [ClosedServer(stream, depth, Until(0, *bounds)) for stream in streams]
        return servers, lambda: {
            f"{name} {number}": getattr(server, name)
            for number, server in enumerate(servers)
            for name in ("issued", "done")
        }

    assert_same(both(count, make, poll=poll, copies=copies))


def due_times(gap_us: float, count: int = 120) -> list[int]:
    return np.cumsum(np.random.default_rng(3).exponential(gap_us * US, count)).astype(int).tolist()


COLUMNS = ("issued", "done", "slot_free", "served_by")


@pytest.mark.parametrize(("count", "gap_us", "most_us"), [(1, 12.0, 10**6), (1, 5.0, 60), (4, 2.2, 10**6)])
def test_open_loops_are_the_same(count, gap_us, most_us) -> None:
    """A stream with time to spare, one that is overloaded, and four."""
    ended = []

    def make(streams):
        queue = Queue(due_times(gap_us), most_us * US)
        ended.append(queue)
        servers = [OpenServer(stream, queue, number) for number, stream in enumerate(streams)]
        return servers, lambda: {name: getattr(queue, name) for name in COLUMNS}

    assert_same(both(count, make))
    assert [queue.overloaded for queue in ended] == [most_us == 60] * 2


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("count", "gap_us", "wait_us", "most_us"), [(1, 6.0, 0, 10**6), (3, 1.5, 9, 10**6), (1, 1.0, 5, 90)]
)
def test_gatherers_are_the_same(count, gap_us, wait_us, most_us, partial) -> None:
    """What is there at once, batches that wait, and a backlog that ends the point."""
    sizes = []

    def make(streams):
        queue = BatchQueue(due_times(gap_us), most_us * US, Rule(batch=4, max_wait_ns=wait_us * US))
        servers = [BatchServer(stream, queue, number, partial=partial) for number, stream in enumerate(streams)]
        sizes.append((queue, servers))
        return servers, lambda: {name: getattr(queue, name) for name in (*COLUMNS, "ready", "ran_with")}

    assert_same(both(count, make, batch=4))
    (python, ours), (compiled, theirs) = sizes
    assert python.overloaded is compiled.overloaded is (most_us == 90)
    assert [server.sizes for server in ours] == [server.sizes for server in theirs]


def test_a_refused_launch_ends_both_with_the_same_words() -> None:
    words = []
    for compiled in (False, True):
        driver = VirtualDriver()
        driver.failing = 5
        servers = [ClosedServer(virtual_driver.streams_of(driver, SERVICES[:1])[0], 2, Until(0, US * US, US * US, 0))]
        with pytest.raises(RuntimeError) as refused:
            virtual_driver.run_compiled(driver, servers) if compiled else virtual_driver.run_python(servers)
        words.append(str(refused.value))
    assert words == ["enqueue: 719"] * 2


def test_the_compiled_loop_follows_pollaczek_khinchine() -> None:
    """M/D/1 at 60%: a mean wait of rho s / (2 (1 - rho)), here 0.75 services."""
    driver = VirtualDriver()
    (stream,) = virtual_driver.streams_of(driver, [[1000]])
    due = np.cumsum(np.random.default_rng(1).exponential(1000 / 0.6, 20_000)).astype(np.int64)
    queue = Queue(due.tolist(), 10**12)
    virtual_driver.run_compiled(driver, [OpenServer(stream, queue, 0)])
    waits = (np.array(queue.issued) - due) / 1000
    means = waits.reshape(20, -1).mean(axis=1)
    assert abs(means.mean() - 0.75) < 3.9 * means.std(ddof=1) / 20**0.5
    assert means.std(ddof=1) < 0.3


@pytest.mark.parametrize("kind", ["hangs", "waits for an arrival", "runs"])
def test_a_signal_ends_the_compiled_loop_within_100_ms(kind) -> None:
    """In an inference that never ends, in the sleep before an arrival, and between inferences."""
    driver, released = VirtualDriver(), threading.Event()
    if kind == "runs":
        released.set()

    def wait(_event: int) -> int:
        released.wait(10)
        return 0

    (stream,) = virtual_driver.streams_of(driver, [[1]])
    calls = [dataclasses.replace(stream.prepared_calls(), synchronise=driver.address(wait, 1))]
    if kind == "waits for an arrival":
        servers = [OpenServer(stream, Queue([time.perf_counter_ns() + 10**10], 10**10), 0)]
    else:
        servers = [ClosedServer(stream, 1, Until(time.perf_counter_ns(), 10**10, 10**10, 0))]
    sent = []

    def interrupt(*_signal) -> None:
        sent.append(time.perf_counter())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            compiled_loop.run(servers, calls)
        assert time.perf_counter() - sent[0] < 0.1 + 0.2 * (os.getloadavg()[0] > 2)  # a crowded machine wakes late
    finally:
        signal.signal(signal.SIGALRM, before)
        released.set()


class Endless:
    """An end that no compiled code knows."""

    def over(self, now_ns: int, count: int) -> bool:
        return False


def test_python_drives_what_compiled_code_cannot(monkeypatch) -> None:
    """Marks of a profiler, a mix of shapes, ends of another kind, other servers beside, few cores, and no numba."""
    streams = virtual_driver.streams_of(VirtualDriver(), SERVICES[:2])
    until = Until(0, 1, 1, 0)
    servers = [ClosedServer(stream, 1, until) for stream in streams]
    assert compiled_loop.prepared(servers) is not None
    assert compiled_loop.prepared([ClosedServer(streams[0], 1, until, enqueue=streams[0].enqueue)]) is None
    assert compiled_loop.prepared([ClosedServer(streams[0], 1, Endless())]) is None
    assert issue_loops.loop_name(streams, mixed=False) == "python"
    monkeypatch.setenv(compiled_loop.ENABLED, "1")
    assert issue_loops.loop_name(streams, mixed=False) == "compiled"
    assert issue_loops.loop_name(streams, mixed=True) == "python"
    with issue_loops.beside(servers):
        assert issue_loops.loop_name(streams, mixed=False) == "python"
    streams[0].enqueue = streams[0].enqueue  # as a profiler's marks do
    assert compiled_loop.prepared(servers) is None
    del streams[0].enqueue
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    assert compiled_loop.prepared(servers) is None
    assert compiled_loop.prepared(servers[:1]) is not None
    monkeypatch.setattr(compiled_loop, "is_available", lambda: False)
    assert compiled_loop.prepared(servers[:1]) is None

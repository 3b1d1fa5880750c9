"""A steady load beside a measured one: on virtual clocks, on the host's, and what it got in given windows."""

from __future__ import annotations

import time

import pytest
from queues import session

from sweep.backends.clock import RealClock
from sweep.errors import LoadError
from sweep.loadgen import BackgroundLoad, issue_loops
from sweep.loadgen.closed_loop import ClosedServer, Until
from sweep.spec import LoadAxes

SECOND = 1_000_000_000


class Polled:
    """A stream whose inferences take 1 ms, polled by one thread."""

    spins = True
    max_depth = 1

    def __init__(self) -> None:
        self.clock = RealClock()
        self._ends = 0

    def enqueue(self) -> None:
        self._ends = self.clock.now_ns() + 1_000_000

    def poll(self) -> bool:
        return self.clock.now_ns() >= self._ends

    def wait(self) -> None:
        while not self.poll():
            time.sleep(0.0001)


class Broken(Polled):
    """A stream whose device fails after a few inferences."""

    count = 0

    def enqueue(self) -> None:
        self.count += 1
        if self.count > 3:
            raise LoadError("the device is gone")
        super().enqueue()


class Session:
    """One stream on the host's clock."""

    virtual = False

    def __init__(self, stream: Polled, *, spins: bool) -> None:
        stream.spins = spins
        self.streams = [stream]


@pytest.mark.parametrize(
    ("load", "rate", "p50_ms"),
    [
        (LoadAxes(kind="closed", depth=1), 1000.0, 1.0),
        (LoadAxes(kind="closed", depth=3), 1000.0, 3.0),
        (LoadAxes(kind="constant", rates_ips=(100.0, 250.0)), 250.0, 1.0),
        (LoadAxes(kind="constant", rates_ips=(4000.0,), max_wait_s=0.01), 1000.0, pytest.approx(11.0, abs=1.0)),
    ],
)
def test_a_virtual_load_runs_over_the_windows_at_its_highest_rate(load: LoadAxes, rate: float, p50_ms: float) -> None:
    """More than it can serve is dropped after the longest wait, so that it has a steady load all the same."""
    made = BackgroundLoad(session(), load, 1, "mlp")
    made.start()
    made.stop()
    first, second = made.figures([(-1, 0, 5 * SECOND, 6 * SECOND), (0, 0, 7 * SECOND, 9 * SECOND)])
    assert (first["index"], second["index"]) == (-1, 0)
    assert [each["overlap"] for each in (first, second)] == [1.0, 1.0]
    assert first["achieved_ips"] == pytest.approx(rate, rel=0.01)
    assert second["requests"] == pytest.approx(2 * rate, rel=0.01)
    assert first["p50_ms"] == (pytest.approx(p50_ms) if isinstance(p50_ms, float) else p50_ms)


@pytest.mark.parametrize(
    "load", [LoadAxes(kind="closed"), LoadAxes(kind="poisson", rates_ips=(400.0,))], ids=["closed", "poisson"]
)
@pytest.mark.parametrize("spins", [True, False], ids=["one thread for all", "a thread of its own"])
def test_it_runs_beside_a_measured_loop_of_this_process_and_ends_with_it(load: LoadAxes, *, spins: bool) -> None:
    other = Session(Polled(), spins=spins)
    made = BackgroundLoad(other, load, 1, "mlp")
    made.start(one_process=True)
    start = time.perf_counter_ns()
    stream = Polled()
    stream.spins = spins
    until = Until(start, 80_000_000, 80_000_000, 0)
    server = ClosedServer(stream, 1, until)
    issue_loops.run([server], virtual=False)
    end = time.perf_counter_ns()
    made.stop()
    completed = made.completed
    (window,) = made.figures([(-1, 0, start, end)])
    assert 0 < window["requests"] <= completed
    assert 0 < len(server.done) <= 81
    issue_loops.run([ClosedServer(stream, 1, Until(end, 5_000_000, 5_000_000, 0))], virtual=False)
    assert made.completed == completed, "nothing of it is left in the loops of this process"


def test_a_load_that_fails_says_whose_it_is() -> None:
    made = BackgroundLoad(Session(Broken(), spins=False), LoadAxes(kind="closed", depth=1), 1, "mlp-fp16-b8")
    made.start()
    deadline = time.monotonic() + 10
    while made.completed < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    with pytest.raises(LoadError, match="mlp-fp16-b8, beside the measured network: the device is gone"):
        made.stop()


def test_a_load_that_ends_before_a_window_does_not_cover_it() -> None:
    made = BackgroundLoad(Session(Polled(), spins=False), LoadAxes(kind="closed", depth=1), 1, "mlp")
    made.start()
    made.stop()
    now = time.perf_counter_ns()
    (window,) = made.figures([(-1, 0, now, now + SECOND)])
    assert (window["overlap"], window["requests"]) == (0.0, 0)

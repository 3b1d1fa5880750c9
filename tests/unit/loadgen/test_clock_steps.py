"""A monotonic clock that steps within a window: no samples, and no loop that waits for the clock to come round."""

import time

import pytest
import stepped_clocks
from stepped_clocks import CLOCK_MONOTONIC

from sweep.backends import clock as clock_module
from sweep.backends.clock import RealClock
from sweep.errors import LoadError
from sweep.loadgen.load_point import Place, closed_point, open_point
from sweep.spec import LoadAxes

PLACE = Place(index=0, repeat=0, batch=1)
CLOSED = LoadAxes(kind="closed", warmup_s=0.003, min_s=0.03, max_s=0.06, min_requests=10)
OPEN = LoadAxes(kind="constant", warmup_s=0.0, min_s=0.03, max_s=0.06, min_requests=10)
SPARSE = LoadAxes(kind="constant", warmup_s=0.0, min_s=3.0, max_s=3.0, min_requests=2)
STEP_S = 60.0


class Stream:
    """A stream of 100 us on clocks that step once it has run for a while.

    Args:
        clocks: the clocks.
        steps: seconds by which they step, one step an inference from the `first` one on.
        first: number of that inference.
    """

    max_depth = 1

    def __init__(self, clocks, steps, first):
        self.clock = RealClock()
        self._clocks, self._steps, self._left = clocks, list(steps), first

    def enqueue(self):
        self._left -= 1
        if self._left < 0 and self._steps:
            self._clocks.step(self._steps.pop(0), CLOCK_MONOTONIC)

    def wait(self):
        end = time.perf_counter_ns() + 100_000
        while time.perf_counter_ns() < end:
            pass


class Session:
    """One such stream."""

    virtual = False

    def __init__(self, stream):
        self.streams = [stream]


class Time:
    """The module `time` with the stepped clock for its counter."""

    def __init__(self, clocks):
        self.perf_counter_ns, self.sleep = clocks.now_ns, time.sleep


@pytest.fixture
def clocks(monkeypatch):
    stepped = stepped_clocks.install(monkeypatch)
    monkeypatch.setattr(RealClock, "now_ns", staticmethod(stepped.now_ns))
    monkeypatch.setattr(clock_module, "time", Time(stepped))
    return stepped


@pytest.mark.parametrize("measure", ["closed", "open"])
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((STEP_S,), r"jumped by \+60\.\d+ s"),
        ((-STEP_S,), r"jumped by -60\.\d+ s"),
        ((STEP_S, -STEP_S), r"(went back|jumped by \+60)"),  # forward alone ends a closed loop
        ((-STEP_S, STEP_S), "(went back|jumped by -60)"),
        ((0.02,), r"jumped by \+0\.0\d+ s"),
    ],
    ids=["forward", "back", "there and back", "back and there", "20 ms"],
)
def test_a_window_in_which_the_clock_stepped_is_refused(clocks, measure, steps, message):
    """In the warm-up, too, whose loop would else last until the clock has come round."""
    began = time.monotonic()
    first = 20 if steps[0] > 0 else 5
    session = Session(Stream(clocks, steps, first))
    with pytest.raises(LoadError, match=r"the machine's clock \(CLOCK_MONOTONIC\) " + message):
        closed_point(session, CLOSED, PLACE) if measure == "closed" else open_point(session, OPEN, 1000.0, PLACE)
    assert time.monotonic() - began < 3


def test_a_clock_that_runs_is_not_suspected(clocks):
    assert closed_point(Session(Stream(clocks, (), 0)), CLOSED, PLACE).complete
    assert open_point(Session(Stream(clocks, (), 0)), OPEN, 1000.0, PLACE).complete


def test_a_sleep_across_a_step_back_ends_at_once(clocks):
    """Requests that are a second apart: the next one would be due when the clock has come round."""
    began = time.monotonic()
    with pytest.raises(LoadError, match="jumped by -60"):
        open_point(Session(Stream(clocks, (-STEP_S,), 0)), SPARSE, 1.0, PLACE)
    assert time.monotonic() - began < 2.5

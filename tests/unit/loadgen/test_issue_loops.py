"""The first arrival of an open loop on the host's clock."""

import time

from sweep.backends.clock import RealClock
from sweep.loadgen import issue_loops
from sweep.loadgen.load_point import Place, open_point
from sweep.spec import LoadAxes


class Null:
    """A stream that takes no time."""

    max_depth = 1

    def __init__(self) -> None:
        self.clock = RealClock()

    def enqueue(self) -> None:
        pass

    def wait(self) -> None:
        pass


class Session:
    """One such stream on the host's clock."""

    virtual = False

    def __init__(self) -> None:
        self.streams = [Null()]


def test_the_collection_before_a_loop_does_not_delay_the_first_arrivals(monkeypatch) -> None:
    """However long it takes: a process that has loaded onnx and onnxruntime has much to collect."""
    monkeypatch.setattr(issue_loops.gc, "collect", lambda _generation: time.sleep(0.03))
    load = LoadAxes(kind="constant", warmup_s=0.0, min_s=0.05, min_requests=50)
    before = time.perf_counter_ns()
    point = open_point(Session(), load, 1000.0, Place(index=0, repeat=0, batch=1))
    assert (point.issued_ns - point.scheduled_ns)[0] < 15_000_000
    assert before < point.origin_ns < time.perf_counter_ns()  # the host's own clock, which other processes share

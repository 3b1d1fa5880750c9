"""A worker marks variant, stage, point and inference where a profiler is attached, and touches nothing elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sweep.runner.worker import marked_streams
from sweep.runner.worker.events import Events
from sweep.system import nvtx_ranges
from sweep.system.nvtx_ranges import Ranges


class Stream:
    """A stream that refuses a batch of 0."""

    def __init__(self) -> None:
        self.samples: list[int | None] = []

    def enqueue(self, samples: int | None = None) -> None:
        if samples == 0:
            raise RuntimeError
        self.samples.append(samples)


def logged() -> tuple[Ranges, list[str]]:
    log: list[str] = []
    return Ranges(provider="log", push=lambda name: log.append(f"+{name}"), pop=lambda: log.append("-")), log


def test_stages_and_points_are_ranges_that_nest_in_the_variant() -> None:
    ranges, log = logged()
    events = Events()

    def fail() -> None:
        with marked_streams.marked_stages(events, "v", ranges):
            events.stage("build")
            events.stage("build", "half of it", 0.5)
            events.stage("measure", "closed loop")
            events.stage("measure", "100 samples/s")
            events.stage("accuracy")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert log == [
        *("+variant v", "+stage build", "-"),
        *("+stage measure", "+point closed loop", "-", "-"),
        *("+stage measure", "+point 100 samples/s", "-", "-"),
        *("+stage accuracy", "-", "-"),
    ]
    events.stage("load")
    assert log[-1] == "-", "nothing is marked after the variant"


def test_inferences_are_ranges_while_they_are_driven_and_nothing_is_replaced_without_a_profiler() -> None:
    ranges, log = logged()
    session = SimpleNamespace(streams=[Stream(), Stream()])
    with marked_streams.marked_inferences(session, None):
        assert "enqueue" not in vars(session.streams[0])
    with marked_streams.marked_inferences(session, ranges):
        session.streams[0].enqueue()
        session.streams[1].enqueue(3)
        with pytest.raises(RuntimeError):
            session.streams[1].enqueue(0)
    session.streams[0].enqueue()
    assert log == ["+stream 0 inference 0", "-", "+stream 1 inference 0", "-", "+stream 1 inference 1", "-"]
    assert [stream.samples for stream in session.streams] == [[None, None], [3]]
    assert all("enqueue" not in vars(stream) for stream in session.streams)


def test_nvtx_is_loaded_only_below_a_profiler(monkeypatch) -> None:
    loads: list[str] = []
    monkeypatch.setattr(nvtx_ranges, "load_ranges", lambda: loads.append("loaded") or nvtx_ranges.NO_RANGES)
    for name in ("NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID"):
        monkeypatch.delenv(name, raising=False)
    assert nvtx_ranges.attached_ranges() is None
    assert loads == []
    monkeypatch.setenv("NVTX_INJECTION64_PATH", "/opt/injection.so")
    assert nvtx_ranges.attached_ranges() is nvtx_ranges.NO_RANGES
    assert loads == ["loaded"]

"""The campaign of comparisons: its arithmetic and its slowdown, on streams that take no time."""

import argparse
import importlib
import sys
import time

import compare_campaign
import numpy as np
import pytest
import slowdown
from compare_campaign import Outcome
from fake_gpu import FakeEngine, FakeRuntime, installed, library_of

from sweep.backends.onnxruntime import session
from sweep.backends.tensorrt import execution_context, stream
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.spec import SessionAxes


def outcome(kind, exit_code, ratio, verdict):
    row = {"variant": "v b8 s1", "ratio": ratio, "interval": [ratio - 0.01, ratio + 0.01], "verdict": verdict}
    told = int(verdict == "slower")
    return Outcome(
        kind=kind, old="a0", new="a1", exit_code=exit_code, told_apart=told, incomparable=1, rows=3, slowed=[row]
    )


def test_the_table_counts_exit_codes_and_calls() -> None:
    rows = [outcome("equal", 0, 1.0, "not told apart"), outcome("equal", 1, 0.96, "slower")]
    rows += [outcome("3%", 1, 0.97, "slower"), outcome("3%", 0, 0.98, "slower")]
    nothing, three = compare_campaign.table(rows).splitlines()[2:]
    counts = "2 | 1 | 1 | {} of 6, 2 not compared"
    assert nothing == f"| nothing | {counts.format(1)} | - | 0.980 | 0.960 to 1.000 | 0.970 to 0.990 |"
    assert three == f"| 3% slower | {counts.format(2)} | 2 of 2 | 0.975 | 0.970 to 0.980 | 0.965 to 0.985 |"


def test_each_slowdown_is_compared_with_the_equal_measurement_before_it(tmp_path) -> None:
    options = argparse.Namespace(to=tmp_path, count=2, slow_count=1, slowdowns="3,10")
    assert list(compare_campaign.Campaign(options).steps()) == [
        ("a0", 0.0, None),
        ("a1", 0.0, "a0"),
        ("slow3-1", 0.03, "a1"),
        ("slow10-1", 0.1, "a1"),
        ("a2", 0.0, "a1"),
    ]


def test_a_slowed_inference_takes_its_share_longer() -> None:
    extra = slowdown.extra_time(0.5)
    assert extra == pytest.approx(1.0)
    slowed = slowdown.spinning(lambda seconds: time.sleep(seconds) or "answer", extra)
    start = time.perf_counter()
    assert slowed(0.01) == "answer"
    assert time.perf_counter() - start >= 0.02
    calls = []
    launch = slowdown.repeating(lambda: calls.append(1), slowdown.extra_time(0.2))
    for _ in range(100):
        launch()
    assert len(calls) == 125


def test_what_is_blocked_cannot_be_imported(monkeypatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [slowdown.Blocker(["matplotlib"]), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    with pytest.raises(ModuleNotFoundError, match="blocked"):
        importlib.import_module("matplotlib.pyplot")


def test_streams_of_the_batch_alone_are_slowed(monkeypatch) -> None:
    for owner, name in (
        (session.OnnxRuntimeStream, "__init__"),
        (execution_context.ExecutionContext, "__init__"),
        (stream.TensorRTStream, "add"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back at the end
    launched = []

    def start_ort(self, ort_session, feeds) -> None:
        self._run = ort_session

    def start_context(self, engine, cuda, resources, axes, feeds, handle) -> None:  # noqa: PLR0917 - as the original
        stream.TensorRTStream.add(self, None, lambda: launched.append(handle), None)

    def add(_self, _samples, launch, _copies) -> None:
        launch()

    monkeypatch.setattr(session.OnnxRuntimeStream, "__init__", start_ort)
    monkeypatch.setattr(execution_context.ExecutionContext, "__init__", start_context)
    monkeypatch.setattr(stream.TensorRTStream, "add", add)
    slowdown.slow_down(0.5, 8)
    of_batch = {batch: {"x": argparse.Namespace(shape=(batch, 3))} for batch in (1, 8)}
    streams = {batch: session.OnnxRuntimeStream(print, feeds) for batch, feeds in of_batch.items()}
    assert streams[1]._run is print
    assert streams[8]._run is not print
    for batch, feeds in of_batch.items():
        execution_context.ExecutionContext(None, None, None, None, feeds, batch)
    assert launched == [1, 8, 8]


@pytest.mark.parametrize("batch", [2, 3])
def test_a_context_of_the_batch_launches_its_graph_more_often(monkeypatch, batch) -> None:
    """The device does the work of a share of the inferences twice: nothing of it hides behind what is in flight."""
    for owner, name in (
        (session.OnnxRuntimeStream, "__init__"),
        (execution_context.ExecutionContext, "__init__"),
        (stream.TensorRTStream, "add"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    runtime = installed(monkeypatch, FakeRuntime())
    slowdown.slow_down(0.2, batch)
    feeds = {"x": np.zeros((2, 3), np.float32)}
    made = TensorRTSession(
        library_of(FakeEngine(runtime), rtx=True), b"plan", SessionAxes(cuda_graph=True), feeds, None
    )
    runtime.calls.clear()
    for _ in range(20):
        made.streams[0].enqueue()
        made.streams[0].wait()
    assert runtime.calls.count("cudaGraphLaunch") == (25 if batch == 2 else 20)
    assert made.streams[0].take_parts_ms().shape == (20, 4)
    made.close()

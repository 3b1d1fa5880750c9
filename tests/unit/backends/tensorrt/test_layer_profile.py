"""Layers are timed by the kernels of the real inference, or by the library's profiler where these tell no layer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import COMPUTE_MS, EVENT_MS, FakeEngine, FakeRuntime, installed, library_of, with_cupti

from sweep.backends import ProfileLimits
from sweep.backends.tensorrt import kernel_recorder, layer_profile
from sweep.backends.tensorrt.kernel_recorder import Activity
from sweep.backends.tensorrt.layer_profile import LayerKernels, assign, count_kernels, split_inferences
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.spec import SessionAxes

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
LIMITS = ProfileLimits(inferences=7)


@pytest.fixture
def runtime(monkeypatch):
    return installed(monkeypatch, FakeRuntime())


def profiled(runtime, *, graph: bool):
    session = TensorRTSession(library_of(FakeEngine(runtime)), b"plan", SessionAxes(cuda_graph=graph), FEEDS, None)
    try:
        return session.profile_layers(LIMITS)
    finally:
        session.close()
        assert runtime.held == {}


@pytest.mark.parametrize("graph", [False, True])
def test_kernels_are_timed_by_the_gpus_clock(monkeypatch, runtime, graph) -> None:
    cupti = with_cupti(monkeypatch, runtime)
    fields, times = profiled(runtime, graph=graph)
    us = COMPUTE_MS * 1e3
    each = {"median_us": us, "p10_us": us, "p90_us": us, "count": 7}
    assert times == {"scale": {"time": each, "kernels": [{"name": "scale_kernel", "time": each}]}}
    assert fields == {
        "inferences": 7,
        "source": "cupti",
        "cuda_graph": graph,
        "timed_us": us,
        "profiled_us": us,
        "layer_cost_us": None,
        "gaps_us": 0.0,
        "notes": [],
    }
    assert cupti.enabled == set()


def test_without_cupti_the_profiler_times_eager_inferences_and_what_it_adds_is_subtracted(monkeypatch, runtime) -> None:
    monkeypatch.setattr(kernel_recorder, "installed", lambda: False)
    fields, times = profiled(runtime, graph=True)
    assert (fields["source"], fields["cuda_graph"], fields["timed_us"]) == ("library", True, COMPUTE_MS * 1e3)
    assert fields["layer_cost_us"] == pytest.approx(EVENT_MS * 1e3)
    assert times["scale"]["time"]["median_us"] == pytest.approx(COMPUTE_MS * 1e3)
    assert "kernels" not in times["scale"]
    first, cost, eager = fields["notes"]
    assert "cupti-python is not installed; pip install 'sweep[layers]'" in first
    assert "about 4.0 us to each layer" in cost
    assert "eager inferences; the variant replays a CUDA graph" in eager


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda _, cupti: setattr(cupti, "refuses", RuntimeError("CUPTI_ERROR_BUSY")),
            "RuntimeError: CUPTI_ERROR_BUSY",
        ),
        (lambda runtime, _: setattr(runtime, "edges", [(1, 2), (1, 3)]), "runs kernels side by side"),
    ],
)
def test_kernels_that_tell_no_layer_are_said_to(monkeypatch, runtime, spoil, reason) -> None:
    spoil(runtime, with_cupti(monkeypatch, runtime))
    fields, times = profiled(runtime, graph=False)
    assert (fields["source"], list(times)) == ("library", ["scale"])
    assert reason in fields["notes"][0]


def test_layers_that_do_not_fill_the_inference_are_told(monkeypatch, runtime) -> None:
    """Recording itself may take time: here the timed inferences ran before another clock."""
    with_cupti(monkeypatch, runtime)
    monkeypatch.setattr(layer_profile, "_median_us", lambda *_args: 3000.0)
    monkeypatch.setattr(layer_profile, "split_inferences", lambda *_: [[Activity(0, 2_000_000, "kernel", "k", 1)]] * 12)
    fields, _ = profiled(runtime, graph=False)
    assert "add up to 2000.0 us, and an inference takes 3000.0 us" in fields["notes"][0]


def test_gaps_that_recording_made_are_not_those_of_the_inference(monkeypatch, runtime) -> None:
    with_cupti(monkeypatch, runtime)
    monkeypatch.setattr(layer_profile, "_median_us", lambda *_args: 2100.0)
    late = [Activity(0, 1_000_000, "kernel", "k", 1), Activity(1_900_000, 2_900_000, "kernel", "k", 1)]
    monkeypatch.setattr(layer_profile, "split_inferences", lambda *_: [late] * 12)
    both = [LayerKernels("scale", ["kernel", "kernel"])]
    monkeypatch.setattr(layer_profile, "_kernels_of_layers", lambda *_: both)
    fields, _ = profiled(runtime, graph=False)
    assert fields["gaps_us"] == pytest.approx(100.0)
    (note,) = fields["notes"]
    assert "900.0 us between kernels were recorded, and the timed inference leaves 100.0 us" in note


def test_kernels_are_counted_between_the_events_of_each_layer() -> None:
    event, kernel = "EventRecord", "Kernel"
    chain = [event, "Memset", kernel, event, event, event, "Empty", event, kernel, event]
    assert count_kernels(chain, ["a", "b", "c"]) == [
        LayerKernels("a", ["memset", "kernel"]),
        LayerKernels("b", []),
        LayerKernels("c", ["kernel"]),
    ]
    for wrong, names in ((chain, ["a"]), ([event, event, kernel], ["a"])):
        with pytest.raises(layer_profile._UnassignableError):
            count_kernels(wrong, names)


def ran(*parts: tuple[int, int, str]) -> list[Activity]:
    return [Activity(start, end, "kernel", name, 7) for start, end, name in parts]


def test_kernels_go_to_layers_by_their_order_and_what_is_between_them_is_named() -> None:
    """Two inferences of three kernels; the last two overlap by 1 us, which is the earlier one's."""
    first = ran((0, 4000, "a"), (5000, 9000, "b"), (8000, 12000, "b"))
    second = ran((20000, 26000, "a"), (27000, 31000, "b"), (30000, 34000, "b"))
    rounds = split_inferences([*first, *second], 2)
    layers = [LayerKernels("one", ["kernel"]), LayerKernels("none", []), LayerKernels("two", ["kernel", "kernel"])]
    times, gaps_us = assign(rounds, layers)
    assert [time["time"]["median_us"] for time in times.values()] == [5.0, 0.0, 7.0]
    assert [kernel["name"] for kernel in times["two"]["kernels"]] == ["b", "b"]
    assert [kernel["time"]["median_us"] for kernel in times["two"]["kernels"]] == [4.0, 4.0]
    assert gaps_us == 1.0
    with pytest.raises(layer_profile._UnassignableError, match="the layers launch 1 kernels, and 3 kernels ran"):
        assign(rounds, layers[:1])
    for unequal in ([*first, *second[:2]], [*first, *ran((20000, 26000, "x")), *second[1:]], []):
        with pytest.raises(layer_profile._UnassignableError):
            split_inferences(unequal, 2)


def test_the_profilers_layers_keep_the_order_in_which_they_ran_and_parts_add_up(monkeypatch, runtime) -> None:
    rows: list[tuple[str, float]] = []
    spare = SimpleNamespace(
        handle=None,
        eager=lambda: rows.extend([("stem", 0.25), ("block", 0.5), ("stem", 0.25), ("add", 0.125)]),
        buffers=SimpleNamespace(synchronise=lambda: None),
    )
    monkeypatch.setattr(layer_profile, "_attach", lambda library, context: SimpleNamespace(rows=rows))
    monkeypatch.setattr(layer_profile, "_median_us", lambda *_: 1200.0)
    fields = {"inferences": 7, "timed_us": 1200.0, "cuda_graph": False, "notes": []}
    times = layer_profile._by_profiler(None, None, spare, fields)
    assert [(name, item["time"]["median_us"]) for name, item in times.items()] == [
        ("stem", 500.0),
        ("block", 500.0),
        ("add", 125.0),
    ]

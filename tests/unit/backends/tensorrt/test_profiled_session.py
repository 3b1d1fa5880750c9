"""One engine that serves several shapes on a pretended GPU: contexts, switches of profile, graphs and their memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_gpu import (
    COMPUTE_MS,
    CONTEXT_BYTES,
    GRAPH_BYTES,
    POOL_BYTES,
    PROFILE_MS,
    FakeEngine,
    FakeRuntime,
    installed,
    library_of,
)

from sweep.backends.tensorrt import engine_inspector
from sweep.backends.tensorrt.profiled_session import ProfiledSession
from sweep.errors import SessionError
from sweep.loadgen import shape_switch
from sweep.runner.worker.shaped_session import PolledShapedStream
from sweep.spec import Dimension, EngineAxes, ModelRef, OnnxAxes, Precision, SessionAxes, ShapeProfiles, Variant

SIZES = (3, 4, 6)
FEEDS = [{"x": np.arange(2 * size, dtype=np.float32).reshape(2, size) + size} for size in SIZES]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    return installed(monkeypatch, FakeRuntime())


def profiles(way: str) -> ShapeProfiles:
    shapes = tuple((Dimension(name="w", size=size),) for size in SIZES)
    return ShapeProfiles(way=way, shapes=shapes, best=shapes[-1] if way == "range" else None)


def opened(runtime: FakeRuntime, way: str, **axes: Any) -> tuple[ProfiledSession, FakeEngine]:
    engine = FakeEngine(runtime)
    limits = [((2, 3), (2, 6))] if way == "range" else [((2, size), (2, size)) for size in SIZES]
    engine.profiles = tuple(limits)
    library = library_of(engine)
    return ProfiledSession(library, b"plan", SessionAxes(**axes), FEEDS, None, profiles(way)), engine


WAYS = [  # way, switches, streams, contexts of the library
    ("range", None, 1, 1),
    ("range", None, 2, 2),
    ("per_shape", None, 1, 3),
    ("per_shape", None, 2, 6),
    ("per_shape", True, 2, 2),
]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("way", "switches", "streams", "contexts"), WAYS)
def test_every_shape_is_computed_on_every_stream_whatever_ran_before(
    runtime: FakeRuntime, way: str, switches: Any, streams: int, contexts: int, graph: Any
) -> None:
    graph = graph and not switches  # the backend refuses the pair
    session, engine = opened(runtime, way, profile_switch=switches, streams=streams, cuda_graph=graph)
    views = session.views()
    assert len(views) == len(SIZES)
    assert views[-1] is session
    for place in (0, 2, 2, 1, 0):
        for number in range(streams):
            session.poison()
            stream = views[place].streams[number]
            stream.enqueue()
            stream.wait()
            assert np.array_equal(views[place].outputs_of(number)["y"], FEEDS[place]["x"] * 2), (place, number)
    again = views[0].infer({"x": FEEDS[0]["x"] + 1})["y"]
    assert np.array_equal(again, (FEEDS[0]["x"] + 1) * 2)
    assert session.realised["contexts"] == engine.contexts == contexts
    axes = EngineAxes(batch=2, profiles=profiles(way))
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    asked = SessionAxes(streams=streams, cuda_graph=graph, profile_switch=switches)
    variant = Variant(backend="tensorrt_rtx", onnx=onnx, engine=axes, session=asked)
    assert engine_inspector.mismatch(variant, {**session.realised, "precision": {"fp32": 1}}) is None
    fewer = {**session.realised, "contexts": contexts - 1, "precision": {"fp32": 1}}
    assert f"found {contexts - 1} contexts" in str(engine_inspector.mismatch(variant, fewer))
    assert session.engine_facts.get("profiles") == (3 if way == "per_shape" else None)
    session.close()
    assert session.engine_facts["memory"]["contexts_bytes"] == contexts * CONTEXT_BYTES
    assert runtime.held == {}


@pytest.mark.parametrize("way", ["range", "per_shape"])
def test_the_graphs_of_each_shape_are_counted_with_their_memory(runtime: FakeRuntime, way: str) -> None:
    session, _ = opened(runtime, way, streams=2, cuda_graph=True)
    each = {"count": 2, "nodes": 2, "memory_bytes": 2 * GRAPH_BYTES, "pool_bytes": 2 * POOL_BYTES}
    assert session.engine_facts["graphs"] == {name: 3 * value for name, value in each.items()}
    facts = [session.facts_of(place) for place in range(3)]
    assert [own["graphs"] for own in facts] == [each] * 3
    assert session.shape_facts["graphs"] == each
    memory = [1000, 1000, 1000] if way == "range" else [1000, 2000, 3000]
    assert [own["context_memory_bytes"] for own in facts] == memory
    assert all(own["first_run_ms"] > 0 for own in facts)
    session.close()


@pytest.mark.parametrize(("way", "switches", "added_ms"), [("per_shape", True, PROFILE_MS), ("per_shape", None, 0.0)])
def test_a_switch_of_the_profile_is_found_by_the_devices_clock(
    runtime: FakeRuntime, way: str, switches: Any, added_ms: float
) -> None:
    session, _ = opened(runtime, way, profile_switch=switches)
    stream = PolledShapedStream([view.streams[0] for view in session.views()])

    class Load:
        streams = (stream,)

    for row in shape_switch.measure(Load, 3):  # type: ignore[arg-type]  # it has the streams of a session
        assert row["gpu_stay_ms"] == pytest.approx(COMPUTE_MS)
        assert row["gpu_change_ms"] - row["gpu_stay_ms"] == pytest.approx(added_ms, abs=1e-4)
        assert row["enqueue_change_ms"] > 0
        assert row["enqueue_stay_ms"] > 0
    session.close()


def test_an_engine_with_other_profiles_is_refused(runtime: FakeRuntime) -> None:
    engine = FakeEngine(runtime)
    engine.profiles = (((2, 3), (2, 6)),)
    with pytest.raises(SessionError, match="has 1 optimization profiles, and 3 were built"):
        ProfiledSession(library_of(engine), b"plan", SessionAxes(), FEEDS, None, profiles("per_shape"))
    assert runtime.held == {}

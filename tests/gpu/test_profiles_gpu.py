"""Several shapes on one engine on a real GPU: right at every shape, captured or not, switched or not; and costs."""

import dataclasses

import factories
import numpy as np
import passes
import pytest
import require

from sweep import models
from sweep.backends import registry
from sweep.backends.tensorrt import library
from sweep.loadgen import shape_switch
from sweep.runner.worker import artifacts, model_files, shaped_session
from sweep.runner.worker.shaped_session import PolledShapedStream
from sweep.spec import Dimension, EngineAxes, LoadAxes, SessionAxes, ShapeMix, ShapeProfiles, ShapeShare
from sweep.storage.cache import Cache

pytestmark = pytest.mark.gpu

SHAPES = tuple((Dimension(name="h", size=size), Dimension(name="w", size=size)) for size in (16, 32, 64))
LOAD = LoadAxes(kind="closed", shapes=ShapeMix(entries=tuple(ShapeShare(shape=shape, share=1 / 3) for shape in SHAPES)))
WAYS = [  # way, switches, contexts of a stream
    ("range", None, 1),
    ("per_shape", None, 3),
    ("per_shape", True, 1),
]


@pytest.fixture(params=library.NAMES)
def backend(request):
    require.gpu_for(request.param)
    return registry.get(request.param)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def asked(backend, way, switches, **session):
    profiles = ShapeProfiles(way=way, shapes=SHAPES, best=SHAPES[-1] if way == "range" else None)
    plain = factories.variant("unet", factories.recipe("fp16"), backend.name, batch=2)
    model = dataclasses.replace(plain.onnx.model, shape=SHAPES[-1], open_dimensions=("h", "w"))
    return dataclasses.replace(
        plain,
        onnx=dataclasses.replace(plain.onnx, model=model),
        engine=EngineAxes(batch=2, profiles=profiles),
        session=SessionAxes(profile_switch=switches, **session),
        load=LOAD,
    )


def views_of(backend, variant, cache):
    entry = artifacts.build_engine(variant, backend, passes.typed_file(variant, cache), cache)
    feeds = [
        models.draw(models.signature(each.onnx.model), 2, 0) for each in shaped_session.variants_at_shapes(variant)
    ]
    return backend.load_shapes(entry.path, entry.info, variant, feeds), feeds


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("way", "switches", "contexts"), WAYS)
def test_every_shape_is_right_whatever_ran_before(backend, cache, way, switches, contexts, graph) -> None:
    if switches and graph:
        variant = asked(backend, way, switches, cuda_graph=True)
        assert "captures no CUDA graph" in backend.unsupported(variant)
        return
    variant = asked(backend, way, switches, cuda_graph=graph, streams=2)
    views, feeds = views_of(backend, variant, cache)
    owner = views[-1]
    assert owner.realised["contexts"] == 2 * contexts
    assert backend.mismatch(variant, owner.realised) is None
    reference = model_files.model_file(variant, cache)
    for place in (0, 2, 1, 1, 0, 2):
        for number in (0, 1):
            owner.poison()
            views[place].streams[number].enqueue()
            views[place].streams[number].wait()
            judged = passes.against_fp32(reference, feeds[place], views[place].outputs_of(number))
            assert judged["nonfinite"] == 0
            assert judged["sqnr_db"] > 28, (place, number, judged)
    owner.close()
    print(way, switches, graph, owner.engine_facts)  # noqa: T201 - the figures are worth a look
    assert owner.engine_facts["memory"]["run_allocations"] == 0
    assert owner.engine_facts.get("graphs", {}).get("count") == (6 if graph else None)


def test_a_static_engine_and_a_profile_give_the_same_outputs_at_a_shape(backend, cache) -> None:
    """Not bit for bit: the builder chooses tactics anew."""
    variant = asked(backend, "per_shape", None)
    views, feeds = views_of(backend, variant, cache)
    for view, own, each in zip(views, feeds, shaped_session.variants_at_shapes(variant), strict=True):
        model = dataclasses.replace(each.onnx.model, open_dimensions=None)
        static = dataclasses.replace(
            each, onnx=dataclasses.replace(each.onnx, model=model), engine=EngineAxes(batch=2), load=LoadAxes()
        )
        entry = artifacts.build_engine(static, backend, passes.typed_file(static, cache), cache)
        session = backend.load(entry.path, entry.info, static, own)
        session.streams[0].enqueue()
        session.streams[0].wait()
        view.streams[0].enqueue()
        view.streams[0].wait()
        for name, value in session.outputs().items():
            assert np.allclose(value, view.outputs()[name], rtol=0.1, atol=0.1), name
        session.close()
    views[-1].close()


def test_what_a_change_costs_is_measured_on_events(backend, cache) -> None:
    for way, switches, _ in WAYS:
        views, _ = views_of(backend, asked(backend, way, switches), cache)

        class Load:
            streams = (PolledShapedStream([view.streams[0] for view in views]),)

        for row in shape_switch.measure(Load, len(SHAPES)):
            print(way, switches, row)  # noqa: T201
            assert 0 < row["gpu_stay_ms"] < row["stay_ms"]
            assert 0 < row["gpu_change_ms"] < row["change_ms"]
            assert 0 < row["enqueue_change_ms"] < row["change_ms"]
        views[-1].close()

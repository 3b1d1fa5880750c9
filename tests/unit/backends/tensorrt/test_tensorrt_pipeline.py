"""A pipeline's every path on a pretended GPU, whose networks compute y = 2 x."""

import numpy as np
import pytest
from fake_gpu import COMPUTE_MS, COPY_MS, INVALIDATED, FakeEngine, FakeRuntime, installed, library_of

from sweep.backends.base import PipelinePart
from sweep.backends.host_steps import HOST_STEPS, Call
from sweep.backends.tensorrt.pipeline import TensorRTPipelineSession
from sweep.errors import SessionError, UnsupportedError
from sweep.spec import EngineAxes, Link, ModelRef, OnnxAxes, Pipeline, Precision, SessionAxes, Stage, Variant

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
INFO = {"precision": {"fp32": 1}, "evidence": "inspector", "tf32": False}


@pytest.fixture
def runtime(monkeypatch):
    return installed(monkeypatch, FakeRuntime())


def network(name, x, y, **settings) -> Stage:
    links = {"inputs": (Link(port="x", tensor=x),), "outputs": (Link(port="y", tensor=y),)}
    return Stage(name=name, model=ModelRef(name=name), **links, **settings)


def variant_of(stages, outputs, *, overlap=None, **axes) -> Variant:
    return Variant(
        backend="tensorrt_rtx",
        onnx=OnnxAxes(model=ModelRef(name="p"), precision=Precision(name="fp32", dtype="fp32")),
        engine=EngineAxes(batch=2),
        session=SessionAxes(**axes),
        pipeline=Pipeline(name="p", stages=tuple(stages), outputs=outputs, overlap=overlap),
    )


def session(runtime, variant, tmp_path, externals, feeds=FEEDS, engine=None) -> TensorRTPipelineSession:
    parts = []
    for stage in variant.pipeline.stages:
        own = {"engine": tmp_path / "engines" / stage.name, "info": INFO, "feeds": feeds, "row_inputs": frozenset("x")}
        parts.append(PipelinePart(stage=stage, variant=variant, **(own if stage.model else {})))
    plans = [None if stage.host else b"plan" for stage in variant.pipeline.stages]
    return TensorRTPipelineSession(library_of(engine or FakeEngine(runtime)), plans, parts, variant, externals)


LOOP = (
    network("encoder", "a", "b"),
    network("unet", "sample", "noise", loop=1, count=3),
    Stage(
        name="step",
        host="euler_step",
        loop=1,
        count=3,
        inputs=(Link(port="sample", tensor="sample"), Link(port="noise", tensor="noise")),
        outputs=(Link(port="sample", tensor="sample"),),
    ),
    network("vae", "sample", "image"),
)
EXTERNALS = {"a": FEEDS["x"], "sample": FEEDS["x"] + 1}


@pytest.mark.parametrize("overlap", [None, True])
@pytest.mark.parametrize("graph", [False, True])
def test_tensors_stay_on_the_device_and_each_stage_is_timed(runtime, tmp_path, graph, overlap) -> None:
    variant = variant_of(LOOP, ("image", "b"), overlap=overlap, streams=2, cuda_graph=graph)
    made = session(runtime, variant, tmp_path, EXTERNALS)
    sample = EXTERNALS["sample"]
    for run in range(3):
        call = Call(run=run, count=3, batch=2)
        sample = HOST_STEPS["euler_step"].run({"sample": sample, "noise": 2 * sample}, call)["sample"]
    for number, stream in enumerate(made.streams):
        stream.poison()
        before = len(runtime.calls)
        stream.enqueue()
        stream.wait()
        copies = runtime.calls[before:].count("cudaMemcpyAsync")
        assert copies == 2 + 3 * (2 + 1) + 2, "inputs, host step, outputs: none between engines"
        outputs = made.outputs_of(number)
        assert np.array_equal(outputs["image"], 2 * sample)
        assert np.array_equal(outputs["b"], 2 * FEEDS["x"])
        row = stream.take_parts_ms()[0]
        step = 3 * 3 * COPY_MS
        assert row[[4, 5, 6, 7]] == pytest.approx([COMPUTE_MS, 3 * COMPUTE_MS, step, COMPUTE_MS])
        assert row[[0, 2]] == pytest.approx([2 * COPY_MS, 2 * COPY_MS])
        if overlap is None:
            assert row[1] == pytest.approx(row[4:].sum()), "the borders leave nothing out"
        else:
            assert row[1] >= row[4:].sum() - 1e-4, "a stage may be in use by the other stream"
    assert ("cudaGraphLaunch" in runtime.calls) == graph
    assert set(made.realised["stages"]) == {"encoder", "unet", "vae"}
    other = made.infer({"a": FEEDS["x"], "sample": FEEDS["x"] * 0})
    assert not other["image"].any()
    made.close()
    assert runtime.held == {}, "nothing is left on the device"


def test_rows_that_are_drawn_run_in_slices(runtime, tmp_path) -> None:
    feeds = {"x": np.zeros((2, 2, 32, 128), np.float32)}
    crops = Stage(
        name="crop_boxes",
        host="crop_boxes",
        rows=3.0,
        most_rows=5,
        inputs=(Link(port="image", tensor="image"), Link(port="scores", tensor="scores")),
        outputs=(Link(port="crops", tensor="crops"),),
    )
    variant = variant_of((crops, network("recogniser", "crops", "y")), ("crops", "y"))
    rng = np.random.default_rng(0)
    externals = {
        "image": rng.random((2, 2, 40, 130), np.float32),
        "scores": rng.random((2, 1, 5, 5), np.float32),
    }
    made = session(runtime, variant, tmp_path, externals, feeds)
    (stream,) = made.streams
    counts = []
    for _ in range(12):
        stream.enqueue()
        stream.wait()
        outputs = made.outputs()
        counts.append(len(outputs["y"]))
        assert np.array_equal(outputs["y"], 2 * outputs["crops"])
        recogniser = stream.take_parts_ms()[0][5]
        slices = -(-counts[-1] // 2)
        assert recogniser == pytest.approx(slices * COMPUTE_MS + 2 * slices * COPY_MS)
    assert len(set(counts)) > 1
    assert len(made.infer(externals)["y"]) == counts[0], "the rows of the first request again"
    made.close()
    assert runtime.held == {}


def test_a_stage_that_fails_names_itself_and_leaves_nothing(runtime, tmp_path) -> None:
    variant = variant_of(LOOP, ("image",), cuda_graph=True)
    runtime.fails["cudaStreamEndCapture"] = INVALIDATED
    with pytest.raises(UnsupportedError, match=r"stage encoder: cuda_graph=true: the capture failed"):
        session(runtime, variant, tmp_path, EXTERNALS)
    assert runtime.held == {}
    runtime.fails.clear()
    with pytest.raises(SessionError, match=r"stage encoder: input x is rowsx3, and tensor a is rowsx4; map a tensor"):
        session(runtime, variant, tmp_path, {**EXTERNALS, "a": np.zeros((2, 4), np.float32)})
    with pytest.raises(SessionError, match=r"stage encoder: input x is float32, and tensor a is int64; map a tensor"):
        session(runtime, variant, tmp_path, {**EXTERNALS, "a": np.zeros((2, 3), np.int64)})
    assert runtime.held == {}
    made = session(runtime, variant_of(LOOP, ("image",)), tmp_path, EXTERNALS)
    made.streams[0]._steps[1] = lambda _run, _drawn: 1 / 0
    with pytest.raises(SessionError, match="stage unet: division by zero"):
        made.streams[0].enqueue()
    made.close()

"""A pipeline on onnxruntime and on the simulated backend, from a config to the samples."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from factories import config

from sweep.analysis import stage_summary
from sweep.backends import registry
from sweep.backends.host_steps import HOST_STEPS, Call
from sweep.backends.onnxruntime.pipeline import _check_fit
from sweep.config import variants
from sweep.errors import SessionError
from sweep.loadgen import load_curve
from sweep.runner.messages import Request
from sweep.runner.worker import pipeline_pass
from sweep.runner.worker.events import Events
from sweep.runner.worker.measure import measure
from sweep.storage import samples_file
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

SHORT = {
    "load__kind": "closed",
    "load__min_s": 0.05,
    "load__warmup_s": 0.02,
    "load__max_s": 0.3,
    "load__min_requests": 5,
}
SD, OCR = {"name": "sd_tiny"}, {"name": "ocr_tiny"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def variant_of(pipeline: dict[str, Any], **values: Any) -> Any:
    values = {"backend__name": "onnxruntime", **SHORT, **values}
    return variants.from_config(config(pipeline=pipeline, **values))


def loaded(variant: Any, root: Path) -> tuple[Any, list[pipeline_pass.BuiltStage], dict[str, np.ndarray]]:
    backend = registry.get(variant.backend)
    with Cache(root) as cache:
        built = [
            pipeline_pass._build(variant, stage, backend, cache, Events(), None) for stage in variant.pipeline.stages
        ]
    externals = pipeline_pass.draw_externals(built, variant)
    return backend.load_pipeline([item.part(variant.load.seed) for item in built], variant, externals), built, externals


def engine(item: pipeline_pass.BuiltStage) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(item.artifacts.engine.path / "optimised.onnx", options)


@pytest.mark.parametrize("overlap", [None, True])
def test_the_outputs_are_bit_for_bit_those_of_the_sessions_run_by_hand(overlap: Any, root: Path) -> None:
    session, built, externals = loaded(variant_of({**SD, "overlap": overlap}, batch=2, streams=2), root)
    encoder, unet, vae = (engine(built[number]) for number in (0, 2, 4))
    sample = externals["sample"]
    (text,) = encoder.run(None, {"input_ids": externals["input_ids"]})
    for run in range(4):
        call = Call(run=run, count=4, batch=2)
        features = HOST_STEPS["time_features"].run({}, call)["time_features"]
        (noise,) = unet.run(None, {"sample": sample, "time_features": features, "text": text})
        sample = HOST_STEPS["ddim_step"].run({"sample": sample, "noise": noise}, call)["sample"]
    (image,) = vae.run(None, {"latents": sample})
    threads = [threading.Thread(target=stream.enqueue) for stream in session.streams for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    for number in range(2):
        assert session.outputs_of(number)["image"].tobytes() == image.tobytes()
    other = session.infer({**externals, "sample": externals["sample"] + 1})
    assert other["image"].tobytes() != image.tobytes()
    assert session.infer(externals)["image"].tobytes() == image.tobytes()
    session.close()


def test_rows_that_are_drawn_run_in_slices_of_the_batch(root: Path) -> None:
    session, built, externals = loaded(variant_of(OCR), root)
    recogniser, (stream,) = engine(built[2]), session.streams
    counts = []
    for _ in range(8):
        stream.enqueue()
        outputs = session.outputs()
        crops = stream._arrays["crops"][: len(outputs["logits"])]
        counts.append(len(crops))
        padded = np.concatenate([crops, np.zeros((-len(crops) % 4, *crops.shape[1:]), np.float32)])
        by_hand = [recogniser.run(None, {"x": padded[start : start + 4]})[0] for start in range(0, len(padded), 4)]
        assert outputs["logits"].tobytes() == np.concatenate(by_hand)[: len(crops)].tobytes()
        assert np.array_equal(outputs["text"], outputs["logits"].argmax(-1))
    assert min(counts) >= 1
    assert max(counts) > 4, "several slices"
    assert len(session.infer(externals)["text"]) == counts[0]
    session.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_pass_times_the_stages_and_compares_end_to_end(precision: str, root: Path, tmp_path: Path) -> None:
    recipe = {"precision__name": precision, "precision__dtype": precision}
    variant = variant_of({**SD, "vae": {"precision": "fp32"}}, **recipe)
    result = measure(Request(variant=variant, cache=root, samples=tmp_path / "s.npz"), Events())
    accuracy = result.accuracy
    assert accuracy is not None
    assert accuracy["reference"].startswith("onnxruntime fp32, all stages")
    assert accuracy["sqnr_db"] is None if precision == "fp32" else 30 < accuracy["sqnr_db"] < 90
    assert accuracy["again"]["identical"]
    assert result.mismatch is None
    assert [item["precision"] for item in result.engine["stages"]] == [precision, precision, "fp32"]
    assert result.engine["bytes"] == sum(item["bytes"] for item in result.engine["stages"])
    assert result.model["parameters"] == 5_073 + 132_960 + 32_147
    (point,) = samples_file.load(tmp_path / "s.npz")
    assert point.gpu_compute_ms is None, "a CPU times no device"
    total = point.stage_ms[point.measured].sum(axis=1)
    assert (total <= point.latency_ms + 1e-3).all()
    figures = stage_summary.staged([point], variant.pipeline)
    rest = figures["stage_rest"]
    parts = sum(item["latency_ms"]["mean"] for item in figures["stages"]) + sum(rest.values())
    assert parts == pytest.approx(point.latency_ms.mean())
    assert [item["runs"] for item in figures["stages"]] == [1, 4, 4, 4, 1]
    assert rest["queue_ms"] == rest["copies_ms"] == 0


def failing(arrays: Any, call: Call) -> Any:
    raise ValueError("no such box")


def test_a_stage_that_fails_or_does_not_fit_names_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, *_ = loaded(variant_of(OCR), root)
    monkeypatch.setattr(session.streams[0], "_steps", [failing] * 4)
    with pytest.raises(SessionError, match=r"^stage detector: no such box$"):
        session.streams[0].enqueue()
    crossed = {"stages": ["digits", "mlp"], "mlp": {"inputs": {"x": "logits"}}}
    with pytest.raises(SessionError, match=r"^stage mlp: input x is rowsx784, and tensor logits is rowsx10; map"):
        loaded(variant_of(crossed), root)
    feed = session.streams[0]._parts[2].feeds["x"]
    with pytest.raises(SessionError, match=r"input x is float32, and tensor t is int64; map a tensor that fits"):
        _check_fit("x", feed, "t", feed.astype(np.int64), by_row=True)


SCRIPT = {
    "stages": ["tiny_cnn", {"loop": 3, "stages": ["mlp", "digits"]}],
    "tiny_cnn": {"service_us": 40},
    "mlp": {"service_us": 100},
    "digits": {"service_us": 7},
}


@pytest.mark.parametrize(
    ("overlap", "depth", "latency_us"),
    [
        (None, 1, 40 + 3 * 107),
        (None, 3, 3 * (40 + 3 * 107)),  # requests follow each other
        (True, 1, 40 + 3 * 107),
    ],
)
def test_scripted_times_of_stages_are_found_exactly(overlap: Any, depth: int, latency_us: int) -> None:
    variant = variant_of({**SCRIPT, "overlap": overlap}, backend__name="simulated", load__depth=depth)
    session = registry.get("simulated").load_pipeline([], variant, {})
    (point,) = load_curve.measure(session, variant.load, batch=1)
    assert np.allclose(point.latency_ms[depth:], latency_us / 1e3)
    assert np.allclose(point.stage_ms[point.measured], [0.040, 0.300, 0.021])
    rest = stage_summary.staged([point], variant.pipeline)["stage_rest"]
    assert rest["other_ms"] == pytest.approx(point.latency_ms.mean() - 0.361, abs=1e-6)


def test_stages_that_overlap_serve_as_fast_as_the_slowest_one_and_its_streams_double_that() -> None:
    stages = {"stages": ["tiny_cnn", "mlp"], "tiny_cnn": {"service_us": 50}, "mlp": {"service_us": 200}}
    rates = {}
    for name, own in {"in order": {}, "overlap": {"overlap": True}, "two": {"overlap": True, "streams": 2}}.items():
        mlp = {**stages["mlp"], **({"streams": own["streams"]} if "streams" in own else {})}
        table = {**stages, "mlp": mlp, "overlap": own.get("overlap")}
        variant = variant_of(table, backend__name="simulated", load__depth=8)
        session = registry.get("simulated").load_pipeline([], variant, {})
        (point,) = load_curve.measure(session, variant.load, batch=1)
        done = np.sort(point.done_ns[point.measured])
        rates[name] = (len(done) - 1) / (done[-1] - done[0]) * 1e9
    assert rates["in order"] == pytest.approx(1e6 / 250, rel=1e-3)
    assert rates["overlap"] == pytest.approx(1e6 / 200, rel=1e-3)
    assert rates["two"] == pytest.approx(1e6 / 100, rel=1e-2)


def test_the_simulated_recogniser_runs_once_for_each_slice_of_the_drawn_rows() -> None:
    table = {**OCR, "recogniser": {"service_us": 10}, "detector": {"service_us": 5}, "crop_boxes": {"service_us": 1}}
    variant = variant_of(table, backend__name="simulated")
    session = registry.get("simulated").load_pipeline([], variant, {})
    (point,) = load_curve.measure(session, variant.load, batch=1)
    times = point.stage_ms[:, 2]
    assert set(np.round(times * 1e3).astype(int)) == {10, 20}, "1 to 8 rows, 4 at a time"

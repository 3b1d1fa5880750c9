"""The labelled network: its data, its score in fp32, and the score of what was timed in each precision."""

import io
import json
from pathlib import Path
from typing import Any

import factories
import numpy as np
import passes
import pytest
from rich.console import Console

from sweep import models, spec
from sweep.backends import registry
from sweep.models.zoo import digits
from sweep.report import html, table
from sweep.report.mlflow import record_mapping
from sweep.report.ranking import answer
from sweep.runner.worker import artifacts, model_files, reference, scoring
from sweep.spec import InputFix, LoadAxes, ModelRef, Variant
from sweep.storage.cache import Cache
from sweep.storage.record import Record

REF = ModelRef(name="digits", revision=models.zoo.entry("digits").revision)
QUICK = LoadAxes(kind="closed", warmup_s=0.02, min_s=0.05, min_requests=20, max_s=0.5)
RECIPES: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "fp32"},
    "fp16": {"dtype": "fp16"},
    "bf16": {"dtype": "bf16"},
    "int8": {"dtype": "int8", "quantize_ops": ("Conv", "Gemm"), "calibration_batches": 8},
    "fp8": {"dtype": "fp8", "quantize_ops": ("Conv", "Gemm"), "calibration_batches": 8},
}


def variant(precision: str = "fp32", batch: int = 32, model: ModelRef = REF) -> Variant:
    return factories.variant(model, factories.recipe(precision, **RECIPES[precision]), batch=batch, load=QUICK)


def measured(asked: Variant, folder: Path) -> dict[str, Any]:
    return passes.measured(asked, folder)


def record(asked: Variant, found: dict[str, Any]) -> Record:
    return Record(
        key=spec.variant_key(asked),
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        variant=spec.flat(asked),
        **{name: found[name] for name in ("model", "engine", "realised", "accuracy")},
    )


def test_the_data_is_whole_and_held_out_images_are_no_training_images() -> None:
    training, held = digits.DATA.training(), digits.DATA.held_out()
    assert (len(training.labels), len(held.labels)) == (1200, 597)
    for part in (training, held):
        assert part.inputs["x"].shape == (len(part.labels), 1, 8, 8)
        assert part.inputs["x"].dtype == np.float32
        assert (part.inputs["x"].min(), part.inputs["x"].max()) == (0, 1)
        assert set(part.labels) == set(range(10))
    seen = {image.tobytes() for image in training.inputs["x"]}
    assert not any(image.tobytes() in seen for image in held.inputs["x"])


def test_batches_hold_every_sample_once_and_the_last_is_filled_up() -> None:
    held = digits.DATA.held_out()
    batches = list(held.batches(64))
    assert all(feeds["x"].shape == (64, 1, 8, 8) for feeds, _ in batches)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), held.labels)
    rows = np.concatenate([feeds["x"] for feeds, _ in batches])
    np.testing.assert_array_equal(rows[: len(held.labels)], held.inputs["x"])


def test_what_is_timed_is_held_out_and_what_calibrates_is_not() -> None:
    training = {image.tobytes() for image in digits.DATA.training().inputs["x"]}
    timed, more = models.feeds(REF, 4, 3)["x"], models.feeds(REF, 9, 3)["x"]
    np.testing.assert_array_equal(more[:4], timed)
    assert not any(image.tobytes() in training for image in more)
    batches = models.calibration(REF, 8, 3)
    assert [batch["x"].shape for batch in batches] == [(8, 1, 8, 8)] * 3
    assert all(image.tobytes() in training for batch in batches for image in batch["x"])
    fixed = ModelRef(name="digits", inputs=(InputFix(name="x", low=-1.0),))
    assert models.held_out(fixed) is None, "inputs of one's own have no labels"


def test_the_score_counts_answers_and_nothing_else() -> None:
    held = digits.DATA.held_out()
    by_image = {image.tobytes(): label for image, label in zip(held.inputs["x"], held.labels, strict=True)}

    def oracle(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.eye(10, dtype=np.float32)[[by_image[image.tobytes()] for image in feeds["x"]]]}

    assert scoring.score(held, 50, oracle) == 1
    assert scoring.score(held, 50, lambda feeds: {"logits": 1 - oracle(feeds)["logits"]}) < 0.2
    assert scoring.score(held, 50, lambda feeds: {"logits": oracle(feeds)["logits"] * np.nan}) == 0
    always = scoring.score(held, 7, lambda feeds: {"logits": np.eye(10)[np.zeros(len(feeds["x"]), int)]})
    assert always == np.mean(held.labels == 0)


@pytest.mark.parametrize("precision", RECIPES)
def test_each_precision_is_scored_from_what_was_timed(precision: str, tmp_path: Path) -> None:
    found = measured(variant(precision), tmp_path)
    assert found["mismatch"] is None
    scored = found["accuracy"]
    assert scored["scored_on"] == "597 held-out images of scikit-learn's digits"
    assert scored["reference_score"] > 0.95
    assert abs(scored["score"] - scored["reference_score"]) < (0.05 if precision == "fp8" else 0.02)
    assert scored["score"] == scored["reference_score"] or precision != "fp32"
    assert found["model"]["parameters"] == models.zoo.entry("digits").parameters
    assert json.loads(json.dumps(found)) == found


def test_a_session_takes_other_inputs_and_gives_what_the_graph_gives(tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path), variant(batch=5)
    backend = registry.get(asked.backend)
    source = model_files.model_file(asked, cache)
    engine = artifacts.build_engine(asked, backend, source, cache)
    first, second = models.feeds(REF, 5, 0), models.feeds(REF, 5, 1)
    session = backend.load(engine.path, engine.info, asked, first)
    before = session.outputs()["logits"]
    np.testing.assert_allclose(session.infer(second)["logits"], reference.run(source, second)["logits"], atol=1e-5)
    assert not np.allclose(before, session.outputs()["logits"])
    np.testing.assert_array_equal(session.infer(first)["logits"], before)


def test_an_engine_of_a_damaged_network_scores_what_it_deserves(tmp_path: Path) -> None:
    """The score is the session's: with other weights in the engine it falls, while that of fp32 stands."""
    cache, asked = Cache(tmp_path), variant()
    source = model_files.model_file(asked, cache)
    backend = registry.get(asked.backend)
    entry = artifacts.build_engine(asked, backend, source, cache)
    (file,) = entry.path.glob("*.onnx")
    import onnx

    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.raw_data:
            tensor.raw_data = np.zeros_like(onnx.numpy_helper.to_array(tensor)).tobytes()
    onnx.save(model, file)
    session = backend.load(entry.path, entry.info, asked, models.feeds(REF, 32, 0))
    held = digits.DATA.held_out()
    assert scoring.score(held, 32, session.infer) < 0.2
    assert scoring.score(held, 32, reference.runner(source)) > 0.95


def test_table_page_and_mlflow_show_score_and_cost(tmp_path: Path) -> None:
    asked = variant()
    made = record(asked, measured(asked, tmp_path))
    shown = f"{made.accuracy['score']:.2%}"
    out = io.StringIO()
    table.print_outcome(Console(file=out, width=160), [made], answer([made], None), None)
    assert "top-1" in out.getvalue()
    assert shown in out.getvalue()
    assert "digits: 19,178 parameters, 0.236 MMACs a sample" in out.getvalue()
    assert f"top-1 on 597 held-out images of scikit-learn's digits; fp32 {shown}" in out.getvalue()
    page = html.write(tmp_path / "page.html", "t", [made], None).read_text()
    assert ">top-1</th>" in page
    assert f">{shown}</td>" in page
    told = {value.key: value.value for value in record_mapping.metrics(made)}
    assert told["accuracy.score"] == made.accuracy["score"]
    assert record_mapping.params(made)["model.parameters"] == "19178"
    assert float(record_mapping.params(made)["model.gmacs"]) == made.model["gmacs"]


def test_no_column_without_labels(tmp_path: Path) -> None:
    asked = variant(model=ModelRef(name="tiny_cnn", revision=models.zoo.entry("tiny_cnn").revision))
    made = record(asked, measured(asked, tmp_path))
    assert "score" not in made.accuracy
    out = io.StringIO()
    table.print_outcome(Console(file=out, width=160), [made], answer([made], None), None)
    assert "top-1" not in out.getvalue()
    assert "top-1" not in html.write(tmp_path / "page.html", "t", [made], None).read_text()

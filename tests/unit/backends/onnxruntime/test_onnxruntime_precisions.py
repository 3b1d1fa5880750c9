"""Every shipped precision on the embedded backend: what ran is what was asked, and its accuracy is the type's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import factories
import passes
import pytest
from recipes import RECIPES, shipped

from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.runner.worker import accuracy_check
from sweep.spec import LoadAxes, Variant

if TYPE_CHECKING:
    from pathlib import Path

LOAD = LoadAxes(kind="closed", warmup_s=0.0, min_s=0.02, min_requests=3, max_s=1.0)
RUN = [name for name in RECIPES if name != "tf32"]
LEAST_DB = {"fp32": 100, "fp16": 45, "bf16": 30, "int8": 18, "fp8": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: each recipe of a network makes entries of its own there, and the network itself is made once."""
    return tmp_path_factory.mktemp("cache")


def asked(model: str, name: str) -> Variant:
    return factories.variant(model, shipped(name), batch=2, load=LOAD)


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("model", ["tiny_cnn", "mlp"])
def test_it_runs_and_says_what_it_emulates(model: str, name: str, tmp_path: Path, cache: Path) -> None:
    variant = asked(model, name)
    assert OnnxRuntime().unsupported(variant) is None
    found = passes.measured(variant, tmp_path, cache=cache)
    assert found["mismatch"] is None
    precision, accuracy, notes = variant.onnx.precision, found["accuracy"], found["realised"]["notes"]
    assert accuracy["sqnr_db"] is None or accuracy["sqnr_db"] > LEAST_DB[precision.dtype]
    rounds = bool({"fp16", "bf16"} & {precision.dtype, precision.rest})
    assert accuracy["note"] == (accuracy_check.ROUNDED if rounds else None)
    assert not rounds or any("is emulated" in note and "says nothing about TensorRT" in note for note in notes)
    assert bool(found["realised"]["rounded_tensors"]) == ("bf16" in {precision.dtype, precision.rest})


def test_tf32_is_unsupported_with_the_reason() -> None:
    reason = OnnxRuntime().unsupported(asked("mlp", "tf32"))
    assert reason is not None
    assert "does not run precision=tf32, which rounds inside the GPU's products" in reason


def test_a_graph_that_does_not_round_to_bf16_is_a_mismatch() -> None:
    ran = {"contexts": 1, "precision": {"fp32": 3}, "quantised_tensors": 0, "rounded_tensors": 0}
    assert "does not round to it" in str(OnnxRuntime().mismatch(asked("mlp", "bf16"), ran))
    assert "neither computes in fp8" in str(OnnxRuntime().mismatch(asked("mlp", "fp8"), ran))

"""The second look: a session that is right while it is timed and wrong under a further load ends as invalid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import passes
import pytest

from sweep import models
from sweep.analysis import accuracy_gates
from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.backends.onnxruntime.session import OnnxRuntimeSession, OnnxRuntimeStream
from sweep.config import variants
from sweep.config.schema import AccuracyConfig, Config
from sweep.errors import ConfigError
from sweep.loadgen import load_point
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.gates import Gates

if TYPE_CHECKING:
    from pathlib import Path

LOAD = LoadAxes(kind="closed", warmup_s=0.05, min_s=0.02, min_requests=3, max_s=0.5)


def measured(folder: Path, gates: Gates | None = None, **recipe: object) -> dict:
    asked = Precision(**{"name": "fp32", "dtype": "fp32"} | recipe)
    variant = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(model=ModelRef(name="tiny_cnn", revision=models.zoo.entry("tiny_cnn").revision), precision=asked),
        engine=EngineAxes(batch=4),
        session=SessionAxes(streams=2),
        load=LOAD,
    )
    kept = {} if gates is None else {"gates": gates}
    return passes.measured(variant, folder, **kept)


def test_all_streams_are_looked_at_after_a_burst(tmp_path: Path) -> None:
    found = measured(tmp_path)
    told = found["accuracy"]["again"]
    assert (told["streams"], told["identical"], told["lost_db"], told["nonfinite"]) == (2, True, 0.0, 0)
    assert told["inferences"] >= 2
    assert found["mismatch"] is None


def test_a_stream_that_goes_wrong_under_load_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stream's buffer is overwritten during the burst, as a race would."""
    true_burst, right = load_point.burst, OnnxRuntimeStream.outputs
    spoilt: list[OnnxRuntimeStream] = []

    def burst(session: OnnxRuntimeSession, depth: int, seconds: float) -> int:
        done = true_burst(session, depth, seconds)
        spoilt.append(session.streams[1])
        return done

    def outputs(stream: OnnxRuntimeStream) -> dict[str, np.ndarray]:
        found = right(stream)
        if stream in spoilt:
            next(iter(found.values()))[0] += 3
        return found

    monkeypatch.setattr(load_point, "burst", burst)
    monkeypatch.setattr(OnnxRuntimeStream, "outputs", outputs)
    found = measured(tmp_path, name="int8", dtype="int8", quantize_ops=("Conv", "Gemm"), calibration_batches=1)
    told = found["accuracy"]["again"]
    assert (told["stream"], told["identical"]) == (1, False)
    assert told["lost_db"] > 6
    assert found["accuracy"]["sqnr_db"] > 15, "right after the timing nothing was wrong"
    assert found["mismatch"].startswith("under load, on stream 1: accuracy: the outputs lost ")


def test_a_gpus_outputs_are_looked_at_often_enough_to_find_one_wrong_in_twenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kernels do that overlap in one stream: the same inputs, and now and then other outputs."""
    right, calls = OnnxRuntimeStream.outputs, iter(range(1, 1_000_000))

    def outputs(stream: OnnxRuntimeStream) -> dict[str, np.ndarray]:
        found = right(stream)
        if next(calls) % 20 == 0:
            next(iter(found.values()))[0] += 3
        return found

    monkeypatch.setattr(OnnxRuntime, "on_gpu", True)
    monkeypatch.setattr(OnnxRuntimeStream, "outputs", outputs)
    found = measured(tmp_path)
    told = found["accuracy"]["again"]
    assert told["looks"] > 40
    assert told["wrong"] == (told["looks"] + 1) // 20, "the first outputs are those right after the timing"
    assert found["mismatch"].endswith(f"in {told['wrong']} of {told['looks']} looks")


def test_a_user_gate_makes_it_invalid(tmp_path: Path) -> None:
    int8 = {"name": "int8", "dtype": "int8", "quantize_ops": ("Conv", "Gemm"), "calibration_batches": 1}
    assert measured(tmp_path, Gates(max_error=0.5), **int8)["mismatch"] is None
    found = measured(tmp_path, Gates(max_error=1e-4), **int8)["mismatch"]
    assert found.startswith("accuracy: the largest error over the largest reference value is 0.")
    assert found.endswith("above the 0.0001 that was asked for (accuracy.max_error)")


def test_fp32_at_tf32s_accuracy_is_realised_as_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an H200 did whatever the builder's flag said: outputs rounded to 10 bits of mantissa."""
    right = OnnxRuntimeStream.outputs

    def outputs(stream: OnnxRuntimeStream) -> dict[str, np.ndarray]:
        return {
            name: (value.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
            for name, value in right(stream).items()
        }

    assert list(measured(tmp_path)["realised"]["precision"]) == ["fp32"]
    monkeypatch.setattr(OnnxRuntimeStream, "outputs", outputs)
    found = measured(tmp_path)
    assert list(found["realised"]["precision"]) == ["tf32"]
    assert "as TF32's are; precision=tf32 is the label for that" in found["mismatch"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"min_sqnr_db": float("nan")}, "accuracy.min_sqnr_db=nan: must be a number of dB"),
        ({"min_top1": 1.5}, "accuracy.min_top1=1.5: must be from 0 to 1"),
        ({"max_error": -0.1}, "accuracy.max_error=-0.1: must be from 0 to inf"),
        ({"min_cosine": -2.0}, "accuracy.min_cosine=-2.0: must be from -1 to 1"),
    ],
)
def test_a_gate_out_of_its_range_is_one_line(values: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        variants.settings(Config(accuracy=AccuracyConfig(**values)), ["batch=1"])


def test_gates_come_from_the_configuration() -> None:
    asked = Config(accuracy=AccuracyConfig(min_top1=0.9, max_error=0.1))
    assert variants.settings(asked, ["batch=1"]).gates == Gates(min_top1=0.9, max_error=0.1)
    assert accuracy_gates.least_db("int8") == 6

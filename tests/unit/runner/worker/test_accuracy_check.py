"""The second look: a session that is right while it is timed and wrong under a further load ends as invalid."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import authored_graphs
import numpy as np
import onnx
import passes
import pytest

from sweep import models, precision
from sweep.analysis import accuracy, accuracy_gates
from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.backends.onnxruntime.session import OnnxRuntimeSession, OnnxRuntimeStream
from sweep.config import variants
from sweep.config.schema import (
    AccuracyConfig,
    BackendConfig,
    Config,
    LoadConfig,
    ModelConfig,
    PrecisionConfig,
)
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
    """As an H200 did whatever the builder's flag said: the operands of products rounded to 10 bits of mantissa."""
    right, rounded = OnnxRuntime.build, tmp_path / "rounded.onnx"

    def build(backend: OnnxRuntime, onnx: Path, *others: object) -> dict:
        precision.round_products(onnx, rounded)
        return right(backend, rounded, *others)

    fp32 = measured(tmp_path / "fp32")
    assert list(fp32["realised"]["precision"]) == ["fp32"]
    assert "draws" not in fp32["accuracy"]["expected"], "nothing looks like TF32, so no other inputs are looked at"
    monkeypatch.setattr(OnnxRuntime, "build", build)
    tf32 = measured(tmp_path / "tf32")
    assert list(tf32["realised"]["precision"]) == ["tf32"]
    assert "as TF32's are; precision=tf32 is the label for that" in tf32["mismatch"]
    assert (tf32["accuracy"]["expected"]["draws"], tf32["accuracy"]["expected"]["tf32_draws"]) == (2, 2)


def test_fp32_that_errs_on_the_timed_inputs_alone_is_not_called_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs that are off by as much as TF32's, in a session whose other inferences are right."""
    right, infer = OnnxRuntimeStream.outputs, OnnxRuntimeSession.infer

    def outputs(stream: OnnxRuntimeStream) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {
            name: value + (np.sqrt(np.mean(value**2)) * 10**-2.2 * rng.standard_normal(value.shape)).astype(value.dtype)
            for name, value in right(stream).items()
        }

    def infer_rightly(session: OnnxRuntimeSession, feeds: dict) -> dict[str, np.ndarray]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OnnxRuntimeStream, "outputs", right)
            return infer(session, feeds)

    monkeypatch.setattr(OnnxRuntimeStream, "outputs", outputs)
    monkeypatch.setattr(OnnxRuntimeSession, "infer", infer_rightly)
    found = measured(tmp_path)
    assert found["accuracy"]["expected"]["tf32_draws"] == 0
    assert list(found["realised"]["precision"]) == ["fp32"]
    explained = found["accuracy"]["expected"]["expected_db"]
    assert f"where rounding explains {explained:.1f} dB for fp32 (accuracy.min_sqnr_db)" in found["mismatch"]


def own_network(
    folder: Path,
    author: authored_graphs.Author,
    last: str,
    output: list[int | str],
    dtype: str = "fp32",
    samples: str | None = None,
) -> dict:
    """The result of a pass of a network that a test authored; its input is x [batch, 16]."""
    onnx.save(author.model(last, {"x": (onnx.TensorProto.FLOAT, ["batch", 16])}, output), folder / "own.onnx")
    config = Config(
        model=ModelConfig(path=str(folder / "own.onnx"), samples=samples),
        precision=PrecisionConfig(name=dtype, dtype=dtype),
        backend=BackendConfig(name="onnxruntime"),
        load=LoadConfig(kind="closed", warmup_s=0.02, min_s=0.02, min_requests=3, max_s=0.5),
        batch=4,
        results=str(folder),
    )
    return passes.measured(variants.from_config(config), folder)


def test_a_network_that_draws_random_numbers_is_not_judged(tmp_path: Path) -> None:
    author = authored_graphs.Author()
    hidden = author.op("MatMul", "x", author.weight(16, 4))
    found = own_network(tmp_path, author, author.op("Add", hidden, author.op("RandomNormalLike", hidden)), ["batch", 4])
    assert found["accuracy"]["sqnr_db"] is None
    assert found["accuracy"]["unknown"] == "the network draws random numbers (RandomNormalLike)"
    assert "draws random numbers (RandomNormalLike): two runs differ" in found["accuracy"]["note"]
    assert (found["mismatch"], list(found["realised"]["precision"])) == (None, ["fp32"])


def test_random_numbers_that_reach_no_output_change_nothing(tmp_path: Path) -> None:
    author = authored_graphs.Author()
    hidden = author.op("MatMul", "x", author.weight(16, 4))
    nothing = author.op("Mul", author.op("RandomNormalLike", hidden), author.const(np.float32(0)))
    found = own_network(tmp_path, author, author.op("Add", hidden, nothing), ["batch", 4])
    assert "unknown" not in found["accuracy"]
    assert found["accuracy"]["expected"]["floor_db"] > 100


def test_outputs_of_nothing_are_noted_and_not_judged_until_the_advice_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that sees no object in noise: its scores are near exp(-20)."""
    monkeypatch.chdir(tmp_path)

    def detected(samples: str | None) -> dict:
        author = authored_graphs.Author()
        shifted = author.op("Sub", author.op("MatMul", "x", author.weight(16, 4)), author.const(np.float32(20)))
        return own_network(tmp_path, author, author.op("Sigmoid", shifted), ["batch", 4], "bf16", samples)

    found = detected(None)
    assert found["accuracy"]["undiagnosed"].startswith("no output is above")
    assert found["accuracy"]["undiagnosed"] in found["realised"]["notes"]
    assert found["mismatch"] is None
    advice = re.search(r"bring real inputs: (.+) in Python, then (\S+);", found["accuracy"]["note"])
    assert advice is not None
    real = np.random.default_rng(0).normal(0, 20, (6, 16))
    exec(advice[1].replace("...", "real"), {"numpy": np, "real": real})  # noqa: S102 - what a user would type
    key, _, file = advice[2].partition("=")
    assert key == "model.samples"
    found = detected(file)
    assert "undiagnosed" not in found["accuracy"]
    assert found["accuracy"]["samples"] == 6


def test_a_name_that_python_cannot_take_is_quoted_in_the_advice() -> None:
    nothing = {"y": np.zeros((2, 4), np.float32)}
    advice = accuracy.undiagnosed(nothing, {"x:0": np.ones((2, 4), np.float32), "in": np.ones((2, 4), np.float32)})
    assert advice is not None
    assert "numpy.savez('inputs.npz', **{'x:0': ..., 'in': ...}) in Python" in advice
    assert "take other samples" in str(accuracy.undiagnosed(nothing, {"x": np.ones(2)}, real=True))


def test_outputs_whose_size_depends_on_the_data_are_unknown_not_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NonZero keeps another number of entries in a session that rounds otherwise."""
    right = OnnxRuntimeStream.outputs

    def outputs(stream: OnnxRuntimeStream) -> dict[str, np.ndarray]:
        return {name: value[:, :-1] for name, value in right(stream).items()}

    author = authored_graphs.Author()
    hidden = author.op("MatMul", "x", author.weight(16, 4))
    places = author.op("NonZero", author.op("Greater", hidden, author.const(np.float32(0))))
    last = author.op("Cast", places, to=onnx.TensorProto.FLOAT)
    same = own_network(tmp_path, author, last, [2, "kept"])
    assert "unknown" not in same["accuracy"]
    assert same["accuracy"]["max_abs"] == 0
    monkeypatch.setattr(OnnxRuntimeStream, "outputs", outputs)
    again = tmp_path / "again"
    again.mkdir()
    author.nodes.pop()  # its Identity, which is authored once more
    found = own_network(again, author, last, [2, "kept"])
    assert found["accuracy"]["unknown"].startswith("output y is [2, ")
    assert f"SQNR is not known: {found['accuracy']['unknown']}" in found["realised"]["notes"]
    assert found["mismatch"] is None


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

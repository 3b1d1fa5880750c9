"""A user's file with everything at once, from the file to the record: what a single test of a part does not show."""

import json
from pathlib import Path

import numpy as np
import onnx
import passes
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweep import models
from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, LoadConfig, ModelConfig, PrecisionConfig
from sweep.spec import Variant

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Scores of tokens: float, int64 and bool inputs, a free length, the batch second, two outputs, weights outside."""
    rng = np.random.default_rng(0)
    weights = {"table": rng.standard_normal((40, 16)), "w": rng.standard_normal((24, 5)) * 0.3}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "features"], ["both"], axis=2),
        helper.make_node("Cast", ["kept"], ["mask"], to=FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["both", "column"], ["masked"]),
        helper.make_node("MatMul", ["masked", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=2, keepdims=0),
    ]
    inputs = {"ids": (INT, ["len", "B"]), "features": (FLOAT, ["len", "B", 8]), "kept": (BOOL, ["len", "B"])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [
            helper.make_tensor_value_info("scores", FLOAT, ["len", "B", 5]),
            helper.make_tensor_value_info("best", INT, ["len", "B"]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
        + [numpy_helper.from_array(np.array([2]), "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=64)
    return tmp_path / "m.onnx"


def asked(path: Path, dtype: str, model: ModelConfig) -> Variant:
    return variants.from_config(
        Config(
            model=model,
            precision=PrecisionConfig(name=dtype, dtype=dtype),
            backend=BackendConfig(name="onnxruntime"),
            load=LoadConfig(kind="closed", warmup_s=0.02, min_s=0.05, min_requests=20, max_s=2.0),
            batch=3,
            results=str(path.parent),
        )
    )


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("batch", [{}, {"batch_dim": "B"}])
def test_a_file_with_everything_is_measured(path: Path, tmp_path: Path, dtype: str, batch: dict[str, str]) -> None:
    fixes = {"ids": {"shape": [7, "batch"], "low": 0, "high": 39}}
    variant = asked(path, dtype, ModelConfig(path=str(path), inputs=fixes, **batch))
    found = models.signature(variant.onnx.model)
    assert [(spec.name, spec.shape) for spec in found.inputs] == [
        ("ids", (7, "batch")),
        ("features", (7, "batch", 8)),
        ("kept", (7, "batch")),
    ]
    made = passes.measured(variant, tmp_path, samples=tmp_path / "samples.npz")
    assert made["mismatch"] is None
    assert made["accuracy"]["sqnr_db"] is None or made["accuracy"]["sqnr_db"] > 40
    assert made["model"] == {
        "parameters": 40 * 16 + 24 * 5,
        "gmacs": pytest.approx(7 * 24 * 5 / 1e9),
        "opset": 17,
        "opset_of_file": None,
        "made_from": None,
    }
    assert json.loads(json.dumps(made)) == made

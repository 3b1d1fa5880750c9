"""NVIDIA's Model Optimizer as the converter: for real where it is installed; and what is refused without it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import require
from authored_graphs import NETWORKS, batch, save
from onnx import TensorProto, numpy_helper
from test_overflow_guard import calibration, loud, rounded_db

from sweep import models, spec
from sweep.config import variants
from sweep.config.schema import BackendConfig, Config, ModelConfig, PrecisionConfig, ScriptConfig
from sweep.errors import ConfigError, ConversionError
from sweep.precision import convert, measure_layer_errors, modelopt
from sweep.runner.worker import artifact_keys, artifacts, model_files
from sweep.spec import ModelRef, Precision
from sweep.system.child_process import ChildProcess, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPS = ("Conv", "MatMul", "Gemm")
MIXES = [("int8", None), ("int8", "fp16"), ("int8", "bf16"), ("fp8", None), ("fp8", "fp16"), ("fp8", "bf16")]


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Versions are those of the interpreter that this test names."""
    modelopt.modelopt_versions.cache_clear()
    yield
    modelopt.modelopt_versions.cache_clear()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter with nothing installed takes the conversions."""
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setenv(modelopt.PYTHON, str(tmp_path / "bare" / "bin" / "python"))


def installed() -> None:
    if importlib.util.find_spec("modelopt") is None and modelopt.PYTHON not in os.environ:
        require.missing(
            "modelopt", f"nvidia-modelopt is not installed (the extra `modelopt`), nor named by {modelopt.PYTHON}"
        )


def config(**values: object) -> Config:
    made = Config(backend=BackendConfig(name="simulated", script=ScriptConfig()), model=ModelConfig(name="tiny_cnn"))
    made.precision = PrecisionConfig(**{"name": "int8", "dtype": "int8", "tool": "modelopt", **values})
    made.precision.calibration_batches = 2
    return made


def recipe(dtype: str, rest: str | None = None, **more: object) -> Precision:
    name = "_".join(filter(None, (dtype, rest)))
    ops = OPS if dtype in {"int8", "fp8"} else ()
    return Precision(**{"name": name, "dtype": dtype, "rest": rest, "quantize_ops": ops, "tool": "modelopt", **more})


def feeds(name: str = "cnn") -> list[dict[str, np.ndarray]]:
    return [batch(NETWORKS[name](), 8, seed) for seed in range(2)]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"calibration_method": "percentile"}, "calibration_method=percentile: modelopt has max and entropy; take"),
        ({"per_channel": False}, "precision.per_channel=false: modelopt scales weights per channel only; take tool="),
        ({"name": "fp8", "dtype": "fp8", "calibration_method": "entropy"}, "entropy weighs the even steps of int8"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(values: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        variants.from_config(config(**values))


@pytest.mark.parametrize("dtype", ["fp32", "tf32"])
def test_where_nothing_is_converted_the_tool_is_no_axis(dtype: str) -> None:
    one, other = (variants.from_config(config(name=dtype, dtype=dtype, tool=tool)) for tool in ("modelopt", "builtin"))
    assert one == other


def test_a_recipe_for_it_is_another_variant_and_says_so() -> None:
    asked = variants.from_config(config(name="int8_fp16", rest="fp16", wide=True, guard=True))
    assert asked.onnx.precision.wide is None, "it has no such thing"
    assert asked.onnx.precision.guard
    assert asked.label == "tiny_cnn int8_fp16 b1 s1 modelopt"
    own = variants.from_config(config(name="int8_fp16", rest="fp16", guard=True, tool="builtin"))
    assert spec.onnx_key(asked) != spec.onnx_key(own)


def test_its_versions_are_in_its_keys_alone(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, own = (variants.from_config(config(tool=tool)) for tool in ("modelopt", "builtin"))
    before = artifact_keys.onnx_cache_key(asked), artifact_keys.onnx_cache_key(own)
    assert artifact_keys.onnx_cache_key(asked) == before[0]
    modelopt.modelopt_versions.cache_clear()
    monkeypatch.setenv(modelopt.PYTHON, sys.executable)  # has onnx at least
    assert modelopt.modelopt_versions()["onnx"] == onnx.__version__
    assert artifact_keys.onnx_cache_key(asked) != before[0]
    assert artifact_keys.onnx_cache_key(own) == before[1]


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_without_the_package_the_line_says_what_to_install(dtype: str, bare: None, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as error:
        convert(save("cnn", tmp_path), recipe(dtype), feeds(), tmp_path / "typed.onnx")
    module = "quantization" if dtype == "int8" else "autocast"
    assert str(error.value) == (
        f"cnn.onnx as {dtype}: precision.tool=modelopt needs modelopt.onnx.{module}, which cannot be imported "
        "(No module named 'modelopt'); pip install 'trt-sweep[modelopt]', or name an interpreter that has it in "
        "SWEEP_MODELOPT_PYTHON"
    )
    assert not (tmp_path / "typed.onnx").exists()


def test_an_interpreter_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(modelopt.PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(ConversionError, match=r"Model Optimizer cannot be started: .*nowhere.*; set SWEEP_MODELOPT_PY"):
        convert(save("cnn", tmp_path), recipe("fp16"), [], tmp_path / "typed.onnx")


@pytest.mark.parametrize("calibration", [[], [{"x": np.full((1, 3, 16, 16), np.nan, np.float32)}]])
def test_samples_are_checked_before_it_starts(
    calibration: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(modelopt.PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(ConversionError, match="calibration"):
        convert(save("cnn", tmp_path), recipe("int8"), calibration, tmp_path / "typed.onnx")


def test_nothing_of_the_working_directory_is_imported(bare: None, tmp_path: Path) -> None:
    """A file of the user's that is called as a library is must not take its place."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    (tmp_path / "modelopt.py").write_text("raise SystemExit('the wrong modelopt')\n")
    code = "from sweep.precision import modelopt; print(modelopt.modelopt_versions())"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'nvidia-modelopt': None" in done.stdout


def test_a_child_that_dies_is_told_with_its_last_words() -> None:
    child = ChildProcess([sys.executable, "-c", "raise SystemExit('out of luck')"], "the child")
    with pytest.raises(RefusedError, match="the child ended with status 1: out of luck"):
        child.request({})
    child.close()
    child.close()


@pytest.mark.parametrize(("dtype", "rest"), [("fp16", None), ("bf16", None), *MIXES])
def test_every_recipe_gives_a_graph_of_its_types(dtype: str, rest: str | None, tmp_path: Path) -> None:
    installed()
    ref = ModelRef(name="tiny_cnn", revision=models.zoo.entry("tiny_cnn").revision)
    source, samples = models.resolve(ref, tmp_path / "tiny_cnn.onnx"), models.calibration(ref, 8, 2)
    made = convert(source, recipe(dtype, rest), samples, tmp_path / "typed.onnx")
    own = convert(source, recipe(dtype, rest, tool=None), samples, tmp_path / "own.onnx")
    left = {"fp8": 3, "int8": 1}.get(dtype, 0)  # convolutions of few channels in fp8, and a Gemm of ten outputs
    assert made.compute_types == {
        **dict.fromkeys(made.compute_types, 0),
        dtype: 5 - left,
        **({rest or "fp32": left} if left else {}),
    }
    assert own.compute_types[dtype] == 5
    assert made.notes[-1].startswith("made by nvidia-modelopt ")
    assert made.samples == 16
    assert rounded_db(source, made.path, tmp_path) > rounded_db(source, own.path, tmp_path) - 3


def test_what_it_leaves_alone_altogether_is_refused(tmp_path: Path) -> None:
    installed()
    with pytest.raises(ConversionError, match="computes in fp32 4: modelopt leaves products of one row or fewer"):
        convert(save("cnn", tmp_path), recipe("fp8"), feeds(), tmp_path / "typed.onnx")
    assert not (tmp_path / "typed.onnx").exists()


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    installed()
    source = save("cnn", tmp_path)
    asked = recipe("int8", "fp16")
    first, second = (convert(source, asked, feeds(), tmp_path / f"{name}.onnx").path.read_bytes() for name in "ab")
    assert first == second


def test_the_samples_are_those_that_were_given(tmp_path: Path) -> None:
    installed()
    loudest = feeds()
    loudest[1]["x"][0, 0, 0, 0] = 1000
    made = convert(save("cnn", tmp_path), recipe("int8"), loudest, tmp_path / "typed.onnx")
    model = onnx.load(made.path)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    (first,) = (node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x")
    assert float(stored[first.input[1]]) * 127 == pytest.approx(1000, rel=0.01)


def test_its_own_guard_keeps_what_overflows_and_lists_it(tmp_path: Path) -> None:
    installed()
    onnx.save(loud(), tmp_path / "loud.onnx")
    plain = convert(tmp_path / "loud.onnx", recipe("fp16"), calibration(), tmp_path / "plain.onnx")
    assert plain.guarded_nodes == ()
    assert rounded_db(tmp_path / "loud.onnx", plain.path, tmp_path) < 1
    for asked in (recipe("fp16", guard=True), recipe("int8", "fp16", guard=True), recipe("fp8", "fp16", guard=True)):
        safe = convert(tmp_path / "loud.onnx", asked, calibration(), tmp_path / "safe.onnx")
        assert {"ReduceSum3", "Add4", "Sqrt5"} <= set(safe.guarded_nodes)
        assert any(f"{len(safe.guarded_nodes)} nodes kept in fp32 by modelopt: " in note for note in safe.notes)
        assert rounded_db(tmp_path / "loud.onnx", safe.path, tmp_path) > (15 if asked.dtype == "fp8" else 25)


def test_inputs_and_outputs_may_be_in_the_type(tmp_path: Path) -> None:
    installed()
    made = convert(save("cnn", tmp_path), recipe("fp16", keep_io=False), [], tmp_path / "typed.onnx")
    graph = onnx.load(made.path).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {TensorProto.FLOAT16}


def test_the_choice_may_be_left_to_it(tmp_path: Path) -> None:
    installed()
    made = convert(save("cnn", tmp_path), recipe("int8", quantize_ops=()), feeds(), tmp_path / "typed.onnx")
    assert "what to quantise was chosen by modelopt" in made.notes
    assert made.compute_types["int8"]


def test_weights_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed()
    source = save("cnn", tmp_path)
    small = convert(source, recipe("int8", "fp16"), feeds(), tmp_path / "small.onnx")
    monkeypatch.setattr(modelopt.graphs, "SINGLE_FILE_BYTES", 1000)
    large = convert(source, recipe("int8", "fp16"), feeds(), tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").is_file()
    assert large.compute_types == small.compute_types
    assert rounded_db(source, large.path, tmp_path) == pytest.approx(rounded_db(source, small.path, tmp_path))


def test_token_ids_and_a_mask(tmp_path: Path) -> None:
    installed()
    source = save("transformer", tmp_path)
    made = convert(source, recipe("int8", "fp16"), feeds("transformer"), tmp_path / "typed.onnx")
    assert made.compute_types["int8"]


def test_the_nodes_of_its_graph_can_be_traced(tmp_path: Path) -> None:
    installed()
    source, asked = save("cnn", tmp_path), recipe("int8", "fp16")
    made = convert(source, asked, feeds(), tmp_path / "typed.onnx")
    assert len(measure_layer_errors(source, made.path, asked, feeds()[0])) > 3


def test_pytorch_stays_out_of_this_process(tmp_path: Path) -> None:
    installed()
    before = {"torch", "modelopt"} & sys.modules.keys()
    convert(save("cnn", tmp_path), recipe("fp16"), [], tmp_path / "typed.onnx")
    assert {"torch", "modelopt"} & sys.modules.keys() == before


def test_the_record_says_who_converted(tmp_path: Path) -> None:
    installed()
    asked = variants.from_config(config(name="int8_fp16", rest="fp16"))
    with artifacts.Cache(tmp_path / "cache") as cache:
        source = model_files.model_file(asked, cache)
        _, told = artifacts.converted_file(asked, source, cache)
        assert artifacts.converted_file(asked, source, cache)[1] == told, "from the cache the second time"
    assert told["onnx_notes"][-1].startswith("made by nvidia-modelopt ")
    assert told["calibration"]["samples"] == 16

"""``model.engine=``: what a plan decides, what may stand beside it, and who may name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import factories
import numpy as np
import onnx
import pytest
from authored_graphs import NETWORKS

from sweep.backends import registry, unsupported_reason
from sweep.config import compose, variants
from sweep.errors import ConfigError, ModelError
from sweep.runner import plan
from sweep.spec import Variant, variant_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEADER = bytes(20) + bytes((10, 13, 0, 35))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two plans and a network into the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.plan").write_bytes(b"ftrt" + HEADER + name.encode())
    (tmp_path / "rtx.plan").write_bytes(b"vtrt" + HEADER)
    onnx.save(NETWORKS["cnn"](), tmp_path / "net.onnx")
    return tmp_path


def made(engine: str | None = "a.plan", **values: Any) -> Variant:
    """The variant of a plan alone, unless the values name a network."""
    given = {"backend__name": "auto", "backend__script": None, "model__name": "", "model__engine": engine, **values}
    return variants.from_config(factories.config(**given))


def planned(*words: str) -> list[Variant]:
    request = compose.read(words)
    assert request is not None
    return [variants.from_config(config) for config in request.configs]


def test_a_plan_alone_has_no_reference_and_its_label_says_where_it_is_from() -> None:
    alone = made(batch=4)
    assert alone.reference is None
    assert alone.label == "a as-built b4 s1 from-a.plan"
    assert (alone.onnx.precision.name, alone.backend) == ("as-built", "tensorrt")
    assert made("rtx.plan").backend == "tensorrt_rtx"
    assert variants.resolve_backend("auto", "a.plan") == ("tensorrt", "a.plan is a plan of tensorrt 10.13.0.35")


def test_a_network_that_is_named_is_the_reference_and_the_default_of_conf_is_none() -> None:
    (alone,) = planned("model.engine=a.plan")
    assert alone.reference is None
    named = planned("model.engine=a.plan,null", "model=tiny_cnn", "backend=tensorrt")
    assert [one.reference and one.reference.name for one in named] == ["tiny_cnn", "tiny_cnn"]


def test_several_plans_are_an_axis_beside_an_engine_that_is_built() -> None:
    beside = {"model__path": "net.onnx", "backend__name": "tensorrt"}
    rows = [made(engine, **beside) for engine in ("a.plan", "b.plan", None)]
    labels = ["net as-built b1 s1 from-a.plan", "net as-built b1 s1 from-b.plan", "net fp32 b1 s1"]
    assert [one.label for one in rows] == labels
    assert len({work.engine_key for work in plan.make(rows).works}) == 3


def test_samples_need_the_network_that_names_the_inputs(folder: Path) -> None:
    np.save(folder / "own.npy", np.zeros((20, 3, 8, 8)))
    with pytest.raises(ConfigError, match=r"model.samples=own.npy: the inputs of a.plan are known once it is loaded"):
        made(model__samples="own.npy")


def test_the_key_is_of_the_content_and_not_of_the_place(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "a.plan").write_bytes((folder / "a.plan").read_bytes())
    keys = [variant_key(made(engine, model__name="mlp")) for engine in ("a.plan", "elsewhere/a.plan", "b.plan")]
    assert keys[0] == keys[1] != keys[2]


def test_a_backend_that_cannot_load_it_is_unsupported_and_says_which_can() -> None:
    for name, reason in (
        ("tensorrt_rtx", "a.plan is a plan of tensorrt 10.13.0.35, not of tensorrt_rtx; backend=tensorrt loads it"),
        ("onnxruntime", "onnxruntime does not have plan (asked: plan=a.plan)"),
    ):
        assert unsupported_reason(registry.get(name), made(backend__name=name)) == reason


@pytest.mark.parametrize(
    ("key", "value", "start"),
    [
        ("precision__dtype", "int8", "precision=mine"),
        ("precision__dtype", "tf32", "precision=mine"),
        ("graph", "simplify", "graph=simplify"),
        ("profile", "range", "profile=range"),
        ("build_only", True, "build_only=true"),
        ("builds", 2, "builds=2"),
        ("mps_build", True, "mps_build=true"),
        ("backend__refit", True, "backend.refit=true"),
        ("backend__builder_optimization_level", 3, "backend.builder_optimization_level=3"),
        ("backend__sparsity", "force", "backend.sparsity=force"),
        ("backend__compute_capability", "8.9", "backend.compute_capability=8.9"),
        ("backend__weight_streaming", True, "backend.weight_streaming=true"),
        ("model__calibration", "net.npz", "model.calibration=net.npz"),
    ],
)
def test_what_decides_a_build_is_refused(key: str, value: object, start: str) -> None:
    names = {"precision__name": "mine", "precision__calibration_batches": 1} if "dtype" in key else {}
    with pytest.raises(ConfigError) as caught:
        made(**{key: value}, **names, **({"mps": 50} if key == "mps_build" else {}))
    assert str(caught.value).startswith(f"{start}: ")
    assert "a.plan is built already" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model__labels": "net.npz"}, "model.labels=net.npz: model.engine=a.plan came without its network"),
        ({"model__batch_dim": "n"}, "model.batch_dim=n: model.engine=a.plan came without its network"),
        ({"accuracy__min_score": 0.9}, "accuracy.min_score=0.9: a.plan has no labels to be scored on"),
        ({"model__inputs": {"x": {"dtype": "int64"}}}, "the file says the type"),
        ({"model__path": "net.onnx", "model__torch": "a:b"}, "give one of them"),
    ],
)
def test_what_needs_the_network_is_refused_without_one(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**values)
    assert said in str(caught.value)


def test_what_loading_needs_may_stand_beside_it(folder: Path) -> None:
    (folder / "one.so").write_bytes(b"plugin")
    inputs = {"x": {"shape": ["batch", 7], "high": 2.0}}
    values = {"backend__plugins": ["one.so"], "backend__weight_streaming_budget_mib": 4, "model__inputs": inputs}
    whole = made("rtx.plan", **values, streams=2, cuda_graph=True)
    assert whole.engine.plugins is not None
    assert whole.session.weight_streaming_budget_mib == 4
    assert whole.onnx.model.inputs[0].shape == ("batch", 7)


@pytest.mark.parametrize(
    "text", ["model:\n  engine: a.plan\n", "hydra:\n  sweeper:\n    params:\n      model.engine: a.plan,b.plan\n"]
)
def test_a_plan_that_only_a_yaml_names_is_refused(folder: Path, text: str) -> None:
    """Loading one runs code, so that whoever starts the sweep has to name it."""
    (folder / "own" / "experiment").mkdir(parents=True)
    (folder / "own" / "experiment" / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    words: Sequence[str] = (f"--config-dir={folder / 'own'}", "+experiment=theirs")
    with pytest.raises(ConfigError, match=r"model\.engine=a\.plan stands in a YAML.*type model\.engine=a\.plan"):
        planned(*words)
    assert [str(one.engine.plan) for one in planned(*words, "model.engine='a.plan'")] == ["a.plan"]


def test_a_file_that_is_no_plan_is_refused_before_anything_runs() -> None:
    with pytest.raises(ModelError, match=r"net\.onnx is an ONNX file"):
        made("net.onnx")


@pytest.mark.parametrize("value", ["8", "89", "sm89", "8.9.1"])
def test_a_compute_capability_is_two_numbers(value: str) -> None:
    with pytest.raises(ConfigError, match=r"give the compute capability of a GPU, as in backend\.compute_capability"):
        made(None, model__name="mlp", backend__compute_capability=value)

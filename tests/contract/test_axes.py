"""Every axis has what people need to tell its values apart: a key, a help, a label, a column, a run name, and words."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from authored_graphs import NETWORKS

from sweep import spec
from sweep.config import compose, reproduce, variants
from sweep.config.schema import help_lines
from sweep.runner import plan
from sweep.spec.axes import dataclass_of
from sweep.spec.axis import METADATA

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.plan import Plan

SIMULATED = ("backend=simulated",)
MIXED = ("precision=int8_fp16",)
FILE = ("model.path=net.onnx",)
CURVE = ("load=curve",)
MIX = ("backend=tensorrt", "load.shapes=[{shape:h:16,share:1},{shape:h:32,share:2}]")
PAIRS: dict[str, tuple[str, tuple[str, ...]]] = {  # key -> two values, and the words under which both are allowed
    "backend.name": ("onnxruntime,simulated", ()),
    "model.name": ("tiny_cnn,mlp", ()),
    "model.path": ("net.onnx,other.onnx", ()),
    "shape": ("h:32+w:32,h:48", ()),
    "pipeline": ("sd_tiny,ocr_tiny", ()),
    "model.engine": ("one.plan,two.plan", ("model=mlp",)),
    "model.inputs": ("{low:0,high:1},{low:0,high:2}", FILE),
    "model.batch_dim": ("batch,null", FILE),
    "model.calibration": ("train.npz,more.npz", (*FILE, "precision=int8")),
    "model.samples": ("train.npz,more.npz", (*FILE, "precision=int8")),
    "model.labels": ("train_labels.npz,more_labels.npz", FILE),
    "precision.name": ("fp32,fp16", ()),
    "precision.dtype": ("fp16,bf16", ("precision.name=mine",)),
    "precision.keep_io": ("true,false", ("precision=fp16",)),
    "precision.rest": (
        "fp16,bf16",
        (
            "precision.name=mine",
            "precision.dtype=int8",
            "precision.quantize_ops=[Conv]",
            "precision.calibration_batches=2",
        ),
    ),
    "precision.wide": ("true,false", MIXED),
    "precision.guard": ("true,false", ("precision=fp16",)),
    "precision.keep": ("[MatMul],[/head/*,fc]", ("precision=fp16",)),
    "precision.search": ("true,false", ("precision=int8", "accuracy.min_sqnr_db=30")),
    "precision.path": ("typed.onnx,other.onnx", ("precision=qat", *FILE)),
    "precision.quantize_ops": ("[Conv],[Conv,MatMul]", MIXED),
    "precision.per_channel": ("true,false", MIXED),
    "precision.calibration_batches": ("2,3", MIXED),
    "precision.calibration_method": ("max,entropy", MIXED),
    "precision.calibration_percentile": ("99.9,99.99", (*MIXED, "precision.calibration_method=percentile")),
    "precision.tool": ("builtin,modelopt", ("precision=int8",)),
    "graph": ("none,simplify", ()),
    "batch": ("1,8", ()),
    "profile": ("static,range", ("backend=tensorrt", "batch=4", "range.most=8")),
    "profiles": ("range,per_shape", MIX),
    "profile_switch": ("false,true", (*MIX, "profiles=per_shape")),
    "backend.builder_optimization_level": ("2,3", ("backend=tensorrt",)),
    "backend.max_aux_streams": ("0,1", ("backend=tensorrt",)),
    "backend.tiling": ("none,fast", ("backend=tensorrt",)),
    "backend.sparsity": ("enable,force", ("backend=tensorrt",)),
    "backend.workspace_mib": ("64,128", ("backend=tensorrt",)),
    "backend.timing_cache": ("true,false", ("backend=tensorrt",)),
    "backend.tactic_sources": ("jit_convolutions,none", ("backend=tensorrt",)),
    "backend.max_tactics": ("1,20", ("backend=tensorrt",)),
    "backend.tiling_l2_limit_kib": ("64,128", ("backend=tensorrt",)),
    "backend.preview_features": ("one,one+two", ("backend=tensorrt",)),
    "backend.build_route": ("one,two", ("backend=tensorrt",)),
    "backend.io_format": ("linear,hwc8", ("backend=tensorrt",)),
    "backend.context_memory": ("static,user_managed", ("backend=tensorrt",)),
    "backend.persistent_cache_ratio": ("0.5,1", ("backend=tensorrt",)),
    "backend.profiling_verbosity": ("layer_names_only,detailed", ("backend=tensorrt",)),
    "backend.version_compatible": ("true,false", ("backend=tensorrt",)),
    "backend.hardware_compatibility": ("none,ampere_plus", ("backend=tensorrt",)),
    "backend.refit": ("true,false", ("backend=tensorrt",)),
    "backend.weight_streaming": ("true,false", ("backend=tensorrt",)),
    "backend.compute_capability": ("8.9,12.0", ("backend=tensorrt_rtx",)),
    "backend.plugins": ("[one.so],[two.so]", ("backend=tensorrt",)),
    "mps_build": ("false,true", ("backend=tensorrt", "mps=50")),
    "streams": ("1,2", ()),
    "builds": ("null,2", ()),
    "clients": ("1,2", ()),
    "mps": ("50,100", ("backend=tensorrt",)),
    "sm_count": ("16,32", ("backend=tensorrt",)),
    "sharing": ("processes,streams", (*SIMULATED, "beside=[{model:mlp}]")),
    "beside": ("[{model:mlp}],[{model:mlp,precision:fp16,batch:2,rate:50,slo:{p99_ms:20}}]", SIMULATED),
    "cuda_graph": ("false,true", ("backend=tensorrt",)),
    "backend.wait": ("spin,block", ("backend=tensorrt",)),
    "transfers": ("true,false", ("backend=tensorrt",)),
    "backend.weight_streaming_budget_mib": ("1,2", ("backend=tensorrt", "backend.weight_streaming=true")),
    "backend.intra_op_threads": ("1,2", ("backend=onnxruntime",)),
    "backend.script.service_us": ("100,130", SIMULATED),
    "backend.script.sample_us": ("1,2.5", SIMULATED),
    "backend.script.distribution": ("constant,exponential", SIMULATED),
    "backend.script.raise_at": ("build,load", SIMULATED),
    "backend.script.sleep_after_us": ("null,100", SIMULATED),
    "backend.script.slows": ("null,1.5", SIMULATED),
    "backend.script.switch_us": ("null,20", SIMULATED),
    "backend.script.range_us": ("null,20", SIMULATED),
    "backend.script.profile_us": ("null,20", SIMULATED),
    "backend.script.wake_us": ("10,20", (*SIMULATED, "backend.script.sleep_after_us=100")),
    "load.kind": ("closed,curve", ()),
    "load.arrivals": ("poisson,constant", CURVE),
    "load.depth": ("1,2", ()),
    "load.fractions": ("[0.5,0.9],[0.5]", CURVE),
    "load.rates_ips": ("[100],[200]", ("load=poisson",)),
    "load.warmup_s": ("0.1,0.25", ()),
    "load.min_s": ("0.5,1.5", ()),
    "load.min_requests": ("10,11", ()),
    "load.max_s": ("20,20.5", ()),
    "load.max_wait_s": ("10,11", ()),
    "load.trace": ("arrivals.csv,later.csv", ("load=trace",)),
    "load.trace_scale": ("1,2", ("load=trace", "load.trace=arrivals.csv")),
    "load.points": ("5,6", (*CURVE, "load.fractions=[]")),
    "load.budget_s": ("60,90", CURVE),
    "load.shapes": ("{uniform:{least:16,most:32,step:8}},sizes.csv", ("model=bert_base",)),
    "load.buckets": ("null,[h:32,h:48]", ("load.shapes=[{shape:h:16,share:1},{shape:h:48,share:2}]",)),
    "seed": ("0,1", ()),
    "repeats": ("1,2", ()),
    "batching.max_wait_ms": ("1,2", ("batch=8",)),
}
TYPED = {  # key -> how the command line spells it here, where that is not the key itself
    "backend.name": "backend",
    "model.name": "model",
    "precision.name": "precision",
    "load.kind": "load",
    "model.inputs": "+model.inputs.x",
}
NOT_IN_KEY = {"backend.script.machine"}  # a sweep cannot see it, so that two values are one variant


def test_every_field_of_every_axis_class_is_declared_as_an_axis() -> None:
    """A field that is none would be in keys and nowhere else."""

    def undeclared(kind: type) -> list[str]:
        hints = spec.axes.typing.get_type_hints(kind)
        missing = []
        for item in dataclasses.fields(kind):
            if METADATA not in item.metadata:
                inner = dataclass_of(hints[item.name])
                missing += undeclared(inner) if inner else [f"{kind.__name__}.{item.name}"]
        return missing

    assert undeclared(spec.Variant) == []


def test_every_key_of_an_axis_has_a_help_and_two_values_here() -> None:
    keys = set(spec.keyed())
    assert keys - PAIRS.keys() == NOT_IN_KEY
    assert PAIRS.keys() - keys == set()
    shown = {line.split()[0] for line in help_lines()}
    assert {key for key in keys if key not in shown and f"{key.partition('.')[0]}" not in shown} == set()
    assert [key for key, axis in spec.keyed().items() if not axis.info.help] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files that values name."""
    tmp_path = tmp_path_factory.mktemp("files")
    model = NETWORKS["cnn"]()
    onnx.save(model, tmp_path / "net.onnx")
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for name in ("other", "typed"):
        other.graph.doc_string = f"{name} file"
        onnx.save(other, tmp_path / f"{name}.onnx")
    shape = [dim.dim_value or 4 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    shape[0] = 4
    rng = np.random.default_rng(0)
    for name in ("train", "more"):
        x = rng.standard_normal(shape, np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x)
        np.savez(tmp_path / f"{name}_labels.npz", x=x, labels=np.arange(4) % 2)
    for name, gap in (("arrivals", 0.01), ("later", 0.02)):
        (tmp_path / f"{name}.csv").write_text("\n".join(f"{number * gap:.3f}" for number in range(200)) + "\n")
    (tmp_path / "sizes.csv").write_text("seq\n16\n8\n16\n")
    for name in ("one.plan", "two.plan"):
        (tmp_path / name).write_bytes(b"ftrt" + bytes(20) + bytes((10, 13, 0, 35)) + name.encode())
    for name in ("one.so", "two.so"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def planned(*words: str) -> Plan:
    request = compose.read(words)
    assert request is not None
    return plan.make(variants.from_config(config) for config in request.configs)


def check_told_apart(whole: Plan) -> None:
    """Hold each pair of variants apart, and each variant to the words that are printed for it."""
    comparison = spec.compare({work.key: work.variant for work in whole.works})
    assert len(set(whole.labels.values())) == len(whole.works)
    rows = {tuple(comparison.cell(work.key, axis) for axis in comparison.axes) for work in whole.works}
    assert len(rows) == len(whole.works)
    for work in whole.works:
        words = reproduce.overrides(work.variant, comparison.axes)
        again = planned(*shlex.split(shlex.join(words)))
        assert [one.key for one in again.works] == [work.key], words


@pytest.mark.parametrize("key", PAIRS)
def test_two_values_of_an_axis_give_two_names_two_rows_and_words_that_plan_each(
    key: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    values, words = PAIRS[key]
    whole = planned("-m", *words, f"{TYPED.get(key, key)}={values}")
    assert len(whole.works) == 2
    check_told_apart(whole)


@pytest.mark.parametrize(
    "words",
    [
        ("backend.script.service_us=100,130", "seed=0,1", "load.depth=1,2", "repeats=1,2"),
        ("batch=1,8", "streams=1,2", "batching.max_wait_ms=null,2", "load=curve,closed"),
        ("backend.script.distribution=constant,exponential", "model=tiny_cnn,mlp", "precision=fp32,tf32"),
        ("pipeline=sd_tiny", "pipeline.unet.precision=fp32,fp16", "pipeline.vae.batch=1,2", "streams=1,2"),
        ("pipeline=[mlp,{digits:2}],[digits,{mlp:2}]", "pipeline.mlp.cuda_graph=true,false", "precision=fp32,fp16"),
    ],
)
def test_every_pair_of_variants_of_a_plan_is_told_apart(words: tuple[str, ...]) -> None:
    whole = planned("-m", *SIMULATED, *words)
    assert len(whole.works) >= 8
    check_told_apart(whole)

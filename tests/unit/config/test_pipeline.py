"""`pipeline`: the forms that are taken, what each stage has of its own, and what is refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from factories import config

from sweep.config import compose, sweep_file, variants
from sweep.config.conf_files import choices
from sweep.errors import ConfigError
from sweep.report.mlflow import record_mapping
from sweep.spec import KeyMaker, Link, engine_key, flat, from_record, projection, variant_key
from sweep.storage import Record

if TYPE_CHECKING:
    from pathlib import Path


def made(table: Any, **values: Any) -> Any:
    return variants.from_config(config(pipeline=table, **values))


def planned(*words: str) -> list[Any]:
    request = compose.read(("backend=simulated", "load=closed", *words))
    assert request is not None
    return [variants.from_config(each) for each in request.configs]


def test_every_form_of_a_pipeline_is_one_variant(tmp_path: Path) -> None:
    table = "stages: [mlp, {digits: 3}]\nmlp: {outputs: {logits: scores}}\n"
    (tmp_path / "two.yaml").write_text(table)
    (tmp_path / "sweep.yaml").write_text(
        "backend: simulated\nload: closed\n"
        "pipeline: {name: two, stages: [mlp, {digits: 3}], mlp: {outputs: {logits: scores}}}\n"
        "sweep: {pipeline.digits.precision: [fp32, fp16]}\n"
    )
    (of_file,) = planned(f"pipeline={tmp_path / 'two.yaml'}", "pipeline.digits.precision=fp16")
    (typed,) = planned(
        "pipeline=[mlp,{digits:3}]",
        "pipeline.name=two",
        "pipeline.mlp.outputs={logits:scores}",
        "pipeline.digits.precision=fp16",
    )
    swept = sweep_file.read(tmp_path / "sweep.yaml", ())
    keys = [variant_key(variants.from_config(each)) for each in swept.configs]
    assert variant_key(of_file) == variant_key(typed) == keys[1] != keys[0]
    assert of_file.label == "two fp32 digits-precision-fp16 b1 s1"
    mlp, digits = of_file.pipeline.stages
    assert mlp.outputs == (Link(port="logits", tensor="scores"),)
    assert (mlp.count, mlp.precision, digits.count, digits.precision.name) == (1, None, 3, "fp16")
    assert digits.precision.guard, "as the recipe of conf/ has it"
    assert list(of_file.pipeline.runs()) == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert {link.tensor for link in of_file.pipeline.externals()} == {"x"}


def test_keys_of_one_network_are_as_they_were_and_a_record_gives_the_pipeline_back() -> None:
    alone = variants.from_config(config())
    assert "pipeline" not in projection(alone)
    assert KeyMaker().keys(alone) == (variant_key(alone), engine_key(alone))
    variant = made({"name": "stable_diffusion", "unet": {"precision": {"name": "fp16", "guard": False}}}, batch=2)
    assert KeyMaker().keys(variant) == (variant_key(variant), engine_key(variant))
    assert engine_key(variant) != engine_key(made({"name": "sd_tiny"}, batch=2))
    assert variant_key(from_record(flat(variant))) == variant_key(variant)
    record = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant=flat(variant))
    params = record_mapping.params(record)
    assert params["pipeline.unet.precision"] == "fp16"
    assert params["pipeline.unet.count"] == "50"
    assert params["pipeline.stages"] == "text_encoder:1,time_features:50,unet:50,ddim_step:50,vae:1"
    other = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant=flat(alone))
    assert record_mapping.params(other)["pipeline"] == "none"


@pytest.mark.parametrize("name", choices("pipeline"))
def test_every_pipeline_of_conf_is_planned(name: str) -> None:
    variant = made({"name": name})
    assert variant.onnx.model.name == name
    assert variant.pipeline.request is not None
    assert variant.label == f"{name} fp32 b1 s1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pipeline=nope",), "pipeline=nope: no such pipeline; there are: ocr, ocr_tiny, sd_tiny, stable_diffusion"),
        (("pipeline=[mlp,nope]",), "pipeline.nope: nope is no network of conf/model and no host step"),
        (("pipeline=[mlp,{digits:0}]",), "pipeline: digits=0: a loop runs 1 to 10000 times"),
        (("pipeline=[{loop:0,stages:[mlp]}]",), "pipeline: loop=0: a loop runs 1 to 10000 times"),
        (("pipeline=[mlp,mlp]",), "pipeline: stage mlp stands twice"),
        (("pipeline=[]",), "pipeline.stages=[]: give a list of stages"),
        (("pipeline=[[mlp]]",), "pipeline.stages: [mlp] is no stage"),
        (("pipeline=sd_tiny", "pipeline.unett.batch=2"), "pipeline.unett: no such stage; there are: text_encoder"),
        (("pipeline=sd_tiny", "pipeline.unet.bach=2"), "pipeline.unet.bach: no such key; there are: model, path"),
        (("pipeline=sd_tiny", "pipeline.unet.batch=0"), "pipeline.unet.batch=0: give a whole number of 1 or more"),
        (("pipeline=sd_tiny", "pipeline.unet.precision=fp17"), "pipeline.unet.precision=fp17: no such recipe"),
        (("pipeline=sd_tiny", "pipeline.unet.cuda_graph=3"), "pipeline.unet.cuda_graph=3: true or false"),
        (("pipeline=sd_tiny", "pipeline.ddim_step.precision=fp16"), "ddim_step is a host step, which has none"),
        (("pipeline=sd_tiny", "pipeline.ddim_step.host=os.system"), "host=os.system: no such host step; there are: "),
        (
            ("pipeline=sd_tiny", "pipeline.vae.inputs={latent:sample}"),
            "inputs.latent: no such name; there are: latents",
        ),
        (("pipeline=sd_tiny", "pipeline.vae.inputs={latents:noisy}"), "latents=noisy: no stage before writes it"),
        (("pipeline=sd_tiny", "pipeline.vae.streams=2"), "pipeline.vae.streams=2: needs pipeline.overlap=true"),
        (("pipeline=sd_tiny", "pipeline.overlap=2"), "pipeline.overlap=2: true or false"),
        (("pipeline=sd_tiny", "pipeline.outputs=[img]"), "pipeline.outputs=[img]: give a list of tensors"),
        (("pipeline=[ocr_detector_tiny,crop_boxes]",), "crop_boxes draws its rows; give rows (the mean) and most_rows"),
        (("pipeline=[argmax]",), "pipeline.argmax.inputs.scores=scores: no stage before writes it"),
        (
            ("pipeline=[mlp,argmax,sd_text_encoder_tiny]", "pipeline.argmax.inputs={scores:logits}", "pipeline.x=1"),
            "pipeline.x: no such stage",
        ),
        (
            ("pipeline=[digits,sd_text_encoder_tiny]", "pipeline.sd_text_encoder_tiny.inputs={input_ids:logits}"),
            "logits is float32, and the network takes int64; map another tensor",
        ),
        (
            ("pipeline=sd_tiny", "model.samples=x.npz"),
            "model.samples: belongs to one network, and pipeline= has several",
        ),
        (("pipeline=sd_tiny", "beside=[{model:mlp}]"), "beside: belongs to one network"),
        (("pipeline=sd_tiny", "layers=true"), "layers: belongs to one network"),
        (("pipeline=sd_tiny", "batching.max_wait_ms=1", "batch=4"), "batching.max_wait_ms: belongs to one network"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        planned(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)

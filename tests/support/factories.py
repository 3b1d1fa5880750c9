"""Make configs and variants for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from sweep.config.schema import BackendConfig, Config, ScriptConfig
from sweep.models import zoo
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant

QUANTIZED = {"quantize_ops": ("Conv", "MatMul", "Gemm"), "calibration_batches": 1}
STAGES = {"onnx": OnnxAxes, "engine": EngineAxes, "session": SessionAxes, "load": LoadAxes}


def config(**values: Any) -> Config:
    """Return a config with values at dotted keys, ``load__min_s`` for ``load.min_s``."""
    result = Config(backend=BackendConfig(name="simulated", script=ScriptConfig()))
    for key, value in values.items():
        *path, last = key.split("__")
        target = result
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    return result


def recipe(name: str, **values: Any) -> Precision:
    """Return a precision by its name: ``int8_fp16`` computes products in int8 and the rest in fp16."""
    dtype, _, rest = name.partition("_")
    return Precision(name=name, **({"dtype": dtype, "rest": rest or None} | values))


def zoo_model(name: str) -> ModelRef:
    """Return the reference of a shipped network in its current revision."""
    return ModelRef(name=name, revision=zoo.entry(name).revision)


def variant(
    model: str | ModelRef = "tiny_cnn", precision: str | Precision = "fp32", backend: str = "onnxruntime", **axes: Any
) -> Variant:
    """Return a variant of a shipped network, as the command line would make it.

    Args:
        model: a shipped network's name, or the reference itself.
        precision: a recipe's name (see ``recipe``), or the recipe itself.
        backend: who runs it.
        axes: values of single axes by their names, such as ``streams=2``, and of whole stages, ``load=LoadAxes(...)``.
    """
    whole = {stage: axes.pop(stage, None) for stage in STAGES}
    network = zoo_model(model) if isinstance(model, str) else model
    typed = recipe(precision) if isinstance(precision, str) else precision
    whole["onnx"] = whole["onnx"] or OnnxAxes(model=network, precision=typed)
    for stage, kind in STAGES.items():
        own = {name: axes.pop(name) for name in {item.name for item in dataclasses.fields(kind)} & axes.keys()}
        whole[stage] = dataclasses.replace(whole[stage] or kind(), **own)
    if axes:
        raise TypeError(f"no such axis: {', '.join(sorted(axes))}")
    return Variant(backend=backend, **whole)

"""``model``: the network, with its revision or digest."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import models
from sweep.axes import InputFix, ModelRef
from sweep.config import InputConfig
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from sweep.config import ModelConfig


def model_ref(config: ModelConfig) -> ModelRef:
    """The network, by name or from a file."""
    inputs = tuple(_input(name, given) for name, given in sorted(config.inputs.items()))
    if inputs and config.path is None:
        raise ConfigError(f"model.inputs: {config.name} is built here and its inputs are fixed; give model.path too")
    return resolved(config.name, config.path, inputs, config.batch_dim)


@cache
def check_batch(model: ModelRef, batch: int) -> None:
    """Refuse a batch that the model does not take, once for each pair of them."""
    models.check_batch(models.signature(model), batch, model.name)


@cache
def resolved(name: str, path: str | None, inputs: tuple[InputFix, ...], batch_dim: str | None) -> ModelRef:
    """The model with its revision or digest; read once a sweep, however many variants share it."""
    if path is None:
        return ModelRef(name=name, revision=models.zoo.entry(name).revision, inputs=inputs, batch_dim=batch_dim)
    file = Path(path).expanduser().resolve()
    ref = ModelRef(name=file.stem, path=str(file), inputs=inputs, batch_dim=batch_dim)
    models.signature(ref)
    return dataclasses.replace(ref, digest=models.file_digest(file))


def _input(name: str, given: object) -> InputFix:
    """``model.inputs.NAME``, which Hydra cannot check: its names are the model's."""
    known = {item.name for item in dataclasses.fields(InputConfig)}
    if not isinstance(given, dict) or not set(given) <= known:
        keys = ", ".join(sorted(set(given) - known)) if isinstance(given, dict) else given
        raise ConfigError(f"model.inputs.{name}: {keys} is not known; there are: {', '.join(sorted(known))}")
    shape, low, high = given.get("shape"), given.get("low"), given.get("high")
    for key, value in (("low", low), ("high", high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"model.inputs.{name}.{key}={value}: must be a number")
    if shape is not None and not isinstance(shape, list):
        raise ConfigError(f"model.inputs.{name}.shape={shape}: must be a list, as in [batch,512]")
    for size in shape or ():
        if size != "batch" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ConfigError(f"model.inputs.{name}.shape: {size!r} is neither a size nor the word batch")
    return InputFix(
        name=name,
        shape=None if shape is None else tuple(shape),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )

"""Make the user's own inputs from `model.samples`, and the sizes of a model's inputs that they settle."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import models
from sweep.errors import ConfigError
from sweep.models import datasets

if TYPE_CHECKING:
    from sweep.config.schema import ModelConfig
    from sweep.spec import InputFix, ModelRef, SampleData


def sample_data(config: ModelConfig, model: ModelRef) -> SampleData | None:
    """Return the user's own inputs, checked against the model's; None without any.

    The first half calibrates and the rest is timed and compared, unless calibration has data of its own. An engine that
    was built elsewhere gets the same rest, so that it can stand beside one that is built here.

    Raises:
        ModelError: the samples cannot be read or do not fit; one line.
    """
    if config.samples is None:
        return None
    data = _read_samples(config.samples, model)
    apart = config.calibration is None and data.count >= datasets.APART_FROM
    return dataclasses.replace(data, calibrating=data.count // 2) if apart else data


def refuse_without_network(config: ModelConfig, plan: str) -> None:
    """Refuse samples for a plan that comes without a network: its inputs are known once it is loaded.

    Raises:
        ConfigError: there are samples; one line.
    """
    if config.samples is not None:
        raise ConfigError(
            f"model.samples={config.samples}: the inputs of {plan} are known once it is loaded; name the network that "
            "it was built from beside it, as in model.path=net.onnx"
        )


def settled_inputs(text: str | None, ref: ModelRef) -> tuple[InputFix, ...]:
    """Return the fixes of a file's inputs: those of the user, and the sizes that the samples settle.

    Args:
        text: ``model.samples``; None for none.
        ref: of the file, with what the user fixed.

    Raises:
        ModelError: the samples cannot be read; one line.
    """
    if text is None or ref.path is None:
        return ref.inputs
    names = [spec.name for spec in models.declared_inputs(Path(ref.path))]
    headers = datasets.input_samples.shapes(_headers(text), names)
    return models.settle_by_samples(Path(ref.path), ref, {name: header.shape for name, header in headers.items()})


@cache
def _parsed(text: str) -> SampleData:
    """Return the digest of the files; computed once per process."""
    return datasets.parse_samples(text)


@cache
def _headers(text: str) -> list[datasets.sample_files.SampleFile]:
    return datasets.sample_files.headers(_parsed(text))


@cache
def _read_samples(text: str, model: ModelRef) -> SampleData:
    """Read and check the samples; once per process, however many variants share them."""
    data = _parsed(text)
    return dataclasses.replace(data, count=datasets.InputSamples(data, models.signature(model)).count)

"""``model.labels`` and ``model.scores``: the samples that a model of one's own is scored on, and by which output."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import models
from sweep.errors import ConfigError
from sweep.models import datasets, render_shape

if TYPE_CHECKING:
    from sweep.config.schema import AccuracyConfig, ModelConfig
    from sweep.models import OutputSpec
    from sweep.spec import LabelledData, ModelRef

_CLASSES_FROM = 2
_GATES = ("min_score", "max_score_drop")


def labelled_data(config: ModelConfig, model: ModelRef) -> LabelledData | None:
    """The user's samples, held to the network's inputs and to the output that is scored; None for none."""
    if config.labels is None:
        if config.scores is not None:
            raise ConfigError(f"model.scores={config.scores}: names the output for model.labels, which is not given")
        return None
    if model.path is None:
        why = "brings its own labels" if models.has_data(model) else "has random weights"
        raise ConfigError(
            f"model.labels={config.labels}: {model.name} is built here and {why}; labels are for a model of your own "
            "(model.path, model.torch or model.saved_model)"
        )
    return _checked(config.labels, config.scores, model)


def refuse_unscored(config: AccuracyConfig, data: LabelledData | None, model: ModelRef) -> None:
    """Refuse a gate of the score where nothing is scored."""
    gates = [(name, value) for name in _GATES if (value := getattr(config, name)) is not None]
    if gates and data is None and not models.has_data(model):
        name, value = gates[0]
        raise ConfigError(f"accuracy.{name}={value:g}: {model.name} has no labels to be scored on; give model.labels=")


@cache
def _checked(text: str, scores: str | None, model: ModelRef) -> LabelledData:
    """Read once a sweep, however many variants share it."""
    spec = _scored(text, scores, model)
    classes = None if spec.shape is None or isinstance(spec.shape[1], str) else spec.shape[1]
    data = datasets.parse_labels(text, spec.name, classes)
    datasets.check(data, models.signature(model))
    return data


def _scored(text: str, asked: str | None, model: ModelRef) -> OutputSpec:
    """The output with a score a class: the one that was named, else the only one that can be."""
    there = models.outputs(Path(str(model.path)))
    shown = ", ".join(_shown(spec) for spec in there)
    if asked is not None:
        found = next((spec for spec in there if spec.name == asked), None)
        if found is None:
            raise ConfigError(f"model.scores={asked}: {model.name} has no such output; it has {shown}")
        if not _may_be(found):
            raise ConfigError(f"model.scores={asked}: must be floats [batch,classes], and is {_shown(found)}")
        return found
    able = [spec for spec in there if _may_be(spec)]
    if not able:
        raise ConfigError(f"model.labels={text}: no output of {model.name} is floats [batch,classes]; it has {shown}")
    if len(able) > 1:
        names = " and ".join(spec.name for spec in able)
        raise ConfigError(
            f"model.labels={text}: {names} of {model.name} could be scores of classes; name one, as in "
            f"model.scores={able[0].name}"
        )
    return able[0]


def _may_be(spec: OutputSpec) -> bool:
    """Whether it can be [batch,classes], as far as the file says."""
    if not spec.is_float or spec.shape is None:
        return spec.is_float
    return len(spec.shape) == 2 and (isinstance(spec.shape[1], str) or spec.shape[1] >= _CLASSES_FROM)  # noqa: PLR2004 - (batch, classes)


def _shown(spec: OutputSpec) -> str:
    kind = "" if spec.is_float else " of no floats"
    return f"{spec.name} {'of a shape not said' if spec.shape is None else render_shape(spec.shape)}{kind}"

"""Make the evaluation set of a user's own model from `model.labels` and `model.scores`."""

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

_MIN_CLASSES = 2
_GATES = ("min_score", "max_score_drop")


def labelled_data(config: ModelConfig, model: ModelRef) -> LabelledData | None:
    """Return the user's labelled samples, checked against the model's inputs and outputs; None without labels.

    Raises:
        ConfigError: the samples or the scored output do not fit the model, or it is not a user's own; one line.
    """
    if config.labels is None:
        if config.scores is not None:
            raise ConfigError(f"model.scores={config.scores}: names the output for model.labels, which is not given")
        return None
    if model.path is None:
        reason = "brings its own labels" if models.has_data(model) else "has random weights"
        raise ConfigError(
            f"model.labels={config.labels}: {model.name} is built here and {reason}; labels are for a model "
            "of your own (model.path, model.torch or model.saved_model)"
        )
    return _read_labels(config.labels, config.scores, model)


def refuse_unscored(config: AccuracyConfig, data: LabelledData | None, model: ModelRef) -> None:
    """Refuse an accuracy gate on the score if nothing is scored: without labels, or with random weights."""
    if data is None and not models.has_data(model):
        refuse_gates_on_a_score(config, model.name)


def refuse_gates_on_a_score(config: AccuracyConfig, name: str) -> None:
    """Refuse an accuracy gate on the score of the network called `name`, which has no labels."""
    for gate in _GATES:
        value = getattr(config, gate)
        if value is not None:
            raise ConfigError(f"accuracy.{gate}={value:g}: {name} has no labels to be scored on; give model.labels=")


@cache
def _read_labels(text: str, scores: str | None, model: ModelRef) -> LabelledData:
    """Read and check the samples; once per process, however many variants share them."""
    spec = _scored_output(text, scores, model)
    classes = None if spec.shape is None or isinstance(spec.shape[1], str) else spec.shape[1]
    data = datasets.parse_labels(text, spec.name, classes)
    datasets.check(data, models.signature(model))
    return data


def _scored_output(text: str, scores: str | None, model: ModelRef) -> OutputSpec:
    """Return the output with a score per class: `scores` if given, else the only candidate."""
    outputs = models.outputs(Path(str(model.path)))
    listing = ", ".join(_describe(spec) for spec in outputs)
    if scores is not None:
        output = next((spec for spec in outputs if spec.name == scores), None)
        if output is None:
            raise ConfigError(f"model.scores={scores}: {model.name} has no such output; it has {listing}")
        if not _may_hold_scores(output):
            raise ConfigError(f"model.scores={scores}: must be floats [batch,classes], and is {_describe(output)}")
        return output
    candidates = [spec for spec in outputs if _may_hold_scores(spec)]
    if not candidates:
        raise ConfigError(f"model.labels={text}: no output of {model.name} is floats [batch,classes]; it has {listing}")
    if len(candidates) > 1:
        names = " and ".join(spec.name for spec in candidates)
        raise ConfigError(
            f"model.labels={text}: {names} of {model.name} could be scores of classes; name one, as in "
            f"model.scores={candidates[0].name}"
        )
    return candidates[0]


def _may_hold_scores(spec: OutputSpec) -> bool:
    """Tell whether an output can be floats [batch,classes]; a shape that the file leaves open may be one."""
    if not spec.is_float or spec.shape is None:
        return spec.is_float
    return len(spec.shape) == 2 and (isinstance(spec.shape[1], str) or spec.shape[1] >= _MIN_CLASSES)  # noqa: PLR2004 - (batch, classes)


def _describe(spec: OutputSpec) -> str:
    kind = "" if spec.is_float else " of no floats"
    return f"{spec.name} {'of a shape not said' if spec.shape is None else render_shape(spec.shape)}{kind}"

"""Recommend a variant of each model: the one with the highest capacity under the SLO, else with the highest peak.

Variants that the measurement cannot distinguish from the best one are ties. Models are never ranked against each other:
their samples are different work.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.analysis import accuracy_gates, drifted
from sweep.report import capacity_ranking, peak_ranking
from sweep.report.comparison import compared
from sweep.report.recommendation import Answer, names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import SpreadHistory
    from sweep.spec import Slo
    from sweep.storage import Record


_MODELS = "One answer a model, for samples of different models are different work."
_SHAPES = "One answer a model and shape, for samples of different sizes are different work."
_BESIDE = "One answer for each model alone, and one beside others: what runs beside it is not chosen by its settings."


def answer(records: Sequence[Record], slo: Slo | None, history: SpreadHistory | None = None) -> Answer:
    """Rank the variants of each model and recommend the best.

    Args:
        records: records of the sweep; only ``ok`` ones are ranked, and none that drifted, whose peak is ``unstable`` or
            ``short``, or whose outputs rounding alone loses, unless all are so.
        slo: latency objective; None ranks by the closed loop's peak.
        history: what starts of these variants differ by; None where nothing measured it.

    Returns:
        The recommendation; its ``best`` is None if no record can be ranked.
    """
    labels = compared(records).labels
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(_model(record), []).append(record)
    if len(models) < 2:  # noqa: PLR2004 - two is several
        return _of_model(records, slo, history, labels)
    answers = {name: _of_model(items, slo, history, labels) for name, items in models.items()}
    lines = [f"{_title(models[name][0])}: {part.text}" for name, part in answers.items()]
    names = {str(items[0].variant.get("model")) for items in models.values()}
    text = _BESIDE if any(map(_neighbours, records)) else _MODELS if len(names) == len(models) else _SHAPES
    return Answer(
        best=None,
        tied=(),
        text="\n".join([text, *lines]),
        decided=any(part.decided for part in answers.values()),
        ratios={key: ratio for part in answers.values() for key, ratio in part.ratios.items()},
        models=answers,
    )


def _title(record: Record) -> str:
    """Return the name of a record's model, with the sizes that ``shape=`` gave it and what runs beside it.

    Examples are ``bert_base seq:128`` and ``resnet50 beside bert_base``.
    """
    reference = record.variant.get("model_ref")
    shape = reference.get("shape") if isinstance(reference, dict) else None
    sizes = [f"{item.get('name')}:{item.get('size')}" for item in shape or () if isinstance(item, dict)]
    others = _neighbours(record)
    beside = f"beside {', '.join(others)}" if others else ""
    return " ".join(filter(None, [str(record.variant.get("model")), "+".join(sizes), beside]))


def _neighbours(record: Record) -> list[str]:
    """Return the names of the models that run beside that of a record."""
    names = []
    others = record.variant.get("beside")
    for other in others if isinstance(others, list | tuple) else ():
        onnx = other.get("onnx") if isinstance(other, dict) else None
        model = onnx.get("model") if isinstance(onnx, dict) else None
        names.append(str(model.get("name")) if isinstance(model, dict) else "?")
    return names


def _model(record: Record) -> str:
    """Return what identifies the work of a record, its model first: its file, sizes of inputs, what runs beside it."""
    words = [str(record.variant.get("model")), *(f"beside {name}" for name in _neighbours(record))]
    reference = record.variant.get("model_ref")
    if not isinstance(reference, dict):  # records of the first versions, and damaged ones, name the model alone
        return " ".join(words)
    sizes = [reference.get(name) for name in ("inputs", "shape")]
    rest = [reference.get("digest"), *(item for part in sizes if isinstance(part, list | tuple) for item in part)]
    return " ".join([*words, *(str(item) for item in rest if item)])


def _of_model(
    records: Sequence[Record], slo: Slo | None, history: SpreadHistory | None, labels: Mapping[str, str]
) -> Answer:
    """Rank the variants of one model."""
    passed = [record for record in records if record.status == "ok"]
    ok = [record for record in passed if not _is_lost(record)] or passed
    ranked = [record for record in ok if not drifted(record)] or ok
    result = (
        capacity_ranking.by_capacity(ranked, slo, history, labels)
        if slo
        else peak_ranking.by_peak(ranked, history, labels)
    )
    if result.best is None:
        return result
    text = result.text
    lost = names([record for record in passed if record not in ok], labels)
    if lost:
        text += f" Not ranked, since rounding alone loses their outputs (model.labels= scores them): {lost}."
    return dataclasses.replace(result, text=text + _drift_text(ok, labels))


def _is_lost(record: Record) -> bool:
    """Tell whether rounding alone loses the outputs of a variant, and no labelled samples say what that costs."""
    recipe = record.variant.get("precision_recipe") or {}
    dtype = str(recipe.get("dtype", record.variant.get("precision")))
    has_score = record.accuracy is not None and "score" in record.accuracy
    return not has_score and accuracy_gates.lost_by_rounding(dtype, record.accuracy)


def _drift_text(ok: Sequence[Record], labels: Mapping[str, str]) -> str:
    excluded = [record for record in ok if drifted(record)]
    if not excluded:
        return ""
    if len(excluded) == len(ok):
        return " The machine drifted while all of them were measured: measure again (force=true)."
    return f" Not ranked, since the machine drifted while they were measured (force=true): {names(excluded, labels)}."

"""Hold what a sweep recommends: the best variant of each model, its ties, and the words for it."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import best_comparison
    from sweep.storage import Record

_MOST_NAMES = 8  # of variants in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold the variant that the sweep recommends; of several models, an answer for each.

    Attributes:
        best: record of the variant with the highest figure; None when no variant has one, and of several models.
        tied: records of other variants that this measurement cannot distinguish from the best one.
        text: the recommendation; of several models, a line each.
        decided: whether the best one is told from any other, or is alone.
        overrides: words of the command line that plan the best variant alone; empty where they were not computed.
        ratios: by the record's key, the figure of each ranked variant as a share of the best one's of its model.
        models: the answers of several models, by the name of the model; empty for a single one.
    """

    best: Record | None
    tied: tuple[Record, ...]
    text: str
    decided: bool = True
    overrides: tuple[str, ...] = ()
    ratios: Mapping[str, best_comparison.Ratio] = field(default_factory=dict)
    models: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Answer, ...]:
        """Return the answer of each model: this one where there is a single model."""
        return tuple(part for model in self.models.values() for part in model.parts) or (self,)

    @property
    def settings(self) -> str:
        """Return the overrides quoted for a shell, as ``With model=digits batch=8``; "" without any; a line a model."""
        return "\n".join(f"With {shlex.join(part.overrides)}" for part in self.parts if part.overrides)

    def mark(self, record: Record) -> str:
        """Return ``>`` for the best variant, ``=`` for one that is not told from it, and "" for any other."""
        for part in self.parts:
            if part.best is record:
                return ">" if part.decided else "="
            if any(record is item for item in part.tied):
                return "="
        return ""

    def ratio_text(self, record: Record) -> str:
        """Return the figure of `record` as a share of the best one's, as ``0.97 to 0.99``; ``-`` if it is unknown."""
        ratio = self.ratios.get(record.key)
        if ratio is None or math.isinf(ratio.high):
            return "-"
        if ratio.low == ratio.high == 1:
            return "1"
        decimals = 2 if abs(ratio.high - 1) >= 0.005 and ratio.high - ratio.low >= 0.02 else 3  # noqa: PLR2004
        return f"{ratio.low:.{decimals}f} to {ratio.high:.{decimals}f}"


def with_overrides(recommendation: Answer, overrides: Mapping[str, tuple[str, ...]]) -> Answer:
    """Return the answer with the words of the command line that plan its best variants, given by the records' keys."""
    if recommendation.models:
        models = {name: with_overrides(part, overrides) for name, part in recommendation.models.items()}
        return dataclasses.replace(recommendation, models=models)
    if recommendation.best is None:
        return recommendation
    return dataclasses.replace(recommendation, overrides=overrides.get(recommendation.best.key, ()))


def of_sweeps(answers: Mapping[str, Answer]) -> Answer:
    """Return the answers of several sweeps, by the sweep's name, as one; a single one is returned as it is."""
    if len(answers) == 1:
        return next(iter(answers.values()))
    return Answer(
        best=None,
        tied=(),
        text="\n".join(f"{name}: {part.text}" for name, part in answers.items()),
        decided=any(part.decided for part in answers.values()),
        ratios={key: ratio for part in answers.values() for key, ratio in part.ratios.items()},
        models=dict(answers),
    )


def names(records: Sequence[Record], labels: Mapping[str, str]) -> str:
    """Return the labels of `records` in a line; of many, the first, and how many more there are."""
    names = [labels[record.key] for record in records]
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES + 1 else ""
    return ", ".join(names[:_MOST_NAMES] if rest else names) + rest

"""Score a session on labelled samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sweep.models import EvaluationSet

    Infer = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

_CLASSES_FROM = 2


def score(
    evaluation_set: EvaluationSet, batch: int, infer: Infer, tell: Callable[[int], None] = lambda _done: None
) -> float:
    """Compute the top-1: the share of labelled samples whose largest output is that of their class.

    Args:
        evaluation_set: the samples.
        batch: samples in an inference.
        infer: gives the outputs of a batch of them.
        tell: called with the number of samples done.

    Returns:
        0 to 1; a row that is not all finite is wrong.

    Raises:
        LabelError: the output holds no scores of such classes, or the samples cannot be had.
    """
    correct = count = 0
    for feeds, labels in evaluation_set.batches(batch):
        rows = np.asarray(infer(feeds)[evaluation_set.output])
        _refuse(rows, labels, evaluation_set.size(batch), evaluation_set.output)
        rows = rows[: len(labels)]
        correct += int(np.count_nonzero((rows.argmax(axis=1) == labels) & np.isfinite(rows).all(axis=1)))
        count += len(labels)
        tell(count)
    return correct / count


def _refuse(rows: np.ndarray, labels: np.ndarray, size: int, output: str) -> None:
    """Refuse outputs that hold no scores, which a file that leaves its shapes open shows only once it runs."""
    if rows.ndim != 2 or len(rows) != size or rows.shape[1] < _CLASSES_FROM:  # noqa: PLR2004 - (batch, classes)
        raise LabelError(
            f"model.labels: output {output} has shape {list(rows.shape)} for a batch of {size}, not [batch,classes]; "
            "model.scores names another"
        )
    if labels.max() >= rows.shape[1]:
        raise LabelError(
            f"model.labels: a sample is of class {labels.max()}, but output {output} has {rows.shape[1]}, from 0"
        )

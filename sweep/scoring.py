"""Top-1 of a session on samples whose class is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sweep.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sweep.axes import JsonDict

    Infer = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

_CLASSES_FROM = 2
_ROUNDING = 1e-9  # 0.8 - 0.7 is more than 0.1


class Held(Protocol):
    """Samples whose class is known: what comes with a network (``models.Labelled``), or a user's own (``labels``)."""

    @property
    def what(self) -> str:
        """Says in the record what they are."""
        ...

    @property
    def output(self) -> str:
        """Name of the output [batch,classes] whose largest entry is the answer."""
        ...

    @property
    def identity(self) -> str | None:
        """What tells these samples from any other; None as long as it is not known."""
        ...

    def size(self, batch: int) -> int:
        """Samples that an inference takes, where ``batch`` was asked for."""
        ...

    def batches(self, batch: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Inputs of ``size(batch)`` samples, and labels; the last ones may be padding that has no label."""
        ...


def score(held: Held, batch: int, infer: Infer, tell: Callable[[int], None] = lambda _done: None) -> float:
    """Top-1: the share of labelled samples whose largest output is that of their class.

    Args:
        held: the samples.
        batch: samples in an inference.
        infer: gives the outputs of a batch of them.
        tell: called with the number of samples done.

    Returns:
        0 to 1; a row that is not all finite is wrong.

    Raises:
        LabelError: the output holds no scores of such classes, or the samples cannot be had.
    """
    right = done = 0
    for feeds, labels in held.batches(batch):
        rows = np.asarray(infer(feeds)[held.output])
        _refuse(rows, labels, held.size(batch), held.output)
        rows = rows[: len(labels)]
        right += int(np.count_nonzero((rows.argmax(axis=1) == labels) & np.isfinite(rows).all(axis=1)))
        done += len(labels)
        tell(done)
    return right / done


def _refuse(rows: np.ndarray, labels: np.ndarray, size: int, output: str) -> None:
    """What a file that leaves its shapes open shows only once it runs."""
    if rows.ndim != 2 or len(rows) != size or rows.shape[1] < _CLASSES_FROM:  # noqa: PLR2004 - (batch, classes)
        raise LabelError(
            f"model.labels: output {output} has shape {list(rows.shape)} for a batch of {size}, not [batch,classes]; "
            "model.scores names another"
        )
    if labels.max() >= rows.shape[1]:
        raise LabelError(
            f"model.labels: a sample is of class {labels.max()}, but output {output} has {rows.shape[1]}, from 0"
        )


def too_low(found: JsonDict, least: float | None, most_drop: float | None) -> str | None:
    """Which gate the score does not keep; None where it keeps both, or nothing was scored.

    Args:
        found: the record's ``accuracy``.
        least: score, 0 to 1; None for no such gate.
        most_drop: below that of fp32, 0 to 1; None for no such gate.
    """
    right = found.get("score")
    if right is None:
        return None
    said = f"accuracy: {right:.2%} of {found['scored_on']} are right"
    if least is not None and right < least - _ROUNDING:
        return f"{said}, below the {least:.4g} that was asked for (accuracy.min_score)"
    drop = found["reference_score"] - right
    if most_drop is not None and drop > most_drop + _ROUNDING:
        return (
            f"{said}, {drop * 100:.2f} points below fp32's {found['reference_score']:.2%}; {most_drop * 100:g} were "
            "allowed (accuracy.max_score_drop)"
        )
    return None

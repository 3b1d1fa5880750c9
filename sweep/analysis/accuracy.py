"""Compare the outputs of the session that was timed with those of the fp32 graph on onnxruntime, same inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sweep.storage import Accuracy, AccuracyFigures, RepeatedAccuracy

    Outputs = Mapping[str, np.ndarray]

LOST_DB = 6.0  # between two looks at one session: what differs by less may be the order of a sum
_CLASSES_FROM = 2  # outputs of shape (batch, n >= 2) are read as class scores
REFERENCE = "onnxruntime fp32, same inputs"
TYPED_REFERENCE = "onnxruntime on the typed file itself, same inputs: what its own types cost is not seen"


def against(
    expected: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    note: str | None = None,
    reference: str = REFERENCE,
    names: Sequence[str] = (),
) -> Accuracy:
    """Return the record's ``accuracy`` over all float outputs.

    Args:
        expected: outputs of the reference for the inputs that were timed, by name.
        outputs: outputs of the timed session for the same inputs, by name.
        note: what a reader of the figures should know.
        reference: name of the reference.
        names: every output of the network; those that are not compared are listed in the record and in the note.
    """
    compared = _compared(expected, outputs)
    not_compared = [name for name in names if name not in compared]
    if not_compared:
        remark = f"not compared (no floats): {', '.join(not_compared)}"
        note = f"{note}; {remark}" if note else remark
    listed = {"not_compared": not_compared} if not_compared else {}
    # A cast, for mypy combines no two tables of which one has optional keys.
    return cast("Accuracy", {"reference": reference, "note": note, **listed, **errors(expected, outputs)})


def _compared(expected: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Name the outputs that are compared: the floats that both sides have."""
    return [name for name in expected if np.issubdtype(expected[name].dtype, np.floating) and name in outputs]


def again(expected: Outputs, first: Outputs, looks: Iterable[Mapping[int, Outputs]]) -> RepeatedAccuracy:
    """Return the record's ``accuracy.again``: the worst of many inferences on all streams, under a further load.

    A kernel that races, or a buffer that two streams share, is right alone and wrong under load; some only once in
    a while.

    Args:
        expected: outputs of the reference, by name.
        first: outputs of the session after it was timed, by name.
        looks: outputs by stream, each time after a further burst; compared one by one, at least one.
    """
    first_figures = errors(expected, first)
    figures = [
        (stream, first_figures if _identical(first, outputs) else errors(expected, outputs))
        for look in looks
        for stream, outputs in look.items()
    ]
    stream, worst = min(figures, key=lambda item: _badness(item[1]))
    lost_db = _lost_db(first_figures, worst)
    repeated = {
        "streams": len({number for number, _ in figures}),
        "looks": len(figures),
        "wrong": sum(_went_wrong(first_figures, item) for _, item in figures),
        "stream": stream,
        "identical": all(item is first_figures for _, item in figures),
        "lost_db": lost_db if math.isfinite(lost_db) else None,
        **worst,
    }
    return cast("RepeatedAccuracy", repeated)  # as in ``against``


def _lost_db(first: AccuracyFigures, later: AccuracyFigures) -> float:
    return 0.0 if later is first else level(first) - level(later)


def _went_wrong(first: AccuracyFigures, later: AccuracyFigures) -> bool:
    return (later.get("nonfinite") or 0) > (first.get("nonfinite") or 0) or _lost_db(first, later) > LOST_DB


def _badness(figures: AccuracyFigures) -> tuple[int, float]:
    return -(figures.get("nonfinite") or 0), level(figures)


def level(figures: AccuracyFigures) -> float:
    """Return the SQNR, dB; infinite where there is no error, or none is known."""
    return math.inf if figures["sqnr_db"] is None else float(figures["sqnr_db"])


def _identical(first: Outputs, second: Outputs) -> bool:
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape and first[name].tobytes() == second[name].tobytes() for name in first
    )


def errors(expected: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> AccuracyFigures:
    """Measure the error of ``outputs``, y, against ``expected``, r, float outputs pooled.

    Returns:
        Every figure of ``AccuracyFigures``; all are None where shapes differ (a detector may keep another number of
        boxes) or the reference is not finite. ``sqnr_db`` is None when the two are equal, ``cosine_centred`` for a
        batch of 1 (what all samples share makes any two runs look alike, so the mean over the batch, axis 0, is taken
        off), ``top1_agreement`` where no output has the shape (batch, classes).
    """
    names = _compared(expected, outputs)
    if not names or any(expected[name].shape != outputs[name].shape for name in names):
        return _unknown(None)
    reference = np.concatenate([expected[name].astype(np.float64).ravel() for name in names])
    value = np.concatenate([outputs[name].astype(np.float64).ravel() for name in names])
    nonfinite = int(np.count_nonzero(~np.isfinite(value)))
    if nonfinite or not reference.size or not np.all(np.isfinite(reference)):
        return _unknown(nonfinite)
    noise, signal = float(np.sum((reference - value) ** 2)), float(np.sum(reference**2))
    largest, wrong = float(np.max(np.abs(reference))), float(np.max(np.abs(reference - value)))
    pairs = [(expected[name], outputs[name]) for name in names]
    return {
        "sqnr_db": 10 * math.log10(signal / noise) if noise and signal else None,
        "max_abs": wrong,
        "max_rel": wrong / largest if largest else None,
        "cosine": _cosine(reference, value),
        "cosine_centred": _centred(pairs),
        "top1_agreement": _top1(pairs),
        "nonfinite": 0,
    }


def _unknown(nonfinite: int | None) -> AccuracyFigures:
    return {
        "sqnr_db": None,
        "max_abs": None,
        "max_rel": None,
        "cosine": None,
        "cosine_centred": None,
        "top1_agreement": None,
        "nonfinite": nonfinite,
    }


def _cosine(first: np.ndarray, second: np.ndarray) -> float | None:
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms else None


def _centred(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Return the cosine of both less the reference's mean over the batch; None for a batch of 1."""
    batched = [pair for pair in pairs if pair[0].ndim and len(pair[0]) > 1]
    if not batched:
        return None
    means = [reference.astype(np.float64).mean(axis=0) for reference, _ in batched]
    first, second = (
        np.concatenate([(pair[side] - mean).ravel() for pair, mean in zip(batched, means, strict=True)])
        for side in (0, 1)
    )
    return _cosine(first, second)


def _top1(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    agree = [
        np.mean(reference.argmax(axis=1) == value.argmax(axis=1))
        for reference, value in pairs
        if reference.size and reference.ndim == 2 and reference.shape[1] >= _CLASSES_FROM  # noqa: PLR2004 - (batch, classes)
    ]
    return float(np.mean(agree)) if agree else None

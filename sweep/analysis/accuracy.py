"""Accuracy of the session that was timed, against the fp32 graph on onnxruntime with the same inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sweep.spec import JsonDict

    Outputs = Mapping[str, np.ndarray]

LOST_DB = 6.0  # between two looks at one session: what differs by less may be the order of a sum
_CLASSES_FROM = 2  # outputs of shape (batch, n >= 2) are read as class scores
_FIGURES = ("sqnr_db", "max_abs", "max_rel", "cosine", "cosine_centred", "top1_agreement", "nonfinite")
REFERENCE = "onnxruntime fp32, same inputs"
TYPED_REFERENCE = "onnxruntime on the typed file itself, same inputs: what its own types cost is not seen"


def against(
    expected: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    note: str | None = None,
    reference: str = REFERENCE,
) -> JsonDict:
    """The record's ``accuracy``, over all float outputs.

    Args:
        expected: what the reference gives for the inputs that were timed.
        outputs: what the timed session gave for them.
        note: what a reader of the figures should know.
        reference: what ``expected`` came from.

    Returns:
        {reference, note} and the figures of ``errors``.
    """
    return {"reference": reference, "note": note, **errors(expected, outputs)}


def again(expected: Outputs, first: Outputs, looks: Iterable[Mapping[int, Outputs]]) -> JsonDict:
    """The record's ``accuracy.again``: the worst of many inferences on all streams, under a further load.

    A kernel that races, or a buffer that two streams share, is right alone and wrong under load; some only once in
    a while.

    Args:
        expected: what the reference gives.
        first: outputs of the session after it was timed.
        looks: outputs by stream, each time after a further burst; looked at one by one, one at least.

    Returns:
        {streams, looks: outputs that were looked at, wrong: those that are not finite or lost more than 6 dB since
        ``first``, stream: that of the worst, identical: every bit of them all is as in ``first``, lost_db: SQNR that
        the worst lost} and the figures of ``errors`` for it.
    """
    known = errors(expected, first)
    seen = [(number, _judged(expected, first, known, outputs)) for later in looks for number, outputs in later.items()]
    stream, worst = min(seen, key=lambda item: _badness(item[1]))
    kept = _lost_db(known, worst)
    return {
        "streams": len({number for number, _ in seen}),
        "looks": len(seen),
        "wrong": sum(_went_wrong(known, found) for _, found in seen),
        "stream": stream,
        "identical": all(found is known for _, found in seen),
        "lost_db": kept if math.isfinite(kept) else None,
        **worst,
    }


def _judged(expected: Outputs, first: Outputs, known: JsonDict, outputs: Outputs) -> JsonDict:
    """``known`` itself where every bit is as in ``first``."""
    return known if _identical(first, outputs) else errors(expected, outputs)


def _lost_db(known: JsonDict, found: JsonDict) -> float:
    return 0.0 if found is known else level(known) - level(found)


def _went_wrong(known: JsonDict, found: JsonDict) -> bool:
    return (found["nonfinite"] or 0) > (known["nonfinite"] or 0) or _lost_db(known, found) > LOST_DB


def _badness(found: JsonDict) -> tuple[int, float]:
    return -int(found["nonfinite"] or 0), level(found)


def level(found: JsonDict) -> float:
    """SQNR in dB; infinite where there is no error, or none is known."""
    return math.inf if found["sqnr_db"] is None else float(found["sqnr_db"])


def _identical(one: Outputs, other: Outputs) -> bool:
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and one[name].tobytes() == other[name].tobytes() for name in one
    )


def errors(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> JsonDict:
    """Error figures of ``found``, y, against ``expected``, r, float outputs pooled.

    Returns:
        ``sqnr_db``: 10 log10(|r|^2 / |r - y|^2), None when the two are equal. ``max_abs``: the largest |r - y|;
        ``max_rel``: that over the largest |r|. ``cosine``: of r and y; ``cosine_centred``: of both less the mean of r
        over the batch (axis 0), since what all samples share makes any two runs look alike; None for a batch of 1.
        ``top1_agreement``: share of samples with the same arg max, None where no output has the shape (batch, classes).
        ``nonfinite``: count of NaN and Inf in y. None where shapes differ (a detector may keep another number of boxes)
        or the reference is not finite.
    """
    unknown: JsonDict = dict.fromkeys(_FIGURES)
    names = [name for name in expected if np.issubdtype(expected[name].dtype, np.floating) and name in found]
    if not names or any(expected[name].shape != found[name].shape for name in names):
        return unknown
    reference = np.concatenate([expected[name].astype(np.float64).ravel() for name in names])
    value = np.concatenate([found[name].astype(np.float64).ravel() for name in names])
    nonfinite = int(np.count_nonzero(~np.isfinite(value)))
    if nonfinite or not reference.size or not np.all(np.isfinite(reference)):
        return {**unknown, "nonfinite": nonfinite}
    noise, signal = float(np.sum((reference - value) ** 2)), float(np.sum(reference**2))
    largest, wrong = float(np.max(np.abs(reference))), float(np.max(np.abs(reference - value)))
    pairs = [(expected[name], found[name]) for name in names]
    return {
        "sqnr_db": 10 * math.log10(signal / noise) if noise and signal else None,
        "max_abs": wrong,
        "max_rel": wrong / largest if largest else None,
        "cosine": _cosine(reference, value),
        "cosine_centred": _centred(pairs),
        "top1_agreement": _top1(pairs),
        "nonfinite": 0,
    }


def _cosine(one: np.ndarray, other: np.ndarray) -> float | None:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else None


def _centred(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Cosine of what is left of both when the reference's mean over the batch is taken off."""
    batched = [pair for pair in pairs if pair[0].ndim and len(pair[0]) > 1]
    if not batched:
        return None
    means = [reference.astype(np.float64).mean(axis=0) for reference, _ in batched]
    one, other = (
        np.concatenate([(pair[side] - mean).ravel() for pair, mean in zip(batched, means, strict=True)])
        for side in (0, 1)
    )
    return _cosine(one, other)


def _top1(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    agree = [
        np.mean(reference.argmax(axis=1) == value.argmax(axis=1))
        for reference, value in pairs
        if reference.size and reference.ndim == 2 and reference.shape[1] >= _CLASSES_FROM  # noqa: PLR2004 - (batch, classes)
    ]
    return float(np.mean(agree)) if agree else None

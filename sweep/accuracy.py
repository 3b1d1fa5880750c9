"""Accuracy of the session that was timed, against the fp32 graph on onnxruntime with the same inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep import scoring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from sweep.axes import JsonDict

    Infer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

    Outputs = Mapping[str, np.ndarray]

_TRUE_FP32_DB = 75.0
_LEAST_DB = {"tf32": 20.0, "fp16": 20.0, "bf16": 10.0, "int8": 6.0, "fp8": 6.0}  # 6 dB: errors half as large as outputs
_LOST_DB = 6.0  # between two looks at one session: what differs by less may be the order of a sum
_CLASSES_FROM = 2  # outputs of shape (batch, n >= 2) are read as class scores
_FIGURES = ("sqnr_db", "max_abs", "max_rel", "cosine", "cosine_centred", "top1_agreement", "nonfinite")
REFERENCE = "onnxruntime fp32, same inputs"
TYPED_REFERENCE = "onnxruntime on the typed file itself, same inputs: what its own types cost is not seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What outputs have to keep, else the variant is ``invalid``; None leaves a figure ungated.

    Attributes:
        min_sqnr_db: least SQNR; None takes the type's own, which lies well below every engine that was right and above
            those that were wrong (docs/precision.md).
        min_top1: least share of samples with the same arg max, 0 to 1.
        max_error: largest error as a share of the largest reference value.
        min_cosine: least batch-centred cosine.
        min_score: least share of labelled samples that are right, 0 to 1.
        max_score_drop: most that this share may lie below that of fp32, 0 to 1.
    """

    min_sqnr_db: float | None = None
    min_top1: float | None = None
    max_error: float | None = None
    min_cosine: float | None = None
    min_score: float | None = None
    max_score_drop: float | None = None


def compare(
    reference_onnx: Path, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], note: str | None = None
) -> JsonDict:
    """The record's ``accuracy`` of ``outputs``, against a run of the fp32 graph; see ``against``."""
    return against(run(reference_onnx, feeds), outputs, note)


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
    return 0.0 if found is known else _level(known) - _level(found)


def _went_wrong(known: JsonDict, found: JsonDict) -> bool:
    return (found["nonfinite"] or 0) > (known["nonfinite"] or 0) or _lost_db(known, found) > _LOST_DB


def _badness(found: JsonDict) -> tuple[int, float]:
    return -int(found["nonfinite"] or 0), _level(found)


def _level(found: JsonDict) -> float:
    """SQNR in dB; infinite where there is no error, or none is known."""
    return math.inf if found["sqnr_db"] is None else float(found["sqnr_db"])


def _identical(one: Outputs, other: Outputs) -> bool:
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and one[name].tobytes() == other[name].tobytes() for name in one
    )


def run(onnx: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a graph on onnxruntime's CPU provider; Q/DQ pairs as they stand, since it fuses fp8 ones wrongly."""
    return runner(onnx)(feeds)


def runner(onnx: Path) -> Infer:
    """As ``run``, for several inputs of one graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(
        str(onnx), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ReluQuantRewrite"]
    )
    names = [item.name for item in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


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


def is_tf32(dtype: str, found: JsonDict | None) -> bool:
    """Whether a graph asked for as fp32 gave outputs as far from the reference as TF32's are.

    TF32 keeps 10 bits of mantissa where fp32 keeps 23. Measured on an H200 over the networks built here: 40 to 70 dB
    with the one, 78 to 106 with the other, so 75 dB tells them apart.
    """
    known = found is not None and found["sqnr_db"] is not None
    return dtype == "fp32" and known and _LEAST_DB["tf32"] <= _level(found or {}) < _TRUE_FP32_DB


def least_db(dtype: str, gates: Gates | None = None) -> float:
    """The least SQNR that an engine of a type has to keep."""
    given = None if gates is None else gates.min_sqnr_db
    return _LEAST_DB.get(dtype, 0.0) if given is None else given


def contradicts(dtype: str, found: JsonDict | None, gates: Gates | None = None) -> str | None:
    """Why the outputs of the timed session cannot be those of what was asked; None if they can.

    Args:
        dtype: of the recipe.
        found: the record's ``accuracy``; None where no model ran.
        gates: what the outputs have to keep.
    """
    if found is None:
        return None
    gates = gates or Gates()
    reason = _fault(dtype, found, gates) or scoring.too_low(found, gates.min_score, gates.max_score_drop)
    later = found.get("again")
    if reason or later is None:
        return reason
    under = f"under load, on stream {later['stream']}: "
    if (later["lost_db"] or 0.0) > _LOST_DB:
        lost = f"{under}accuracy: the outputs lost {later['lost_db']:.1f} dB against those right after the timing"
        return lost + _how_often(later)
    reason = _fault(dtype, later, gates)
    return None if reason is None else under + reason + _how_often(later)


def _how_often(later: JsonDict) -> str:
    """Of a record that says it; a session that is always wrong has lost nothing."""
    return f", in {later['wrong']} of {later['looks']} looks" if later.get("wrong") else ""


def _fault(dtype: str, found: JsonDict, gates: Gates) -> str | None:
    if found["nonfinite"]:
        return f"{found['nonfinite']} outputs are not finite; those of the reference are"
    level, least = _level(found), least_db(dtype, gates)
    if dtype == "fp32" and level < _TRUE_FP32_DB:
        return (
            f"asked for fp32, but the outputs are only {level:.0f} dB from the reference, as TF32's are; "
            "precision=tf32 is the label for that"
        )
    if level < least:
        return (
            f"accuracy: the outputs are {level:.1f} dB from the fp32 reference, below the {least:g} dB that "
            f"{dtype} has to keep (accuracy.min_sqnr_db)"
        )
    return _gated(found, gates)


def _gated(found: JsonDict, gates: Gates) -> str | None:
    """The first of the user's own gates that is not kept; a figure that is not known passes."""
    for key, name, words, limit, sign in (
        ("min_top1", "top1_agreement", "the share of samples with the reference's arg max is", gates.min_top1, 1),
        ("max_error", "max_rel", "the largest error over the largest reference value is", gates.max_error, -1),
        ("min_cosine", "cosine_centred", "the batch-centred cosine is", gates.min_cosine, 1),
    ):
        value = found.get(name)
        if limit is not None and value is not None and sign * (value - limit) < 0:
            side = "below" if sign > 0 else "above"
            return f"accuracy: {words} {value:.4g}, {side} the {limit:g} that was asked for (accuracy.{key})"
    return None


def _top1(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    agree = [
        np.mean(reference.argmax(axis=1) == value.argmax(axis=1))
        for reference, value in pairs
        if reference.size and reference.ndim == 2 and reference.shape[1] >= _CLASSES_FROM  # noqa: PLR2004 - (batch, classes)
    ]
    return float(np.mean(agree)) if agree else None

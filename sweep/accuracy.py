"""Accuracy of the session that was timed, against the fp32 graph on onnxruntime with the same inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sweep.axes import JsonDict
    from sweep.models import Labelled

    Infer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

_TRUE_FP32_DB = 75.0
_LEAST_DB = {"tf32": 20.0, "fp16": 20.0, "bf16": 10.0, "int8": 6.0, "fp8": 6.0}  # 6 dB: errors half as large as outputs
_CLASSES_FROM = 2  # outputs of shape (batch, n >= 2) are read as class scores


def compare(
    reference_onnx: Path, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], note: str | None = None
) -> JsonDict:
    """The record's ``accuracy`` of ``outputs``, against a run of the fp32 graph; see ``against``."""
    return against(run(reference_onnx, feeds), outputs, note)


def against(expected: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], note: str | None = None) -> JsonDict:
    """The record's ``accuracy``, over all float outputs.

    Args:
        expected: what the fp32 graph gives for the inputs that were timed.
        outputs: what the timed session gave for them.
        note: what a reader of the figures should know.

    Returns:
        {reference, note, sqnr_db, max_abs, cosine, top1_agreement, nonfinite}. ``sqnr_db`` is
        10 log10(|r|^2 / |r - y|^2), None when the two are equal; ``top1_agreement`` is the share of samples with
        the same arg max, None where no output has the shape (batch, classes).
    """
    return {"reference": "onnxruntime fp32, same inputs", "note": note, **errors(expected, outputs)}


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


def score(held: Labelled, batch: int, infer: Infer) -> float:
    """Top-1: the share of labelled samples whose largest output is that of their class.

    Args:
        held: the samples.
        batch: samples in an inference.
        infer: gives the outputs of a batch of them.

    Returns:
        0 to 1; a row that is not all finite is wrong.
    """
    right = 0
    for feeds, labels in held.batches(batch):
        rows = infer(feeds)[held.output][: len(labels)]
        right += int(np.count_nonzero((rows.argmax(axis=1) == labels) & np.isfinite(rows).all(axis=1)))
    return right / len(held.labels)


def errors(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> JsonDict:
    """Error figures of ``found`` against ``expected``, float outputs pooled; see ``compare``.

    None where shapes differ (a detector may keep another number of boxes) or the reference is not finite.
    """
    unknown: JsonDict = dict.fromkeys(("sqnr_db", "max_abs", "cosine", "top1_agreement", "nonfinite"))
    names = [name for name in expected if np.issubdtype(expected[name].dtype, np.floating) and name in found]
    if not names or any(expected[name].shape != found[name].shape for name in names):
        return unknown
    reference = np.concatenate([expected[name].astype(np.float64).ravel() for name in names])
    value = np.concatenate([found[name].astype(np.float64).ravel() for name in names])
    nonfinite = int(np.count_nonzero(~np.isfinite(value)))
    if nonfinite or not reference.size or not np.all(np.isfinite(reference)):
        return {**unknown, "nonfinite": nonfinite}
    noise, signal = float(np.sum((reference - value) ** 2)), float(np.sum(reference**2))
    norms = float(np.linalg.norm(reference) * np.linalg.norm(value))
    return {
        "sqnr_db": 10 * math.log10(signal / noise) if noise and signal else None,
        "max_abs": float(np.max(np.abs(reference - value))),
        "cosine": float(reference @ value) / norms if norms else None,
        "top1_agreement": _top1([(expected[name], found[name]) for name in names]),
        "nonfinite": 0,
    }


def contradicts(dtype: str, found: JsonDict | None, least_db: float | None = None) -> str | None:
    """Why the outputs of the timed session cannot be those of what was asked; None if they can.

    Args:
        dtype: of the recipe.
        found: the record's ``accuracy``; None where no model ran.
        least_db: least SQNR of an engine that is right; None for the type's own, which lies well below every engine
            that was right and above those that were wrong (docs/precision.md).

    TF32 keeps 10 bits of mantissa where fp32 keeps 23. Measured on an H200 over the networks built here: 40 to 70 dB
    with the one, 78 to 106 with the other, so 75 dB tells them apart.
    """
    if found is None:
        return None
    if found["nonfinite"]:
        return f"{found['nonfinite']} outputs are not finite; those of the fp32 reference are"
    if dtype == "fp32" and found["sqnr_db"] is not None and found["sqnr_db"] < _TRUE_FP32_DB:
        return (
            f"asked for fp32, but the outputs are only {found['sqnr_db']:.0f} dB from the reference, as TF32's are; "
            "precision=tf32 is the label for that"
        )
    least = _LEAST_DB.get(dtype, 0.0) if least_db is None else least_db
    if found["sqnr_db"] is not None and found["sqnr_db"] < least:
        return (
            f"accuracy: the outputs are {found['sqnr_db']:.1f} dB from the fp32 reference, below the {least:g} dB that "
            f"{dtype} has to keep (accuracy.min_sqnr_db)"
        )
    return None


def _top1(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    agree = [
        np.mean(reference.argmax(axis=1) == value.argmax(axis=1))
        for reference, value in pairs
        if reference.size and reference.ndim == 2 and reference.shape[1] >= _CLASSES_FROM  # noqa: PLR2004 - (batch, classes)
    ]
    return float(np.mean(agree)) if agree else None

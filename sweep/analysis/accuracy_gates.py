"""Decide whether the measured accuracy of an engine contradicts its label or a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis.accuracy import LOST_DB, TYPED_REFERENCE, level
from sweep.spec import Gates

if TYPE_CHECKING:
    from sweep.storage import Accuracy, AccuracyFigures, RepeatedAccuracy

_TRUE_FP32_DB = 75.0
_LEAST_DB = {"tf32": 20.0, "fp16": 20.0, "bf16": 10.0, "int8": 6.0, "fp8": 6.0, "native": 6.0}
# 6 dB: errors half as large as outputs; native may be any type

_ROUNDING = 1e-9  # 0.8 - 0.7 is more than 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """Describe why outputs cannot be those of what was requested.

    Attributes:
        message: the reason, in one line.
        gate: the field of ``Gates`` that is not kept; None where no gate would let the outputs pass.
    """

    message: str
    gate: str | None = None


def is_tf32(dtype: str, accuracy: AccuracyFigures | None) -> bool:
    """Return whether a graph requested as fp32 gave outputs as far from the reference as TF32's are.

    TF32 keeps 10 bits of mantissa where fp32 keeps 23. Measured on an H200 over the networks built here: 40 to 70 dB
    with the one, 78 to 106 with the other, so 75 dB tells them apart.
    """
    return dtype == "fp32" and accuracy is not None and _LEAST_DB["tf32"] <= level(accuracy) < _TRUE_FP32_DB


def least_db(dtype: str, gates: Gates | None = None) -> float:
    """Return the least SQNR that an engine of `dtype` has to keep, dB."""
    user_db = None if gates is None else gates.min_sqnr_db
    return _LEAST_DB.get(dtype, 0.0) if user_db is None else user_db


def fault(dtype: str, accuracy: Accuracy | None, gates: Gates | None = None) -> Fault | None:
    """Return why the outputs of the timed session cannot be those of what was requested; None if they can.

    Args:
        dtype: dtype of the recipe.
        accuracy: the record's ``accuracy``; None where no model ran.
        gates: what the outputs have to keep.
    """
    if accuracy is None:
        return None
    gates = gates or Gates()
    reference = "typed file on onnxruntime" if accuracy.get("reference") == TYPED_REFERENCE else "fp32 reference"
    first = _output_fault(dtype, accuracy, gates, reference) or score_fault(
        accuracy, gates.min_score, gates.max_score_drop
    )
    later = accuracy.get("again")
    if first or later is None:
        return first
    under = f"under load, on stream {later['stream']}: "
    if (later["lost_db"] or 0.0) > LOST_DB:
        loss = f"{under}accuracy: the outputs lost {later['lost_db']:.1f} dB against those right after the timing"
        return Fault(loss + _how_often(later))
    second = _output_fault(dtype, later, gates, reference)
    return None if second is None else Fault(under + second.message + _how_often(later), second.gate)


def _how_often(later: RepeatedAccuracy) -> str:
    """Return the share of wrong looks, of a record that has it; a session that is always wrong has lost nothing."""
    return f", in {later['wrong']} of {later['looks']} looks" if later.get("wrong") else ""


def _output_fault(dtype: str, accuracy: AccuracyFigures, gates: Gates, reference: str) -> Fault | None:
    if accuracy.get("nonfinite"):
        return Fault(f"{accuracy['nonfinite']} outputs are not finite; those of the reference are")
    sqnr_db, least = level(accuracy), least_db(dtype, gates)
    if dtype == "fp32" and sqnr_db < _TRUE_FP32_DB:
        return Fault(
            f"asked for fp32, but the outputs are only {sqnr_db:.0f} dB from the reference, as TF32's are; "
            "precision=tf32 is the label for that"
        )
    if sqnr_db < least:
        return _gate_fault(
            f"the outputs are {sqnr_db:.1f} dB from the {reference}, below the {least:g} dB that {dtype} has to keep",
            "min_sqnr_db",
        )
    return _user_gate_fault(accuracy, gates)


def _user_gate_fault(accuracy: AccuracyFigures, gates: Gates) -> Fault | None:
    """Return the first of the user's own gates that is not kept; a figure that is not known passes."""
    top1, error, cosine = accuracy.get("top1_agreement"), accuracy.get("max_rel"), accuracy.get("cosine_centred")
    for gate, value, words, limit, sign in (
        ("min_top1", top1, "the share of samples with the reference's arg max is", gates.min_top1, 1),
        ("max_error", error, "the largest error over the largest reference value is", gates.max_error, -1),
        ("min_cosine", cosine, "the batch-centred cosine is", gates.min_cosine, 1),
    ):
        if limit is not None and value is not None and sign * (value - limit) < 0:
            side = "below" if sign > 0 else "above"
            return _gate_fault(f"{words} {value:.4g}, {side} the {limit:g} that was asked for", gate)
    return None


def score_fault(accuracy: Accuracy, least: float | None, most_drop: float | None) -> Fault | None:
    """Return which gate the score does not keep; None where it keeps both, or nothing was scored.

    Args:
        accuracy: the record's ``accuracy``.
        least: score, 0 to 1; None for no such gate.
        most_drop: below that of fp32, 0 to 1; None for no such gate.
    """
    score = accuracy.get("score")
    if score is None:
        return None
    top1 = f"{score:.2%} of {accuracy['scored_on']} are right"
    if least is not None and score < least - _ROUNDING:
        return _gate_fault(f"{top1}, below the {least:.4g} that was asked for", "min_score")
    drop = accuracy["reference_score"] - score
    if most_drop is not None and drop > most_drop + _ROUNDING:
        return _gate_fault(
            f"{top1}, {drop * 100:.2f} points below fp32's {accuracy['reference_score']:.2%}; {most_drop * 100:g} "
            "were allowed",
            "max_score_drop",
        )
    return None


def _gate_fault(words: str, gate: str) -> Fault:
    return Fault(f"accuracy: {words} (accuracy.{gate})", gate)

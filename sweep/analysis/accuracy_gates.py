"""Decide whether the measured accuracy of an engine contradicts its label or a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.analysis.accuracy import LOST_DB, level
from sweep.spec.gates import Gates

if TYPE_CHECKING:
    from sweep.spec import JsonDict

_TRUE_FP32_DB = 75.0
_LEAST_DB = {"tf32": 20.0, "fp16": 20.0, "bf16": 10.0, "int8": 6.0, "fp8": 6.0}  # 6 dB: errors half as large as outputs


def is_tf32(dtype: str, found: JsonDict | None) -> bool:
    """Whether a graph asked for as fp32 gave outputs as far from the reference as TF32's are.

    TF32 keeps 10 bits of mantissa where fp32 keeps 23. Measured on an H200 over the networks built here: 40 to 70 dB
    with the one, 78 to 106 with the other, so 75 dB tells them apart.
    """
    known = found is not None and found["sqnr_db"] is not None
    return dtype == "fp32" and known and _LEAST_DB["tf32"] <= level(found or {}) < _TRUE_FP32_DB


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
    reason = _fault(dtype, found, gates) or too_low(found, gates.min_score, gates.max_score_drop)
    later = found.get("again")
    if reason or later is None:
        return reason
    under = f"under load, on stream {later['stream']}: "
    if (later["lost_db"] or 0.0) > LOST_DB:
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
    sqnr_db, least = level(found), least_db(dtype, gates)
    if dtype == "fp32" and sqnr_db < _TRUE_FP32_DB:
        return (
            f"asked for fp32, but the outputs are only {sqnr_db:.0f} dB from the reference, as TF32's are; "
            "precision=tf32 is the label for that"
        )
    if sqnr_db < least:
        return (
            f"accuracy: the outputs are {sqnr_db:.1f} dB from the fp32 reference, below the {least:g} dB that "
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


_ROUNDING = 1e-9  # 0.8 - 0.7 is more than 0.1


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

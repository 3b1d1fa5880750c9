"""Decide whether the measured accuracy of an engine contradicts its label or a gate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis.accuracy import (
    LOST_DB,
    TYPED_REFERENCE,
    is_exact,
    is_known,
    level,
    nonfinite_alone,
    unknown_reason,
)
from sweep.spec import Gates

if TYPE_CHECKING:
    from sweep.storage import Accuracy, AccuracyFigures, RepeatedAccuracy

# What an engine has to keep where nothing says what rounding explains: records of earlier versions, which keep their
# verdicts, and networks that are too large to compute it.
_TRUE_FP32_DB = 75.0
_LEAST_DB = {"tf32": 20.0, "fp16": 20.0, "bf16": 10.0, "int8": 6.0, "fp8": 6.0, "native": 6.0}
# 6 dB: errors half as large as outputs; native may be any type

# Measured on an H200 against what was computed on a CPU (docs/decisions/0037): engines that were right lay up to 9 dB
# below what rounding explains, those that were wrong 19 and more. In fp32 a GPU's convolutions (Winograd, split sums)
# lie up to 29 dB below the floor of a CPU, and TF32 55 and more.
_MARGIN_DB = 12.0
_FP32_MARGIN_DB = 32.0
_TF32_FIT_DB = 6.0  # TF32 on an H200 lay within 2 dB of its emulation
_HARMLESS_COSINE = 0.99999
_NO_GATE_DB = -100.0  # a user's min_sqnr_db that lets everything through, what cannot be compared included

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


def limits(gates: Gates) -> dict[str, float]:
    """Return the gates that refuse something, by name."""
    values: dict[str, float | None] = dataclasses.asdict(gates)
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("min_sqnr_db", 0.0) <= _NO_GATE_DB:
        del given["min_sqnr_db"]
    return given


def is_tf32(dtype: str, accuracy: Accuracy | None) -> bool:
    """Return whether a graph requested as fp32 gave outputs that err as TF32 does, on every input that was looked at.

    Without ``accuracy.expected`` a fixed threshold tells: TF32 keeps 10 bits of mantissa where fp32 keeps 23. Measured
    on an H200 over the networks built here: 40 to 70 dB with the one, 78 to 106 with the other.
    """
    if dtype != "fp32" or accuracy is None or accuracy.get("undiagnosed"):
        return False
    expected = accuracy.get("expected")
    if expected is None or expected["floor_db"] is None:
        return _LEAST_DB["tf32"] <= level(accuracy) < _TRUE_FP32_DB
    return looks_like_tf32(dtype, accuracy) and expected.get("tf32_draws", 0) == expected.get("draws", 0) > 0


def looks_like_tf32(dtype: str, accuracy: Accuracy) -> bool:
    """Return whether the outputs of the inputs that were timed err as TF32 does, and more than fp32 explains."""
    expected = accuracy.get("expected")
    if dtype != "fp32" or expected is None or accuracy.get("undiagnosed"):
        return False
    least = _explained_db(dtype, accuracy)
    return least is not None and level(accuracy) < least and fits_tf32(accuracy["sqnr_db"], expected["tf32_db"])


def fits_tf32(sqnr_db: float | None, tf32_db: float | None) -> bool:
    """Return whether an SQNR is that of an emulated TF32 run, within a few dB; both in dB."""
    return sqnr_db is not None and tf32_db is not None and abs(sqnr_db - tf32_db) <= _TF32_FIT_DB


def _explained_db(dtype: str, accuracy: Accuracy) -> float | None:
    """Return the least SQNR that rounding explains, dB; None where it was not computed."""
    expected = accuracy.get("expected")
    if expected is None or expected["expected_db"] is None:
        return None
    if dtype == "fp32":
        return min(_TRUE_FP32_DB, expected["expected_db"] - _FP32_MARGIN_DB)
    return expected["expected_db"] - _MARGIN_DB


def least_db(dtype: str) -> float:
    """Return the SQNR below which an engine of `dtype` is `invalid` where nothing says what rounding explains, dB."""
    return _LEAST_DB.get(dtype, 0.0)


def lost_by_rounding(dtype: str, accuracy: Accuracy | None) -> bool:
    """Return whether the rounding of `dtype` alone, whatever engine does it, leaves too little of the outputs."""
    expected = None if accuracy is None else accuracy.get("expected")
    expected_db = None if expected is None else expected["expected_db"]
    return expected_db is not None and expected_db < least_db(dtype)


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
    first = _output_fault(dtype, accuracy, accuracy, gates) or score_fault(
        accuracy, gates.min_score, gates.max_score_drop
    )
    later = accuracy.get("again")
    if first or later is None:
        return first
    under = f"under load, on stream {later['stream']}: "
    if (later["lost_db"] or 0.0) > LOST_DB:
        loss = f"{under}accuracy: the outputs lost {later['lost_db']:.1f} dB against those right after the timing"
        return Fault(loss + _how_often(later))
    if later.get("unknown") and not nonfinite_alone(later) and is_known(accuracy):
        return Fault(f"{under}accuracy: the outputs cannot be compared any more ({later['unknown']})")
    second = _output_fault(dtype, later, accuracy, gates)
    return None if second is None else Fault(under + second.message + _how_often(later), second.gate)


def _how_often(later: RepeatedAccuracy) -> str:
    """Return the share of wrong looks, of a record that has it; a session that is always wrong has lost nothing."""
    return f", in {later['wrong']} of {later['looks']} looks" if later.get("wrong") else ""


def _output_fault(dtype: str, figures: AccuracyFigures, accuracy: Accuracy, gates: Gates) -> Fault | None:
    """Return what is wrong with one look at the outputs, `figures`, of the session that `accuracy` describes."""
    alone = nonfinite_alone(figures)
    if alone:
        return Fault(f"{alone} outputs are not finite; those of the reference are")
    return _sqnr_fault(dtype, figures, accuracy, gates) or _user_gate_fault(figures, gates)


def _sqnr_fault(dtype: str, figures: AccuracyFigures, accuracy: Accuracy, gates: Gates) -> Fault | None:
    reason = unknown_reason(figures)
    if reason is not None:
        limit = gates.min_sqnr_db
        return None if limit is None or limit <= _NO_GATE_DB else _unjudged("min_sqnr_db", limit, reason)
    sqnr_db, explained = level(figures), _explained_db(dtype, accuracy)
    if is_tf32(dtype, accuracy) or (dtype == "fp32" and explained is None and _below_fixed_fp32(sqnr_db, accuracy)):
        return Fault(
            f"asked for fp32, but the outputs are only {sqnr_db:.0f} dB from the reference, as TF32's are; "
            "precision=tf32 is the label for that"
        )
    if gates.min_sqnr_db is not None or (explained is None and not accuracy.get("undiagnosed")):
        least = least_db(dtype) if gates.min_sqnr_db is None else gates.min_sqnr_db
        if sqnr_db < least:
            return _gate_fault(
                f"the outputs are {sqnr_db:.1f} dB from the {_reference(accuracy)}, below the {least:g} dB that "
                f"{dtype} has to keep",
                "min_sqnr_db",
            )
        return None
    if explained is None or sqnr_db >= explained or accuracy.get("undiagnosed") or _is_harmless(figures):
        return None
    return _gate_fault(
        f"the outputs are {sqnr_db:.1f} dB from the {_reference(accuracy)}, where rounding explains "
        f"{accuracy['expected']['expected_db']:.1f} dB for {dtype}",
        "min_sqnr_db",
    )


def _reference(accuracy: Accuracy) -> str:
    """Name what the outputs are compared with."""
    return "typed file on onnxruntime" if accuracy.get("reference") == TYPED_REFERENCE else "fp32 reference"


def _below_fixed_fp32(sqnr_db: float, accuracy: Accuracy) -> bool:
    return sqnr_db < _TRUE_FP32_DB and not accuracy.get("undiagnosed")


def _is_harmless(figures: AccuracyFigures) -> bool:
    """Tell whether every sample keeps its arg max and the outputs point where those of the reference do."""
    return figures.get("top1_agreement") == 1.0 and (figures.get("cosine") or 0.0) >= _HARMLESS_COSINE


def _unjudged(gate: str, limit: float, reason: str) -> Fault:
    return _gate_fault(f"{gate}={limit:g} was asked for and cannot be judged: {reason}", gate)


def _user_gate_fault(figures: AccuracyFigures, gates: Gates) -> Fault | None:
    """Return the first of the user's own gates that is not kept; one that cannot be judged is not kept."""
    if is_exact(figures):
        return None
    top1, error, cosine = figures.get("top1_agreement"), figures.get("max_rel"), figures.get("cosine_centred")
    no_classes, one_sample = "no output has the shape (batch, classes)", "a batch of 1 has no batch-centred cosine"
    for gate, value, words, limit, sign, missing in (
        ("min_top1", top1, "the share of samples with the reference's arg max is", gates.min_top1, 1, no_classes),
        ("max_error", error, "the largest error over the largest reference value is", gates.max_error, -1, "it is 0"),
        ("min_cosine", cosine, "the batch-centred cosine is", gates.min_cosine, 1, one_sample),
    ):
        if limit is None:
            continue
        if value is None:
            return _unjudged(gate, limit, unknown_reason(figures) or missing)
        if sign * (value - limit) < 0:
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

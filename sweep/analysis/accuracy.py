"""Compare the outputs of the session that was timed with those of the fp32 graph on onnxruntime, same inputs."""

from __future__ import annotations

import keyword
import math
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sweep.storage import Accuracy, AccuracyFigures, RepeatedAccuracy

    Outputs = Mapping[str, np.ndarray]

LOST_DB = 6.0  # between two looks at one session: what differs by less may be the order of a sum
_TINY = 1e-6  # the largest output of inputs that are near 1: less than fp32's rounding of a sum of them
_LARGE_INPUT = 1e-3
_SAME_ROWS = 1e-6  # of the largest output, that all samples' outputs are within
_REAL_INPUTS = "bring real inputs (model.samples=inputs.npz, or model.inputs.NAME.low= and .high=)"
_SAVEZ_NAMES = ("file", "args", "kwds", "allow_pickle")  # of numpy.savez's own parameters
_CLASSES_FROM = 2  # outputs of shape (batch, n >= 2) are read as class scores
REFERENCE = "onnxruntime fp32, same inputs"
NO_REFERENCE = "none"
NOT_COMPARED = "not compared: no reference; model.path= or model= beside model.engine names one"
TYPED_REFERENCE = "onnxruntime on the typed file itself, same inputs: what its own types cost is not seen"


def against(
    expected: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    note: str | None = None,
    reference: str = REFERENCE,
    random: Sequence[str] = (),
) -> Accuracy:
    """Return the record's ``accuracy`` over all float outputs.

    Args:
        expected: outputs of the reference for the inputs that were timed, by name.
        outputs: outputs of the timed session for the same inputs, by name.
        note: what a reader of the figures should know.
        reference: name of the reference.
        random: operators of the network that draw random numbers.
    """
    figures = random_outputs(outputs, random) if random else errors(expected, outputs)
    # A cast, for mypy combines no two tables of which one has optional keys.
    return cast("Accuracy", {"reference": reference, "note": note, **figures})


def without_reference(outputs: Outputs) -> Accuracy:
    """Return the record's ``accuracy`` of outputs that nothing is known to compare with."""
    floats = [value for value in outputs.values() if np.issubdtype(value.dtype, np.floating)]
    nonfinite = sum(int(np.count_nonzero(~np.isfinite(value))) for value in floats)
    # A count by itself is no fault: inputs that are drawn at random may well lead there.
    reason = NOT_COMPARED + (f"; {nonfinite} outputs are not finite" if nonfinite else "")
    return cast("Accuracy", {"reference": NO_REFERENCE, "note": reason, **_unknown(None, reason)})


def again(
    expected: Outputs,
    first: Outputs,
    looks: Iterable[Mapping[int, Outputs]],
    random: Sequence[str] = (),
    uncompared: str | None = None,
    whole: Callable[[Outputs], AccuracyFigures] | None = None,
) -> RepeatedAccuracy:
    """Return the record's ``accuracy.again``: the worst of many inferences on all streams, under a further load.

    A kernel that races, or a buffer that two streams share, is right alone and wrong under load; some only once in
    a while.

    Args:
        expected: outputs of the reference, by name.
        first: outputs of the session after it was timed, by name.
        looks: outputs by stream, each time after a further burst; compared one by one, at least one.
        random: operators of the network that draw random numbers.
        uncompared: why nothing is compared; None where `expected` is the reference.
        whole: returns the figures of all samples, given outputs of the first batch; None where there is but that batch.
            What was lost is that of the batch.
    """

    def compare(outputs: Outputs) -> AccuracyFigures:
        if uncompared is not None:
            return _unknown(None, uncompared)
        return random_outputs(outputs, random) if random else errors(expected, outputs)

    first_figures = compare(first)
    figures: list[tuple[int, AccuracyFigures]] = []
    worst_badness, stream, worst, worst_outputs = None, 0, first_figures, first
    for look in looks:
        for number, outputs in look.items():
            item = first_figures if identical(first, outputs) else compare(outputs)
            figures.append((number, item))
            badness = _badness(item)
            if worst_badness is None or badness < worst_badness:
                worst_badness, stream, worst, worst_outputs = badness, number, item, outputs
    lost_db = _lost_db(first_figures, worst)
    repeated = {
        "streams": len({number for number, _ in figures}),
        "looks": len(figures),
        "wrong": sum(_went_wrong(first_figures, item) for _, item in figures),
        "stream": stream,
        "identical": all(item is first_figures for _, item in figures),
        "lost_db": lost_db if math.isfinite(lost_db) else None,
        **(worst if whole is None else whole(worst_outputs)),
    }
    return cast("RepeatedAccuracy", repeated)  # as in ``against``


def _lost_db(first: AccuracyFigures, later: AccuracyFigures) -> float:
    if later is first or first.get("unknown"):
        return 0.0  # what could not be compared at first has nothing to lose
    if later.get("unknown") and not first.get("unknown"):
        return math.inf  # what could be compared cannot be any more
    lost_db = level(first) - level(later)
    return 0.0 if math.isnan(lost_db) else lost_db  # both are exact


def _went_wrong(first: AccuracyFigures, later: AccuracyFigures) -> bool:
    return nonfinite_alone(later) > nonfinite_alone(first) or _lost_db(first, later) > LOST_DB


def _badness(figures: AccuracyFigures) -> tuple[int, bool, float]:
    return -nonfinite_alone(figures), "unknown" not in figures, level(figures)


def nonfinite_alone(figures: AccuracyFigures) -> int:
    """Return the number of outputs that are not finite where those of the reference are."""
    return (figures.get("nonfinite") or 0) - figures.get("nonfinite_in_both", 0)


def level(figures: AccuracyFigures) -> float:
    """Return the SQNR, dB; infinite where there is no error, or none is known (``is_known``)."""
    return math.inf if figures["sqnr_db"] is None else float(figures["sqnr_db"])


def is_exact(figures: AccuracyFigures) -> bool:
    """Tell whether the outputs equal the reference; figures that are not known are not exact."""
    return figures["sqnr_db"] is None and figures.get("max_abs") == 0


def is_known(figures: AccuracyFigures) -> bool:
    """Tell whether the outputs could be compared with the reference."""
    return figures["sqnr_db"] is not None or is_exact(figures)


def unknown_reason(figures: AccuracyFigures) -> str | None:
    """Return why the outputs could not be compared; None where they could."""
    if is_known(figures):
        return None
    return figures.get("unknown") or "the outputs could not be compared with the reference"


def undiagnosed(expected: Outputs, feeds: Outputs, *, real: bool = False) -> str | None:
    """Return why an error of these outputs says nothing about a precision; None where it does.

    Noise drives some networks into outputs of nothing: a detector finds no object, and what is left of its scores is
    the rounding of an exponential.

    Args:
        expected: outputs of the reference, by name.
        feeds: its inputs, by name.
        real: the inputs are the user's own, and no random ones.
    """
    outputs = [value for value in expected.values() if np.issubdtype(value.dtype, np.floating) and value.size]
    if not outputs or not all(np.all(np.isfinite(value)) for value in outputs):
        return None
    largest = max(float(np.max(np.abs(value))) for value in outputs)
    inputs = [value.astype(np.float64) for value in feeds.values() if value.size and value.dtype.kind in "iuf"]
    largest_input = max((float(np.max(np.abs(value))) for value in inputs), default=0.0)
    by_range = "or give their range, model.inputs.NAME.low= and .high="
    advice = f"bring real inputs: {_savez(feeds)} in Python, then model.samples=inputs.npz; {by_range}"
    advice = "take other samples" if real else advice
    if largest < _TINY and largest_input > _LARGE_INPUT:
        return (
            f"no output is above {largest:.2g} for inputs of up to {largest_input:.2g}, so that the error says nothing "
            f"about the precision; {advice}"
        )
    if any(_differ(value, 0.0) for value in inputs) and not any(_differ(value, _SAME_ROWS) for value in outputs):
        return (
            f"all samples have the same outputs within {_SAME_ROWS:g}, so that the error says nothing about the "
            f"precision; {advice}"
        )
    return None


def _savez(names: Iterable[str]) -> str:
    """Return the call of numpy that saves inputs of these names, given arrays of samples."""
    plain = all(name.isidentifier() and not keyword.iskeyword(name) and name not in _SAVEZ_NAMES for name in names)
    if plain:
        return f"numpy.savez('inputs.npz', {', '.join(f'{name}=...' for name in names)})"
    return f"numpy.savez('inputs.npz', **{{{', '.join(f'{name!r}: ...' for name in names)}}})"


def _differ(value: np.ndarray, share: float) -> bool:
    """Tell whether the samples of a batch, axis 0, differ by more than a share of the largest value.

    One that cannot be the same, since it has no second sample, differs.
    """
    if value.ndim == 0 or len(value) < _CLASSES_FROM:
        return share > 0
    spread = float(np.max(np.ptp(value.astype(np.float64), axis=0), initial=0.0))
    return spread > share * float(np.max(np.abs(value)))


def identical(first: Outputs, second: Outputs) -> bool:
    """Tell whether every bit of two runs' outputs is the same."""
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape and first[name].tobytes() == second[name].tobytes() for name in first
    )


def left_out(expected: Outputs, outputs: Outputs, names: Iterable[str]) -> list[str]:
    """Return those of the outputs `names` that ``errors`` does not compare: they are no floats, or missing."""
    return [name for name in names if name not in _compared(expected, outputs)]


def _compared(expected: Outputs, outputs: Outputs) -> list[str]:
    """Name the outputs that are compared: the floats that both sides have."""
    return [name for name in expected if np.issubdtype(expected[name].dtype, np.floating) and name in outputs]


def errors(expected: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> AccuracyFigures:
    """Measure the error of ``outputs``, y, against ``expected``, r, float outputs pooled.

    Returns:
        Every figure of ``AccuracyFigures``, ``nonfinite_in_both`` where the reference is not finite. All are None, and
        ``unknown`` says why, where shapes differ (a detector may keep another number of boxes), the reference is not
        finite, or no output is of floats. ``sqnr_db`` is None when the two are equal, ``cosine_centred`` for a batch
        of 1 (what all samples share makes any two runs look alike, so the mean over the batch, axis 0, is taken off),
        ``top1_agreement`` where no output has the shape (batch, classes).
    """
    names = _compared(expected, outputs)
    if not names:
        return _unknown(None, "no output is of floats")
    for name in names:
        if expected[name].shape != outputs[name].shape:
            shapes = [list(side[name].shape) for side in (expected, outputs)]
            return _unknown(None, f"output {name} is {shapes[0]} in the reference and {shapes[1]} in the engine")
    reference = np.concatenate([expected[name].astype(np.float64).ravel() for name in names])
    value = np.concatenate([outputs[name].astype(np.float64).ravel() for name in names])
    nonfinite, sound = int(np.count_nonzero(~np.isfinite(value))), np.isfinite(reference)
    if not reference.size:
        return _unknown(nonfinite, "the outputs are empty")
    if not np.all(sound):
        count = f"{np.count_nonzero(~sound)} of {sound.size} outputs of the reference are not finite for these inputs"
        both = int(np.count_nonzero(~sound & ~np.isfinite(value)))
        return {**_unknown(nonfinite, f"{count}; {_REAL_INPUTS}"), "nonfinite_in_both": both}
    if nonfinite:
        return _unknown(nonfinite, f"{nonfinite} outputs are not finite")
    noise, signal = float(np.sum((reference - value) ** 2)), float(np.sum(reference**2))
    largest, wrong = float(np.max(np.abs(reference))), float(np.max(np.abs(reference - value)))
    pairs = [(expected[name], outputs[name]) for name in names]
    figures: AccuracyFigures = {
        "sqnr_db": 10 * math.log10(signal / noise) if noise and signal else None,
        "max_abs": wrong,
        "max_rel": wrong / largest if largest else None,
        "cosine": _cosine(reference, value),
        "cosine_centred": _centred(pairs),
        "top1_agreement": _top1(pairs),
        "nonfinite": 0,
    }
    if figures["sqnr_db"] is None and wrong:
        figures["unknown"] = "every output of the reference is 0"
    return figures


def random_outputs(outputs: Outputs, operators: Iterable[str]) -> AccuracyFigures:
    """Return the figures of a network that draws random numbers: two runs differ whatever computes them.

    Args:
        outputs: outputs of the timed session, by name.
        operators: ONNX operators that draw.
    """
    floats = [value for value in outputs.values() if np.issubdtype(value.dtype, np.floating)]
    nonfinite = sum(int(np.count_nonzero(~np.isfinite(value))) for value in floats)
    return _unknown(nonfinite, f"the network draws random numbers ({', '.join(operators)})")


def _unknown(nonfinite: int | None, reason: str) -> AccuracyFigures:
    return {
        "sqnr_db": None,
        "unknown": reason,
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

"""Known errors give known figures."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.analysis.accuracy import (
    REFERENCE,
    TYPED_REFERENCE,
    again,
    against,
    errors,
    is_exact,
    is_known,
    left_out,
    undiagnosed,
)
from sweep.analysis.accuracy_gates import fault, is_tf32
from sweep.spec.gates import Gates

NOTHING = dict.fromkeys(("sqnr_db", "max_abs", "max_rel", "cosine", "cosine_centred", "top1_agreement", "nonfinite"))
RNG = np.random.default_rng(1)


def reason_of(*asked):
    """The message of a fault; None for no fault."""
    found = fault(*asked)
    return None if found is None else found.message


def floats(*shape):
    return RNG.standard_normal(shape)


@given(st.floats(-20, 120), st.integers(0, 999), st.floats(1e-3, 1e3))
def test_noise_of_a_known_power_gives_its_sqnr(asked_db, seed, scale) -> None:
    rng = np.random.default_rng(seed)
    reference, noise = rng.standard_normal((2, 3, 7)) * scale
    noise *= np.linalg.norm(reference) / np.linalg.norm(noise) / 10 ** (asked_db / 20)
    found = errors({"y": reference}, {"y": reference + noise})
    assert found["sqnr_db"] == pytest.approx(asked_db, abs=1e-3)
    assert found["max_abs"] == pytest.approx(np.abs(noise).max(), rel=1e-3)
    assert found["nonfinite"] == 0


def test_equal_outputs_have_no_sqnr_and_full_agreement() -> None:
    reference = floats(4, 10)
    found = errors({"y": reference}, {"y": reference.copy()})
    cosines = {"cosine": pytest.approx(1), "cosine_centred": pytest.approx(1)}
    assert found == {**cosines, "sqnr_db": None, "max_abs": 0.0, "max_rel": 0.0, "top1_agreement": 1.0, "nonfinite": 0}


def test_outputs_are_pooled() -> None:
    expected = {"a": np.array([3.0, 0.0]), "b": np.array([[0.0, 4.0]])}
    found = errors(expected, {"a": np.array([3.0, 0.5]), "b": np.array([[0.0, 4.0]])})
    assert found["sqnr_db"] == pytest.approx(10 * math.log10(25 / 0.25))
    assert found["max_abs"] == 0.5
    assert errors(expected, {"a": -expected["a"], "b": -expected["b"]})["cosine"] == pytest.approx(-1)


def test_half_precision_is_compared_in_double() -> None:
    reference = np.full((2, 4), 6e4, dtype=np.float32)
    found = errors({"y": reference}, {"y": (reference / 2).astype(np.float16)})
    assert found["max_abs"] == pytest.approx(3e4, rel=1e-3)
    assert found["sqnr_db"] == pytest.approx(10 * math.log10(4), abs=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_counted_and_nothing_else_is_said(bad) -> None:
    value = floats(2, 5)
    value[0, 1] = value[1, 4] = bad
    assert errors({"y": floats(2, 5)}, {"y": value}) == {
        **NOTHING,
        "nonfinite": 2,
        "unknown": "2 outputs are not finite",
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reference_that_is_not_finite_still_makes_a_record(bad) -> None:
    """A masked logit is -inf in fp32 and may be the lowest float16 in another library."""
    reference = floats(2, 5)
    reference[0, 0] = bad
    json.dumps(errors({"y": reference}, {"y": floats(2, 5)}), allow_nan=False)
    found = errors({"y": reference}, {"y": reference})
    assert (found["nonfinite"], found["nonfinite_in_both"]) == (1, 1)
    assert found["unknown"].startswith("1 of 10 outputs of the reference are not finite for these inputs; bring real")
    assert fault("fp32", {**found, "again": again({"y": reference}, {"y": reference}, [{0: {"y": reference}}])}) is None
    worse = reference.copy()
    worse[1] = np.nan
    assert fault("fp32", errors({"y": reference}, {"y": worse})).message.startswith(
        "5 outputs are not finite; those of"
    )


def test_a_silent_reference_has_no_ratio() -> None:
    found = errors({"y": np.zeros((1, 3))}, {"y": np.full((1, 3), 0.1)})
    assert (found["sqnr_db"], found["cosine"]) == (None, None)
    assert found["max_abs"] == pytest.approx(0.1)


def test_top1_is_the_share_of_samples() -> None:
    reference = np.eye(4)
    value = reference.copy()
    value[2] = [9, 0, 0, 0]
    assert errors({"y": reference}, {"y": value})["top1_agreement"] == 0.75


def test_top1_averages_over_outputs_that_are_scores() -> None:
    same, other = np.eye(2), np.eye(2)[::-1]
    expected = {"a": same, "b": same, "map": floats(2, 3, 3)}
    assert errors(expected, {**expected, "b": other})["top1_agreement"] == 0.5


@pytest.mark.parametrize("shape", [(8,), (8, 1), (2, 4, 4), ()])
def test_other_shapes_have_no_top1(shape) -> None:
    reference = np.ones(shape)
    assert errors({"y": reference}, {"y": reference * 1.1})["top1_agreement"] is None


def test_integers_and_missing_outputs_are_left_out() -> None:
    reference = floats(3, 4)
    expected = {"ids": np.arange(3), "scores": reference, "gone": floats(2)}
    alone = errors({"scores": reference}, {"scores": reference * 1.01})
    assert errors(expected, {"ids": np.arange(3) + 9, "scores": reference * 1.01}) == alone
    assert left_out(expected, {"ids": np.arange(3), "scores": reference}, expected) == ["ids", "gone"]
    no_floats = {**NOTHING, "unknown": "no output is of floats"}
    assert errors({"ids": np.arange(3)}, {"ids": np.arange(3)}) == no_floats
    assert errors({"y": reference}, {}) == no_floats


def test_an_empty_output_is_no_error() -> None:
    """Detectors that find nothing give (0, 6)."""
    found = errors({"boxes": np.zeros((0, 6))}, {"boxes": np.zeros((0, 6))})
    assert found["sqnr_db"] is None
    reference = floats(3, 4)
    both = errors({"boxes": np.zeros((0, 6)), "y": reference}, {"boxes": np.zeros((0, 6)), "y": reference})
    assert both["max_abs"] == 0.0
    assert both["top1_agreement"] == 1.0


def test_outputs_of_another_shape_do_not_throw_the_measurement_away() -> None:
    """A detector may keep another number of boxes in another precision."""
    found = errors({"boxes": floats(5, 6)}, {"boxes": floats(4, 6)})
    assert found["sqnr_db"] is None
    assert found["top1_agreement"] is None


@pytest.mark.parametrize(
    ("dtype", "noise", "said"),
    [("fp32", 1e-3, "TF32"), ("fp32", 1e-7, None), ("tf32", 1e-3, None), ("fp16", 1e-3, None)],
)
def test_fp32_that_is_as_far_off_as_tf32_is_contradicted(dtype, noise, said) -> None:
    reference = np.random.default_rng(0).standard_normal((4, 100))
    found = errors({"y": reference}, {"y": reference + noise * np.random.default_rng(1).standard_normal((4, 100))})
    reason = reason_of(dtype, found)
    assert (reason is None) == (said is None)
    assert said is None or said in reason


def test_outputs_that_are_not_finite_are_contradicted() -> None:
    found = errors({"y": np.ones((1, 3))}, {"y": np.array([[1.0, np.inf, np.nan]])})
    assert "2 outputs are not finite" in reason_of("fp16", found)
    assert fault("fp16", None) is None


@pytest.mark.parametrize(
    ("dtype", "noise", "least", "wrong"),
    [
        ("fp16", 0.3, None, True),  # 10 dB
        ("tf32", 0.3, None, True),
        ("bf16", 0.3, None, False),
        ("int8", 0.3, None, False),
        ("int8", 1.2, None, True),  # -2 dB: what was seen of int8 beside fp16
        ("fp8", 1.2, -100.0, False),
        ("int8", 0.3, 15.0, True),
    ],
)
def test_an_engine_that_is_fast_finite_and_wrong_is_contradicted(dtype, noise, least, wrong) -> None:
    reference = np.random.default_rng(0).standard_normal((4, 100))
    found = errors({"y": reference}, {"y": reference + noise * np.random.default_rng(1).standard_normal((4, 100))})
    reason = reason_of(dtype, found, Gates(min_sqnr_db=least))
    assert (reason is not None) == wrong
    assert not wrong or ("accuracy: the outputs are" in reason and "accuracy.min_sqnr_db" in reason)


def test_the_largest_error_is_also_a_share_of_the_largest_value() -> None:
    found = errors(
        {"a": np.array([8.0, -2.0]), "b": np.array([4.0])}, {"a": np.array([8.0, -1.0]), "b": np.array([4.5])}
    )
    assert (found["max_abs"], found["max_rel"]) == (1.0, 1 / 8)
    assert errors({"y": np.zeros(3)}, {"y": np.ones(3)})["max_rel"] is None


def test_what_all_samples_share_does_not_hide_a_wrong_output() -> None:
    """Random weights: the outputs of different inputs are near one another, and a cosine says 0.999 of any two."""
    shared = 100 * floats(1, 50)
    one, other = shared + floats(8, 50), shared + np.random.default_rng(2).standard_normal((8, 50))
    found = errors({"y": one}, {"y": other})
    assert found["cosine"] > 0.999
    assert abs(found["cosine_centred"]) < 0.3
    assert errors({"y": one}, {"y": one + 1e-6})["cosine_centred"] == pytest.approx(1)
    assert errors({"y": one[:1]}, {"y": other[:1]})["cosine_centred"] is None


def test_an_offset_of_all_samples_is_an_error_too() -> None:
    reference = floats(8, 50)
    assert errors({"y": reference}, {"y": reference + 5})["cosine_centred"] < 0.5


SCORES = np.eye(4) * 3 + floats(4, 4) * 0.01


@pytest.mark.parametrize(
    ("gates", "line"),
    [
        (Gates(min_top1=0.8), "arg max is, below the 0.8 that was asked for (accuracy.min_top1)"),
        (
            Gates(max_error=0.5),
            "largest reference value is, above the 0.5 that was asked for (accuracy.max_error)",
        ),
        (
            Gates(min_cosine=0.99),
            "batch-centred cosine is, below the 0.99 that was asked for (accuracy.min_c",
        ),
        (Gates(min_top1=0.75, max_error=2.5, min_cosine=0.5), None),
        (Gates(), None),
    ],
)
def test_each_gate_has_its_line(gates, line) -> None:
    wrong = SCORES.copy()
    wrong[2] = np.roll(wrong[2], 1) * 1.0
    found = errors({"y": SCORES}, {"y": wrong})
    reason = reason_of("int8", {**found, "sqnr_db": 30.0}, gates)
    assert (reason is None) == (line is None)
    assert line is None or fault("int8", {**found, "sqnr_db": 30.0}, gates).gate in reason
    assert line is None or line.split(" is, ")[0] in reason
    assert line is None or line.split(" is, ")[1] in reason


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (
            Gates(min_top1=1.0),
            "min_top1=1 was asked for and cannot be judged: no output has the shape (batch, classes)",
        ),
        (Gates(min_cosine=0.9), "cannot be judged: a batch of 1 has no batch-centred cosine"),
        (Gates(max_error=0.1), None),
    ],
)
def test_a_gate_that_cannot_be_judged_is_not_kept(gates, said) -> None:
    reference = floats(1, 5, 5)
    found = errors({"y": reference}, {"y": reference * 1.001})
    reason = reason_of("fp16", found, gates)
    assert (reason is None) == (said is None)
    assert said is None or said in reason
    assert fault("fp16", errors({"y": reference}, {"y": reference}), gates) is None, "equal outputs keep every gate"


@pytest.mark.parametrize(
    ("gates", "gate"),
    [
        (Gates(), None),
        (Gates(min_sqnr_db=-100.0), None),
        (Gates(min_sqnr_db=20.0), "min_sqnr_db"),
        (Gates(max_error=0.1), "max_error"),
    ],
)
def test_what_was_never_compared_is_not_exact_and_keeps_no_gate_of_the_users(gates, gate) -> None:
    """A detector keeps another number of boxes: without a gate that is no fault, with one it cannot be judged."""
    found = errors({"boxes": floats(5, 6)}, {"boxes": floats(4, 6)})
    assert found["unknown"] == "output boxes is [5, 6] in the reference and [4, 6] in the engine"
    assert not is_known(found)
    assert not is_exact(found)
    met = fault("int8", found, gates)
    assert (met and met.gate) == gate
    assert met is None or met.message.endswith(f"{found['unknown']} (accuracy.{gate})")


def test_outputs_that_cannot_be_compared_under_load_are_a_fault() -> None:
    reference = {"y": floats(4, 10)}
    told = again(reference, reference, [{0: reference, 1: {"y": reference["y"][:3]}}])
    assert (told["stream"], told["wrong"]) == (1, 1)
    reason = reason_of("fp16", {**errors(reference, reference), "again": told})
    assert reason.startswith("under load, on stream 1: accuracy: the outputs cannot be compared any more (output y is")


def explained(sqnr_db, expected_db, floor_db=110.0, tf32_db=50.0, **figures):
    """An accuracy whose rounding is explained."""
    table = {"floor_db": floor_db, "tf32_db": tf32_db, "expected_db": expected_db}
    draws = {name: figures.pop(name) for name in ("draws", "tf32_draws") if name in figures}
    return {"sqnr_db": sqnr_db, "max_abs": 1.0, "expected": {**table, **draws}, **figures}


@pytest.mark.parametrize(
    ("dtype", "sqnr_db", "expected_db", "wrong"),
    [
        ("fp16", 40.0, 45.0, False),
        ("fp16", 25.0, 45.0, True),  # above the fixed 20 dB, and 20 dB below what rounding explains
        ("int8", 3.0, 4.0, False),  # below the fixed 6 dB, and the recipe explains it
        ("int8", -9.0, 4.0, True),
        ("tf32", 8.8, 47.8, True),  # the ResNet-50 that TensorRT-RTX 1.6 spoils
        ("fp32", 78.0, 103.8, False),  # the U-Net on an H200
        ("fp32", 60.0, 90.0, False),  # a network with a low floor
        ("fp32", 65.0, 110.0, True),  # neither TF32 (50 dB) nor fp32
    ],
)
def test_an_error_beyond_what_rounding_explains_is_a_fault(dtype, sqnr_db, expected_db, wrong) -> None:
    accuracy = explained(sqnr_db, expected_db, floor_db=expected_db if dtype == "fp32" else 110.0)
    met = fault(dtype, accuracy)
    assert (met is not None) == wrong
    line = (
        f"accuracy: the outputs are {sqnr_db:.1f} dB from the fp32 reference, where rounding explains {expected_db:.1f}"
    )
    assert met is None or (met.message.startswith(line) and met.gate == "min_sqnr_db")
    assert not is_tf32(dtype, accuracy)
    assert fault(dtype, accuracy, Gates(min_sqnr_db=-100.0)) is None
    assert fault(dtype, accuracy, Gates(min_sqnr_db=sqnr_db + 1)).gate == "min_sqnr_db"


@pytest.mark.parametrize(
    ("figures", "is_it"),
    [
        ({"draws": 2, "tf32_draws": 2}, True),
        ({"draws": 2, "tf32_draws": 1}, False),
        ({}, False),
        ({"draws": 2, "tf32_draws": 2, "floor_db": 80.0}, False),  # 51 dB may be fp32's where the floor is 80
        ({"draws": 2, "tf32_draws": 2, "tf32_db": 30.0}, False),
        ({"draws": 2, "tf32_draws": 2, "undiagnosed": "no output is above 1e-08"}, False),
    ],
)
def test_fp32_is_called_tf32_where_its_error_is_tf32s_on_every_input(figures, is_it) -> None:
    accuracy = explained(51.0, figures.get("floor_db", 110.0), **figures)
    assert is_tf32("fp32", accuracy) == is_it
    met = fault("fp32", accuracy)
    assert (met is not None and "as TF32's are" in met.message) == is_it
    assert not is_it or fault("fp32", accuracy, Gates(min_sqnr_db=-100.0)) is not None, "a label is no gate"


def test_an_error_that_changes_no_answer_is_no_fault() -> None:
    """A trained classifier in fp32 on a GPU: 56 dB, cosine 0.999999, every arg max that of the reference."""
    figures = {"top1_agreement": 1.0, "cosine": 0.999999}
    assert fault("fp32", explained(56.0, 120.0, floor_db=120.0, tf32_db=72.0, **figures)) is None
    changed = explained(56.0, 120.0, floor_db=120.0, tf32_db=72.0, **{**figures, "top1_agreement": 0.98})
    assert "where rounding explains 120.0 dB" in fault("fp32", changed).message


def test_outputs_of_nothing_are_not_judged() -> None:
    tiny = {"y": floats(4, 10) * 1e-8}
    feeds = {"x": floats(4, 3)}
    reason = undiagnosed(tiny, feeds)
    assert reason.startswith("no output is above")
    assert "numpy.savez('inputs.npz', x=...) in Python, then model.samples=inputs.npz" in reason
    assert fault("fp32", {**explained(-122.0, 110.0), "undiagnosed": reason}) is None
    assert fault("fp32", {**explained(-122.0, 110.0), "undiagnosed": reason}, Gates(min_sqnr_db=10.0)) is not None
    assert undiagnosed({"y": floats(4, 10)}, feeds) is None
    assert undiagnosed(tiny, {"x": feeds["x"] * 1e-6}) is None, "tiny inputs explain tiny outputs"


def test_samples_that_all_have_the_same_outputs_are_not_judged() -> None:
    feeds, row = {"x": floats(4, 3)}, floats(1, 10)
    assert undiagnosed({"y": np.repeat(row, 4, axis=0)}, feeds).startswith("all samples have the same outputs")
    assert undiagnosed({"y": np.repeat(row, 4, axis=0)}, {"x": np.ones((4, 3))}) is None, "so have the inputs"
    assert undiagnosed({"y": row}, {"x": floats(1, 3)}) is None, "a batch of 1 has nothing to compare"
    assert undiagnosed({"y": np.repeat(row, 4, axis=0), "z": floats(4, 2)}, feeds) is None


def test_a_network_that_draws_is_not_judged_but_its_nans_are() -> None:
    expected = {"y": floats(2, 4)}
    found = against(expected, {"y": floats(2, 4)}, random=["RandomNormalLike"])
    assert found["unknown"] == "the network draws random numbers (RandomNormalLike)"
    assert fault("fp32", {**found, "again": again(expected, expected, [{0: expected}], ["RandomNormalLike"])}) is None
    assert fault("fp32", found, Gates(min_sqnr_db=20.0)).gate == "min_sqnr_db"
    spoilt = against(expected, {"y": np.full((2, 4), np.nan)}, random=["RandomNormalLike"])
    assert "8 outputs are not finite" in fault("fp32", spoilt).message


@pytest.mark.parametrize(
    ("dtype", "noise", "is_it"), [("fp32", 1e-3, True), ("fp32", 1e-6, False), ("fp32", 2.0, False)]
)
def test_fp32_that_ran_as_tf32_is_known(dtype, noise, is_it) -> None:
    reference = floats(4, 100)
    found = errors({"y": reference}, {"y": reference + noise * np.random.default_rng(9).standard_normal((4, 100))})
    assert is_tf32("fp32", found) == is_it
    assert not is_tf32("tf32", found)
    assert not is_tf32("fp32", None)


def test_every_stream_is_looked_at_again() -> None:
    reference = {"y": floats(4, 10)}
    first = {"y": reference["y"] * 1.01}
    spoilt = {"y": first["y"].copy()}
    spoilt["y"][2] = 0
    calm = again(reference, first, [{0: first, 1: {"y": first["y"].copy()}}])
    assert (calm["identical"], calm["streams"], calm["lost_db"]) == (True, 2, 0.0)
    found = again(reference, first, [{0: first, 1: spoilt, 2: first}])
    assert (found["identical"], found["stream"]) == (False, 1)
    assert found["lost_db"] == pytest.approx(errors(reference, first)["sqnr_db"] - errors(reference, spoilt)["sqnr_db"])
    record = errors(reference, first)
    assert fault("int8", {**record, "again": calm}) is None
    reason = reason_of("int8", {**record, "again": found}, Gates(min_sqnr_db=-100.0))
    assert reason.startswith("under load, on stream 1: accuracy: the outputs lost ")


def test_outputs_that_stop_being_finite_under_load_are_named() -> None:
    reference = {"y": floats(4, 10)}
    spoilt = {"y": np.full((4, 10), np.nan)}
    found = again(reference, reference, [{0: reference, 3: spoilt}])
    assert (found["stream"], found["nonfinite"], found["lost_db"]) == (3, 40, None)
    reason = reason_of("fp16", {**errors(reference, reference), "again": found})
    said = "under load, on stream 3: 40 outputs are not finite; those of the reference are, in 1 of 2 looks"
    assert reason == said
    json.dumps(found, allow_nan=False)


def test_a_kernel_that_is_wrong_once_in_a_while_is_found_among_many_looks() -> None:
    reference = {"y": floats(4, 10)}
    first, spoilt = {"y": reference["y"] * 1.001}, {"y": reference["y"] * -1}
    looks = ({0: first, 1: spoilt if number == 17 else first} for number in range(40))
    found = again(reference, first, looks)
    assert (found["looks"], found["wrong"], found["stream"], found["streams"]) == (80, 1, 1, 2)
    reason = reason_of("fp16", {**errors(reference, first), "again": found})
    assert reason.endswith(" dB against those right after the timing, in 1 of 80 looks")


def test_bits_that_differ_as_sums_do_are_let_through() -> None:
    reference = {"y": floats(4, 10)}
    first, later = {"y": reference["y"] * 1.001}, {"y": reference["y"] * 1.0011}
    found = again(reference, first, [{0: later}])
    assert not found["identical"]
    assert fault("fp16", {**errors(reference, first), "again": found}) is None


def test_a_gate_names_the_reference_that_there_was() -> None:
    rng = np.random.default_rng(0)
    expected = {"y": rng.standard_normal((4, 100))}
    wrong = {"y": rng.standard_normal((4, 100))}
    for reference, words in ((REFERENCE, "dB from the fp32 reference"), (TYPED_REFERENCE, "dB from the typed file on")):
        told = fault("int8", against(expected, wrong, None, reference))
        assert told is not None
        assert words in told.message

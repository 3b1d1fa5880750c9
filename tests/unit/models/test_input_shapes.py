import re
from dataclasses import replace
from typing import Any

import pytest

from sweep.errors import ModelError
from sweep.models import Signature, TensorSpec, check_batch
from sweep.models.input_shapes import UNKNOWN_RANK, dimensions, settle
from sweep.spec import Dimension, InputFix, ModelRef


def settled(
    shapes: dict[str, tuple[int | str, ...]], *fixes: InputFix, batch_dim: str | None = None, dtype: str = "float32"
) -> list[tuple[int | str, ...]]:
    """Settled shapes of inputs given as name -> shape in the file."""
    specs = tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, shape in shapes.items())
    ref = ModelRef(name="m", path="/m.onnx", inputs=fixes, batch_dim=batch_dim)
    return [spec.shape for spec in settle(specs, ref)]


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ModelError) as error:
        settled(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def fix(name: str = "x", *shape: int | str, **limits: float) -> InputFix:
    return InputFix(name=name, shape=shape or None, **limits)


@pytest.mark.parametrize(
    "word", ["batch", "N", "n", "B", "batch_size", "bs", "Batch", "num_batch", "s0", "unk__6", "?"]
)
def test_first_symbolic_dimension_is_the_batch(word: str) -> None:
    assert settled({"x": (word, 3, 8, 8), "y": (word, 4)}) == [("batch", 3, 8, 8), ("batch", 4)]


@pytest.mark.parametrize("word", ["batch", "batch_size", "BS", "b", "N"])
def test_batch_is_found_by_name_behind_a_fixed_axis(word: str) -> None:
    assert settled({"x": (word, 8), "state": (2, word, 128), "sr": ()}) == [("batch", 8), (2, "batch", 128), ()]


def test_a_name_that_says_batch_goes_before_n_and_before_the_first_axis() -> None:
    points = {"x": ("B", "N", 3)}
    assert settled(points, fix("x", "batch", 1024, 3)) == [("batch", 1024, 3)]
    assert "'x' is [batch,N,3]" in refusal(points)
    assert settled({"x": ("S", "N", 8)}, fix("x", 32, "batch", 8)) == [(32, "batch", 8)]
    assert "'x' is [S,batch,8]" in refusal({"x": ("S", "N", 8)})


def test_batch_dim_decides() -> None:
    shapes = {"x": ("rows", 4), "y": ("cols", 4)}
    assert settled(shapes, fix("y", 7, 4), batch_dim="rows") == [("batch", 4), (7, 4)]
    assert "'x' is [?,4]" in refusal({"x": ("batch", 4), "y": ("rows", 4)}, batch_dim="rows")


def test_shape_sets_every_dimension_of_the_name_and_never_the_batch() -> None:
    specs = tuple(
        TensorSpec(name=name, dtype="float32", shape=shape)
        for name, shape in {"x": ("N", "time steps", 8), "y": ("N", "time steps", "heads")}.items()
    )
    ref = ModelRef(name="m", path="/m.onnx")
    assert dimensions(specs, ref) == ("time steps", "heads")
    sizes = (Dimension(name="time steps", size=16), Dimension(name="heads", size=2))
    shapes = [spec.shape for spec in settle(specs, replace(ref, shape=sizes))]
    assert shapes == [("batch", 16, 8), ("batch", 16, 2)]
    for name, words in (("N", "shape=N:3: N is the batch; batch=3 sets it"), ("w", "(it has: heads, time steps)")):
        with pytest.raises(ModelError, match=re.escape(words)):
            settle(specs, replace(ref, shape=(Dimension(name=name, size=3),)))


def test_batch_dim_of_no_dimension() -> None:
    assert refusal({"x": ("rows", 4, "cols")}, batch_dim="batch") == (
        "model.batch_dim=batch: model 'm' has no such symbolic dimension (it has: cols, rows); "
        "name one of these, or leave it out"
    )
    assert "it has: none" in refusal({"x": (1, 4)}, batch_dim="N")


def test_several_first_dimensions_are_not_guessed() -> None:
    assert refusal({"x": ("nodes", 4), "y": ("edges", 2)}) == (
        "model 'm' has several symbolic first dimensions (edges, nodes); say which is the batch: "
        "+model.batch_dim=edges +model.inputs.x.shape=[batch,4]"
    )


@pytest.mark.parametrize("name", ["?", "unk__10", "batch"])
def test_one_name_is_not_one_size(name: str) -> None:
    shapes = {"x": (name, name), "y": (name, 4)}
    assert settled(shapes, fix("x", "batch", 8), fix("y", 5, 4)) == [("batch", 8), (5, 4)]
    assert settled(shapes, fix("x", 3, 8), fix("y", "batch", 4)) == [(3, 8), ("batch", 4)]


def test_a_name_with_several_sizes_settles_no_other_input() -> None:
    shapes = {"x": ("unk", "unk"), "y": ("unk", 4), "z": ("unk", "unk")}
    assert refusal(shapes, fix("x", "batch", 8), fix("y", 5, 4)) == (
        "model 'm' leaves sizes open: input 'z' is [unk,unk]; fix them, with the word batch at the batch axis, "
        "for example +model.inputs.z.shape=[batch,128]"
    )


def test_the_batch_is_once_in_an_input() -> None:
    """A name that two axes of one input share says nothing of the second."""
    assert refusal({"x": ("n", "n", 3)}).endswith("for example +model.inputs.x.shape=[batch,128,3]")
    assert settled({"x": ("n", "n", 3)}, fix("x", "batch", 7, 3)) == [("batch", 7, 3)]


def test_a_sequence_is_no_batch() -> None:
    assert "+model.inputs.x.shape=[128,576]" not in refusal({"x": ("sequence_length", "?", 576)})
    assert settled({"x": ("sequence_length", 576)}, fix("x", "batch", 576)) == [("batch", 576)]
    assert settled({"x": ("sequence_length", 576)}, fix("x", 5, 576)) == [(5, 576)]


def test_open_dimensions_come_with_the_override_to_type() -> None:
    assert refusal({"input": ("?", "?"), "state": (2, "?", 128), "sr": ()}) == (
        "model 'm' leaves sizes open: input 'input' is [batch,?], input 'state' is [2,?,128]; "
        "fix them, with the word batch at the batch axis, for example "
        "+model.inputs.input.shape=[batch,128] +model.inputs.state.shape=[2,batch,128]"
    )


def test_a_symbol_fixed_once_is_fixed_everywhere() -> None:
    shapes = {"ids": ("batch", "seq"), "mask": ("batch", "seq"), "image": ("batch", 3)}
    message = refusal(shapes)
    assert "+model.inputs.ids.shape=[batch,128]" in message
    assert "mask" not in message
    assert settled(shapes, fix("ids", "batch", 64)) == [("batch", 64), ("batch", 64), ("batch", 3)]
    assert settled(shapes, fix("ids", 1, 64)) == [(1, 64), (1, 64), (1, 3)]
    assert settled(shapes, fix("ids", "batch", 64), fix("mask", "batch", 32))[:2] == [("batch", 64), ("batch", 32)]


def test_unknown_rank_needs_a_shape() -> None:
    assert refusal({"x": UNKNOWN_RANK}).endswith("for example +model.inputs.x.shape=[batch,128]")
    assert settled({"x": UNKNOWN_RANK}, fix("x", "batch", 2, 3)) == [("batch", 2, 3)]


def test_fix_of_no_input() -> None:
    assert refusal({"x": ("batch", 4), "sr": ()}, fix("rate", 3)) == (
        "model.inputs names 'rate', but model 'm' has x, sr; correct the name"
    )


def test_fix_of_other_rank() -> None:
    assert refusal({"x": ("batch", 4)}, fix("x", "batch", 4, 4)) == (
        "model.inputs.x.shape=[batch,4,4] has 3 dimensions, but model 'm' declares it [batch,4]; give 2"
    )


@pytest.mark.parametrize(("shape", "size"), [(("batch", 5), 5), (("batch", "batch"), "batch")])
def test_fix_against_the_file(shape: tuple[int | str, ...], size: object) -> None:
    assert f"wants {size} at axis 1, but model 'm' declares it [batch,4]; keep 4 there" in refusal(
        {"x": ("batch", 4)}, fix("x", *shape)
    )


@pytest.mark.parametrize("size", [0, -1, "seq", True, 1.5])
def test_fix_with_what_is_no_size(size: object) -> None:
    assert f"{size!r} is no size; give a whole number above 0, or the word batch" in refusal(
        {"x": ("batch", "seq")}, fix("x", "batch", size)
    )


@pytest.mark.parametrize(
    ("dtype", "limits", "message"),
    [
        ("float32", {"low": 2, "high": 1}, "low=2, high=1 is an empty range (the default is 0 to 1); give low <= high"),
        ("int64", {"low": 5}, "low=5, high=1 is an empty range"),
        ("float32", {"low": float("nan"), "high": 1}, "is not finite; give numbers"),
        ("float32", {"high": float("inf")}, "is not finite"),
        ("uint8", {"low": -1}, "takes uint8, which holds 0 to 255; stay inside"),
        ("float16", {"high": 1e6}, "takes float16, which holds -65504 to 65504"),
        ("bool", {"high": 2}, "takes bool, which holds 0 to 1"),
        ("int32", {"low": 0.2, "high": 0.8}, "takes int32, and no whole number lies between; widen it"),
    ],
)
def test_bad_ranges(dtype: str, limits: dict[str, float], message: str) -> None:
    found = refusal({"x": ("batch", 4)}, fix("x", **limits), dtype=dtype)
    assert found.startswith("model.inputs.x: low=")
    assert message in found


def signature_of(*shapes: tuple[int | str, ...]) -> Signature:
    inputs = tuple(TensorSpec(name=f"x{i}", dtype="float32", shape=shape) for i, shape in enumerate(shapes))
    return Signature(inputs=inputs, outputs=("y",))


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        ([("batch", 3)], 8),
        ([(2, "batch", 128), ()], 8),
        ([(1, 3, 224, 224)], 1),
        ([(4, 3)], 1),
        ([(8, 3), (8,), ()], 8),
    ],
)
def test_batches_that_fit(shapes: list[tuple[int | str, ...]], batch: int) -> None:
    check_batch(signature_of(*shapes), batch, "m")


@pytest.mark.parametrize("shapes", [[(1, 3, 224, 224)], [(8, 3), (1, 4)], [()]])
def test_batches_that_do_not_fit(shapes: list[tuple[int | str, ...]]) -> None:
    with pytest.raises(ModelError, match="model 'm' has no batch axis"):
        check_batch(signature_of(*shapes), 8, "m")


def test_message_of_a_batch_that_does_not_fit() -> None:
    message = (
        "model 'm' has no batch axis (input 'x0' is [1,3,224,224]) and was asked for batch 8; "
        "ask for batch=1 or export with a dynamic first dimension"
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        check_batch(signature_of((1, 3, 224, 224)), 8, "m")

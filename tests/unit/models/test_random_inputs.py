import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.models import Signature, TensorSpec, draw

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def spec(
    dtype: str = "float32", shape: tuple[int | str, ...] = ("batch", 16), name: str = "x", **limits: float
) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, **limits)


def drawn(one: TensorSpec, batch: int = 4, seed: int = 0) -> np.ndarray:
    return draw(Signature(inputs=(one,), outputs=("y",)), batch, seed)[one.name]


def test_spec_shapes() -> None:
    state = spec(shape=(2, "batch", 128))
    assert state.batch_axis == 1
    assert state.concrete(8) == (2, 8, 128)
    assert spec(shape=()).batch_axis is None
    assert spec(shape=()).concrete(8) == ()


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("shape", [(), (3,), ("batch",), ("batch", 5), (2, "batch", 3), (2, 3, "batch")])
def test_dtype_shape_and_layout(dtype: str, shape: tuple[int | str, ...]) -> None:
    values = drawn(spec(dtype, shape))
    assert isinstance(values, np.ndarray)
    assert values.dtype == dtype
    assert values.shape == spec(shape=shape).concrete(4)
    assert values.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
@given(low=st.integers(0, 100), span=st.integers(0, 27), seed=st.integers(0, 2**32))
def test_values_stay_in_range(dtype: str, low: int, span: int, seed: int) -> None:
    values = drawn(spec(dtype, low=low, high=low + span), seed=seed)
    assert values.min() >= low
    assert values.max() <= low + span


def test_default_ranges() -> None:
    normal = drawn(spec(shape=("batch", 10_000)))
    assert normal.mean() == pytest.approx(0, abs=0.05)
    assert normal.std() == pytest.approx(1, abs=0.05)
    assert set(np.unique(drawn(spec("int64")))) == {0, 1}
    assert set(np.unique(drawn(spec("bool")))) == {False, True}
    assert drawn(spec("bool", low=1, high=1)).all()
    assert drawn(spec(high=0.5)).max() <= 0.5
    assert set(np.unique(drawn(spec("int64", low=-0.5, high=2.9)))) == {0, 1, 2}


def test_extreme_ranges() -> None:
    assert drawn(spec("int64", (), low=16000, high=16000)) == 16000
    assert np.isfinite(drawn(spec("float16", low=-65504, high=65504))).all()
    assert drawn(spec("int8", low=-128, high=127), batch=500).min() == -128


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("shape", [("batch", 33), (2, "batch", 33)])
def test_a_sample_is_the_same_in_every_batch(dtype: str, shape: tuple[int | str, ...]) -> None:
    one, many = drawn(spec(dtype, shape), batch=1), drawn(spec(dtype, shape), batch=7)
    axis = shape.index("batch")
    np.testing.assert_array_equal(np.take(many, [0], axis), one)
    samples = {np.take(many, i, axis).tobytes() for i in range(7)}
    assert len(samples) == 7


def test_seed_and_name_decide() -> None:
    both = Signature(inputs=(spec(name="a"), spec(name="b")), outputs=("y",))
    first, again, other = draw(both, 4, 0), draw(both, 4, 0), draw(both, 4, 1)
    assert list(first) == ["a", "b"]
    np.testing.assert_array_equal(first["a"], again["a"])
    assert not np.array_equal(first["a"], other["a"])
    assert not np.array_equal(first["a"], first["b"])
    np.testing.assert_array_equal(first["b"], drawn(spec(name="b")))

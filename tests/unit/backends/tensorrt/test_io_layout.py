import numpy as np
import pytest

from sweep.backends.tensorrt import io_layout

VALUE = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)


@pytest.mark.parametrize("name", ["CHW2", "CHW4", "CHW16", "CHW32", "HWC", "HWC8", "HWC16"])
def test_what_is_unpacked_is_what_was_packed(name: str) -> None:
    layout = io_layout.parse(name)
    assert layout is not None
    packed = layout.pack(VALUE)
    assert packed.shape == layout.packed_shape(VALUE.shape)
    np.testing.assert_array_equal(layout.unpack(packed, VALUE.shape), VALUE)
    assert packed.sum() == VALUE.sum()  # what is padded is zero


def test_channels_lie_side_by_side_in_hwc8_and_in_groups_in_chw2() -> None:
    """Element (n, c, h, w) lies at [n][h][w][c] of HWC8, and at [n][c / 2][h][w][c % 2] of CHW2."""
    last, grouped = (io_layout.parse(name) for name in ("HWC8", "CHW2"))
    assert last is not None
    assert grouped is not None
    assert last.pack(VALUE)[1, 0, 1].tolist() == [*VALUE[1, :, 0, 1].tolist(), 0, 0, 0, 0, 0]
    assert grouped.pack(VALUE)[1, 1, 0, 1].tolist() == [VALUE[1, 2, 0, 1], 0]


def test_linear_is_no_layout_and_other_names_are_refused() -> None:
    assert io_layout.parse("LINEAR") is None
    with pytest.raises(ValueError, match="DHWC8"):
        io_layout.parse("DHWC8")

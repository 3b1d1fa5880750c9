"""``model.calibration``: the samples that ranges are drawn from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sweep import calibration, models

if TYPE_CHECKING:
    from sweep.axes import CalibrationData, ModelRef, Precision


def calibration_data(text: str | None, model: ModelRef, precision: Precision) -> CalibrationData | None:
    """The user's samples, held to the network's inputs; None where the precision draws no ranges."""
    if text is None or precision.calibration_batches is None:
        return None
    return _checked(text, model, precision.calibration_batches)


@cache
def _checked(text: str, model: ModelRef, count: int) -> CalibrationData:
    """Read once a sweep, however many variants share it."""
    data = calibration.asked(text)
    calibration.check(data, models.signature(model), count)
    return data

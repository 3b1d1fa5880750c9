"""Outputs of several batches stand as those of one, whatever their shape, and each sample once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.runner.worker.compared_inputs import ComparedInputs

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS = np.arange(6.0).reshape(6, 1)


def infer(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = feeds["x"].sum()
    return {"rows": feeds["x"] * 2, "all": np.asarray(total), "boxes": np.tile(total, (5, 2))}


def test_the_repetitions_at_the_end_are_left_out() -> None:
    inputs = ComparedInputs(batches=({"x": ROWS[:4]}, {"x": ROWS[[4, 5, 0, 1]]}), counts=(4, 2), size=4)
    outputs = inputs.run(infer)
    assert inputs.samples == 6
    np.testing.assert_array_equal(outputs["rows"], ROWS * 2)
    np.testing.assert_array_equal(inputs.feeds()["x"], ROWS)
    assert outputs["all"].tolist() == [6.0, 10.0]
    assert outputs["boxes"].shape == (10, 2)
    few = ComparedInputs(batches=({"x": ROWS[[0, 1, 0, 1]]},), counts=(2,), size=4)
    np.testing.assert_array_equal(few.run(infer)["rows"], ROWS[:2] * 2)


def test_one_whole_batch_is_as_it_came() -> None:
    """A network without a batch axis at batch 1, whose outputs have another first size."""
    inputs = ComparedInputs(batches=({"x": ROWS},), counts=(1,), size=1)
    assert inputs.run(infer)["rows"].shape == (6, 1)
    assert inputs.run(infer)["all"].shape == ()
    assert inputs.first(5).changed(lambda feeds: {"x": feeds["x"] + 1}).feeds()["x"][0, 0] == 1.0

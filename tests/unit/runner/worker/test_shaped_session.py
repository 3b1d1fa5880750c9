"""A load of several shapes on real engines: one of each shape, checked each, and padded to buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import passes

from sweep.runner.worker.shaped_session import PolledShapedStream
from sweep.spec import Dimension, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, ShapeMix, ShapeShare, Variant
from sweep.storage import samples_file

if TYPE_CHECKING:
    from pathlib import Path


def image(height: int) -> tuple[Dimension, ...]:
    return (Dimension(name="h", size=height),)


def test_each_shape_has_an_engine_that_is_timed_and_compared(tmp_path: Path) -> None:
    mix = ShapeMix(entries=tuple(ShapeShare(shape=image(size), share=0.5) for size in (6, 16)))
    variant = Variant(
        backend="onnxruntime",
        onnx=OnnxAxes(
            model=ModelRef(name="tiny_cnn", revision=1, shape=image(16)), precision=Precision(name="fp32", dtype="fp32")
        ),
        session=SessionAxes(streams=2),
        load=LoadAxes(
            kind="closed",
            warmup_s=0.0,
            min_s=0.02,
            min_requests=20,
            max_s=0.2,
            shapes=mix,
            buckets=(image(8), image(16)),
        ),
    )
    result = passes.measured(variant, tmp_path)
    assert result["mismatch"] is None
    small, large = result["realised"]["shapes"]
    assert (small["shape"], large["shape"]) == ("h:8", "h:16")
    assert small["engine"] != large["engine"] == result["engine"]["key"]
    assert "sqnr_db" in small
    changes = result["realised"]["shape_changes"]
    assert [(row["shape"], row["after"]) for row in changes] == [("h:8", "h:16"), ("h:16", "h:8")]
    assert all(row["change_ms"] > 0 and row["stay_ms"] > 0 for row in changes)
    (point,) = samples_file.load(tmp_path / "s.npz")
    assert point.shape is not None
    assert set(point.shape) == {0, 1}


class Timed:
    """Counts its inferences; the n-th took n ms and 10 times its number."""

    max_depth, clock, spins = 8, None, True

    def __init__(self, number: int) -> None:
        self.number, self.runs = number, 0

    def enqueue(self, samples: int | None = None) -> None:
        del samples
        self.runs += 1

    def wait(self) -> None:
        """Do nothing."""

    def poll(self) -> bool:
        return self.runs > 1

    def take_parts_ms(self) -> Any:
        rows = [[0, 10 * self.number + run, 0, 0] for run in range(1, self.runs + 1)]
        return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_part_times_come_back_in_the_order_of_the_inferences() -> None:
    stream = PolledShapedStream([Timed(1), Timed(2)])
    for number in (1, 0, 1):
        stream.enqueue_shape(number)
    assert stream.poll()
    stream.enqueue_shape(0)
    stream.enqueue()
    assert stream.take_parts_ms()[:, 1].tolist() == [21, 11, 22, 12, 23]
    assert stream.max_depth == 1

"""A load of several shapes on real engines: one of each shape, checked each, and padded to buckets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import factories
import numpy as np
import onnx
import passes
import pytest
from factories import config
from onnx import TensorProto, helper, numpy_helper

from sweep.backends import registry
from sweep.config import variants
from sweep.runner.worker.shaped_session import PolledShapedStream, ShapedSession
from sweep.spec import (
    Dimension,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    SessionAxes,
    ShapeMix,
    ShapeProfiles,
    ShapeShare,
    Variant,
)
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


def own_file(path: Path) -> None:
    """Write a network of a user's own, with a dimension that has a meaning and one that has none."""
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "seq", size])
        for name, size in (("x", 4), ("y", 3))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "same"),
        helper.make_node("CumSum", ["m", "axis"], ["y"], "same"),  # irregular: two nodes of one name
    ]
    axis = numpy_helper.from_array(np.array(1), "axis")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize("own", [False, True])
def test_one_session_over_a_range_computes_what_an_engine_of_each_shape_does(own: bool, tmp_path: Path) -> None:  # noqa: FBT001
    own_file(tmp_path / "net.onnx")
    values: dict[str, Any] = {"model__path": str(tmp_path / "net.onnx")} if own else {"model__name": "tiny_cnn"}
    name, sizes = ("seq", (3, 7, 9)) if own else ("h", (8, 12, 16))
    results = {}
    for way in ("per_engine", "range"):
        variant = variants.from_config(
            config(
                **values,
                backend__name="onnxruntime",
                backend__script=None,
                profiles=way,
                streams=2,
                batch=2,
                load__kind="closed",
                load__warmup_s=0.0,
                load__min_s=0.02,
                load__min_requests=20,
                load__max_s=0.2,
                load__shapes=[{"shape": f"{name}:{size}", "share": 1} for size in sizes],
                results=str(tmp_path),
            )
        )
        results[way] = result = passes.measured(variant, tmp_path / way)
        assert result["mismatch"] is None
        shapes = result["realised"]["shapes"]
        assert [item["shape"] for item in shapes] == [f"{name}:{size}" for size in sizes]
        assert len({item["engine"] for item in shapes}) == (1 if way == "range" else 3)
        assert all(item["first_run_ms"] > 0 for item in shapes)
        accuracies = [result["accuracy"]["sqnr_db"], *(item["sqnr_db"] for item in shapes[:-1])]
        assert all(sqnr_db is None or sqnr_db > 100 for sqnr_db in accuracies)
        assert len(result["realised"]["shape_changes"]) == 6
    assert results["range"]["engine"]["key"] != results["per_engine"]["engine"]["key"]
    assert results["range"]["engine"]["plan_digest"] != results["per_engine"]["engine"]["plan_digest"]
    reason = registry.get("onnxruntime").unsupported(
        dataclasses.replace(
            variant, engine=dataclasses.replace(variant.engine, profiles=ShapeProfiles(way="per_shape", shapes=()))
        )
    )
    assert "onnxruntime has no optimization profiles (asked: profiles=per_shape)" in str(reason)


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


def test_memory_of_several_engines_adds_up_once_they_are_closed() -> None:
    class Session:
        def __init__(self, size: int) -> None:
            self.size, self.streams, self.realised = size, (Timed(0),), dict[str, Any]()
            self.engine_facts: dict[str, Any] = {"device_memory_bytes": 10 * size}
            self.shape_facts = {"graphs": {"count": 1, "nodes": size, "memory_bytes": 0, "pool_bytes": 0}}

        def close(self) -> None:
            owners = {"weights": self.size, "buffers": 1}
            self.engine_facts["memory"] = {
                "peak_bytes": self.size,
                "timeline": [[0.0, 1, "run"]],
                "peak_by_owner": owners,
            }

    class Engine:
        variant = factories.variant()

        def facts(self, session: Session) -> dict[str, Any]:
            return {"device_memory_bytes": session.engine_facts["device_memory_bytes"], **session.shape_facts}

    session = ShapedSession([Session(3), Session(4)], [Engine(), Engine()])  # type: ignore[list-item]  # as far as is used
    assert session.engine_facts["graphs"] == {"count": 2, "nodes": 7, "memory_bytes": 0, "pool_bytes": 0}
    assert session.engine_facts["device_memory_bytes"] == 70
    session.close()
    assert session.engine_facts["memory"] == {"peak_bytes": 7, "peak_by_owner": {"weights": 7, "buffers": 2}}

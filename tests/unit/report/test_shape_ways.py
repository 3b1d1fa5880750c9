"""The ways to serve the shapes of one load stand side by side, with what each takes and gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from factories import config
from measured_runs import record

from sweep.config import variants
from sweep.report import shape_ways
from sweep.report.mlflow import record_mapping
from sweep.spec import flat, variant_key

if TYPE_CHECKING:
    from sweep.storage import Record

MIB = 1 << 20
SIZES = (64, 384)


def served(padding: float = 0.0, switch_ms: float = 0.1, graph: bool = False, **values: Any) -> Record:  # noqa: FBT001, FBT002
    """A record of a load of two shapes, whose figures follow from the way in which they are served."""
    variant = variants.from_config(
        config(
            model__name="bert_base",
            backend__name="tensorrt_rtx",
            backend__script=None,
            load__shapes={64: 3, 384: 1},
            cuda_graph=graph,
            **values,
        )
    )
    one, contexts = variant.engine.profiles is not None, 1
    if one and variant.engine.profiles.way == "per_shape" and not variant.session.profile_switch:  # type: ignore[union-attr]  # it is one
        contexts = 2
    buckets = [shape[0].size for shape in variant.load.engine_shapes]
    latency = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p999", "max"), 1.0)
    shapes = [
        {
            "shape": f"seq:{size}",
            "requests": 9,
            "share": 0.5,
            "padding": 0.0,
            "latency_ms": latency | {"p50": size / 100},
        }
        for size in buckets
    ]
    engines = [
        {
            "shape": f"seq:{size}",
            "engine": "one" if one else str(size),
            "build_s": 1.0,
            "bytes": 300 * MIB if one else 200 * MIB,
            "device_memory_bytes": None,
            "context_memory_bytes": size * MIB,
            "first_run_ms": size / 10,
        }
        for size in buckets
    ]
    change = {"stay_ms": 1.0, "change_ms": 1.0 + switch_ms, "gpu_stay_ms": 0.9, "gpu_change_ms": 0.9 + switch_ms / 2}
    graphs = {"graphs": {"count": 2, "nodes": 20, "memory_bytes": 3 * MIB, "pool_bytes": 0}} if graph else {}
    plain = record(1, [2000.0])
    return dataclasses.replace(
        plain,
        key=variant_key(variant),
        variant=flat(variant),
        peak={**(plain.peak or {}), "shapes": shapes, "padding": padding},
        engine={
            "key": engines[-1]["engine"],
            "device_memory_bytes": 500 * MIB,
            "context_memory_bytes": 400 * MIB,
            "memory": {"peak_bytes": 350 * MIB, "buffers_bytes": MIB},
            **({"profiles": 2} if contexts == 2 or values.get("profile_switch") else {}),
            **graphs,
        },
        realised={"contexts": contexts, "shapes": engines, "shape_changes": [{**change, "shape": "a", "after": "b"}]},
    )


def test_one_table_holds_every_way_of_one_load_and_padding_too() -> None:
    records = [
        served(),
        served(profiles="range", switch_ms=0.2),
        served(profiles="per_shape", graph=False),
        served(profiles="per_shape", profile_switch=True, switch_ms=0.5),
        served(load__buckets=[384], padding=0.5),
    ]
    (group,) = shape_ways.groups(records)
    title, (heads, *rows) = shape_ways.table_of(group)
    assert title == "Ways to serve the shapes 64, 384 of bert_base seq384 fp32 b1 s1:"
    cells = [dict(zip(heads, row, strict=True)) for row in rows]
    assert [cell["way"] for cell in cells] == [
        *("per_engine", "range", "per_shape", "per_shape, switched", "per_engine, padded to 384")
    ]
    assert [cell["engines"] for cell in cells] == ["2", "1", "1", "1", "1"]
    assert [cell["profiles"] for cell in cells] == ["2", "1", "2", "2", "1"]
    assert [cell["contexts"] for cell in cells] == ["2", "1", "2", "1", "1"]
    assert [cell["engines MiB"] for cell in cells] == ["400.0", "300.0", "300.0", "300.0", "200.0"]
    assert [cell["contexts MiB"] for cell in cells] == ["448.0", "400.0", "448.0", "400.0", "384.0"]
    assert [cell["p50 ms"] for cell in cells] == [*["0.64 / 3.84"] * 4, "3.84"]
    assert [cell["padding"] for cell in cells] == [*["0.0%"] * 4, "50.0%"]
    assert [cell["change ms"] for cell in cells] == ["+0.100", "+0.200", "+0.100", "+0.500", "+0.100"]
    assert [cell["change GPU ms"] for cell in cells] == ["+0.050", "+0.100", "+0.050", "+0.250", "+0.050"]
    assert "graphs" not in heads, "no graph was captured"
    lines = shape_ways.lines(records)
    assert lines[0] == title
    assert lines[2].startswith(
        "range: engines 1, profiles 1, contexts 1, engines MiB 300.0, allocated MiB 351.0, device MiB 500.0"
    )


def test_what_differs_in_more_than_the_way_is_no_group() -> None:
    assert shape_ways.groups([served(), served(profiles="range", batch=2)]) == []
    assert shape_ways.groups([served(), served(seed=1)]) == [], "the same way twice"
    assert shape_ways.groups([record(1, [2000.0])]) == []
    graphs = [served(graph=True), served(graph=True, profiles="range"), served(), served(profiles="range")]
    captured, eager = shape_ways.groups(graphs)
    assert [way.graphs for way in captured] == [2, 2]
    assert [way.graph_bytes for way in captured] == [3 * MIB] * 2
    assert [way.graphs for way in eager] == [None, None]


def test_ways_are_told_apart_in_mlflow() -> None:
    plain, covering, switched = (
        record_mapping.params(each)
        for each in (served(), served(profiles="range"), served(profiles="per_shape", profile_switch=True))
    )
    assert plain["profiles"] == "none"
    assert (covering["profiles.way"], switched["profiles.way"]) == ("range", "per_shape")
    assert (covering["profile_switch"], switched["profile_switch"]) == ("none", "true")

"""Which shape each request of a mix has, what it takes, and what padding and changes of shape cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sweep.analysis import shape_summary
from sweep.backends.simulated import SimulatedSession
from sweep.errors import LoadError
from sweep.loadgen import shape_mix, shape_switch
from sweep.loadgen.load_point import Place, closed_point, open_point
from sweep.spec import (
    Dimension,
    EngineAxes,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    Script,
    SessionAxes,
    ShapeMix,
    ShapeProfiles,
    ShapeShare,
    Variant,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVICE_US, SWITCH_US, RANGE_US, PROFILE_US = 384.0, 50.0, 7.0, 30.0
SHARES = {64: 0.5, 100: 0.25, 384: 0.25}
PLACE = Place(index=-1, repeat=0, batch=1)


def seq(size: int) -> tuple[Dimension, ...]:
    return (Dimension(name="seq", size=size),)


def load(seed: int = 0, buckets: tuple[int, ...] | None = (64, 128, 384), **mix: object) -> LoadAxes:
    entries = tuple(ShapeShare(shape=seq(size), share=share) for size, share in SHARES.items())
    return LoadAxes(
        kind="curve",
        depth=1,
        seed=seed,
        min_requests=2000,
        shapes=ShapeMix(entries=entries, **mix),  # type: ignore[arg-type]
        buckets=None if buckets is None else tuple(map(seq, buckets)),
    )


def session(
    axes: LoadAxes, streams: int = 1, profiles: ShapeProfiles | None = None, **changes: Any
) -> SimulatedSession:
    script = Script(service_us=SERVICE_US, sample_us=0.0, switch_us=SWITCH_US, range_us=RANGE_US, profile_us=PROFILE_US)
    model = OnnxAxes(model=ModelRef(name="bert_base", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    engine, held = EngineAxes(batch=1, profiles=profiles), SessionAxes(streams=streams, script=script, **changes)
    return SimulatedSession(script, Variant(backend="simulated", onnx=model, engine=engine, session=held, load=axes))


def test_a_closed_loop_draws_its_shares_and_is_the_same_each_time() -> None:
    points = [closed_point(session(load(seed), 2), load(seed), PLACE) for seed in (0, 0, 1)]
    first, again, other = (point.shape for point in points)
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:100], other[:100])
    assert np.bincount(first) / len(first) == pytest.approx(list(SHARES.values()), abs=0.03)
    alone = [first[points[0].stream == stream][:50] for stream in (0, 1)]
    assert not np.array_equal(*alone), "each stream has shapes of its own"


def test_the_figures_of_each_shape_and_the_cost_of_padding_are_those_of_the_script() -> None:
    axes = load()
    point = closed_point(session(axes), axes, PLACE)
    figures = shape_summary.shaped([point], axes)
    assert [item["shape"] for item in figures["shapes"]] == ["seq:64", "seq:128", "seq:384"]
    for item, size in zip(figures["shapes"], (64, 128, 384), strict=True):
        assert item["latency_ms"]["max"] == pytest.approx((size + SWITCH_US) / 1e3)
        assert item["padding"] == pytest.approx(1 - 100 / 128 if size == 128 else 0.0)
    counts = dict(zip(SHARES, np.bincount(point.shape[point.measured]), strict=True))  # type: ignore[index]
    useful = sum(size * count for size, count in counts.items())
    assert figures["padding"] == pytest.approx(1 - useful / (useful + 28 * counts[100]))
    assert sum(item["requests"] for item in figures["shapes"]) == np.count_nonzero(point.measured)
    exact = load(buckets=None)
    assert shape_summary.shaped([closed_point(session(exact), exact, PLACE)], exact)["padding"] == 0
    assert shape_summary.shaped([point], LoadAxes()) == {}


def test_the_shape_of_an_arrival_does_not_depend_on_the_stream_that_serves_it() -> None:
    axes, place = load(), Place(index=3, repeat=1, batch=1)
    one, two = (open_point(session(axes, streams), axes, 1000.0, place) for streams in (1, 2))
    assert one.shape is not None
    assert two.shape is not None
    assert np.array_equal(one.shape, two.shape)
    assert set(two.stream) == {0, 1}


@pytest.mark.parametrize("streams", [1, 2])
def test_a_file_is_replayed_row_by_row(streams: int, tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("seq\n384\n64\n64\n100\n384\n")
    recorded = shape_mix.read(str(file))
    assert (recorded.names, recorded.shapes, recorded.order) == (("seq",), ((64,), (100,), (384,)), (2, 0, 0, 1, 2))
    axes = load(path=str(file), digest=recorded.digest)
    open_shapes = open_point(session(axes, streams), axes, 1000.0, PLACE).shape
    assert open_shapes is not None
    assert open_shapes[:7].tolist() == [2, 0, 0, 1, 2, 2, 0]
    closed = closed_point(session(axes, streams), axes, PLACE)
    assert closed.shape is not None
    expected = [2, 0, 0, 1, 2] * streams
    for stream in range(streams):
        own = closed.shape[(closed.stream == stream) & ~closed.warmup]
        assert own[:5].tolist() == expected[stream::streams]
    with pytest.raises(LoadError, match="changed since the sweep was planned"):
        closed_point(session(axes), load(path=str(file), digest="0" * 64), PLACE)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "begins with no header"),
        ("64\n128\n", "begins with no header"),
        ("seq\n", "begins with no header"),
        ("h,w\n64\n", "line 2: '64' is not 2 sizes above 0"),
        ("seq\n64\n0\n", "line 3: '0' is not 1 sizes above 0"),
        ("seq\n64\n\nx\n", "line 4: 'x' is not"),
    ],
)
def test_a_file_that_holds_no_sizes_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text(text)
    with pytest.raises(LoadError, match=line) as caught:
        shape_mix.read(str(tmp_path / "sizes.csv"))
    assert "\n" not in str(caught.value)


def test_a_change_of_shape_is_found_to_cost_what_the_script_says() -> None:
    axes = load()
    rows = shape_switch.measure(session(axes), 3)
    assert {(row["engine"], row["after"]) for row in rows} == {(a, b) for a in range(3) for b in range(3) if a != b}
    for row in rows:
        assert row["change_ms"] - row["stay_ms"] == pytest.approx(SWITCH_US / 1e3)
        assert row["stay_ms"] == pytest.approx((64, 128, 384)[row["engine"]] / 1e3)
    assert {row["after"] - row["engine"] for row in shape_switch.measure(session(axes, 1), 2)} == {1, -1}


@pytest.mark.parametrize(
    ("way", "switches", "stay_us", "switch_us"),
    [
        (None, None, 0.0, SWITCH_US),
        ("range", None, RANGE_US, SWITCH_US),
        ("per_shape", None, 0.0, SWITCH_US),
        ("per_shape", True, 0.0, SWITCH_US + PROFILE_US),
    ],
)
def test_each_way_to_serve_the_shapes_costs_what_the_script_says(
    way: str | None, switches: Any, stay_us: float, switch_us: float
) -> None:
    axes = load()
    profiles = None if way is None else ShapeProfiles(way=way, shapes=axes.engine_shapes)
    served = session(axes, 1, profiles, profile_switch=switches)
    for row in shape_switch.measure(served, 3):
        assert row["stay_ms"] == pytest.approx(((64, 128, 384)[row["engine"]] + stay_us) / 1e3)
        assert row["change_ms"] - row["stay_ms"] == pytest.approx(switch_us / 1e3)
        assert "gpu_stay_ms" not in row, "no device timed a part"

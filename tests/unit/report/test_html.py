"""The figures of the HTML page."""

import math

import pytest
from records import latency_ms, point

from sweep.report import html
from sweep.spec.slo import Slo
from sweep.storage.record import Record

P99_MS = (2.0, 8.0)


def record(p99s=P99_MS):
    points = [point(100.0 * n, latency_ms(p50=1.0, p99=p99)) for n, p99 in enumerate(p99s, 1)]
    variant = {"label": "m fp32 b1", "model": "m", "precision": "fp32", "batch": 1}
    return Record(
        key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant=variant, points=points
    )


def layout_of(limit_ms, records=None, percentile="p99"):
    return html.figure([record()] if records is None else records, percentile, Slo("p99", limit_ms)).layout


def test_a_limit_among_the_data_is_a_line_at_its_value() -> None:
    layout = layout_of(5.0)
    assert [shape.y0 for shape in layout.shapes] == [5.0]
    (note,) = layout.annotations
    assert (note.text, note.yref) == ("SLO 5 ms", None)
    assert note.y == pytest.approx(math.log10(5.0))


@pytest.mark.parametrize(
    ("limit_ms", "text", "edge", "anchor"),
    [
        (500.0, "↑ SLO 500 ms (above this axis)", 1, "bottom"),
        (0.01, "↓ SLO 0.01 ms (below this axis)", 0, "bottom"),
    ],
)
def test_a_limit_off_the_data_is_a_note_at_the_edge_and_stretches_no_axis(limit_ms, text, edge, anchor) -> None:
    layout = layout_of(limit_ms)
    assert layout.yaxis.range == layout_of(5.0).yaxis.range
    low, high = (10**exponent for exponent in layout.yaxis.range)
    assert 1 < low < P99_MS[0]
    assert P99_MS[1] < high < 16
    assert not layout.shapes
    (note,) = layout.annotations
    assert (note.text, note.yref, note.y, note.yanchor) == (text, "paper", edge, anchor)


def test_a_limit_without_data_is_a_line() -> None:
    layout = layout_of(5.0, [])
    assert layout.yaxis.range is None
    assert [shape.y0 for shape in layout.shapes] == [5.0]


def test_a_limit_of_another_percentile_is_not_marked() -> None:
    layout = layout_of(5.0, percentile="p50")
    assert not layout.shapes
    assert not layout.annotations

"""Give the charts of the page their data: every variant with its axes, figures and points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from sweep.report.columns import peak_ips, slo_of
from sweep.spec import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.report.columns import Column
    from sweep.report.outcome_lines import Footnotes
    from sweep.report.recommendation import Answer
    from sweep.spec import Axis
    from sweep.storage import Point, Record

_BOUNDED: tuple[Literal["p50", "p99"], ...] = ("p50", "p99")  # percentiles that have intervals
_SHARES = {"top1", "compute_peak_share"}  # figures that are written in percent
_DIGITS = 6  # significant, of what a chart draws


def of(
    records: Sequence[Record],
    recommendation: Answer,
    footnotes: Footnotes,
    axes: Sequence[Axis],
    columns: Sequence[Column],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return the data of the charts, as JSON has it.

    Args:
        records: records of the page, in the order of the table's rows.
        recommendation: answer, for the marks.
        footnotes: give the cells of the axes.
        axes: axes that have a column.
        columns: columns of the table; those with a direction are drawn.
        labels: labels of the variants by key.

    Returns:
        ``percentiles`` that some point has, ``slos``, ``axes``, ``figures`` ({name, title, better, percent}) and
        ``variants``, one a row: {label, sweep, model, ok, mark, axes, figures, peak, points}.
    """
    drawn = [column for column in columns if column.better is not None]
    drawn = [column for column in drawn if any(column.value(record) is not None for record in records)]
    carried = [
        name
        for name in PERCENTILES
        if any(point["latency_ms"][name] is not None for record in records for point in record.points)
    ]
    slos = {slo for record in records if (slo := slo_of(record)) is not None}
    several = len({record.sweep for record in records}) > 1
    return {
        "percentiles": carried,
        "slos": [
            {"percentile": slo.percentile, "limit_ms": slo.limit_ms}
            for slo in sorted(slos, key=lambda slo: (slo.percentile, slo.limit_ms))
        ],
        "axes": [*(["sweep"] if several else []), *(str(axis.column) for axis in axes)],
        "figures": [
            {
                "name": column.name,
                "title": column.title,
                "better": column.better,
                "percent": column.name in _SHARES,
            }
            for column in drawn
        ],
        "variants": [
            {
                "label": labels[record.key],
                "sweep": record.sweep,
                "model": str(record.variant.get("model")),
                "ok": record.status == "ok",
                "mark": recommendation.mark(record),
                "axes": [
                    *([record.sweep] if several else []),
                    *(footnotes.cell(record, axis) for axis in axes),
                ],
                "figures": [_short(column.value(record)) for column in drawn],
                "peak": _short(peak_ips(record)),
                "points": [_point(point) for point in record.points if is_drawn(point)],
            }
            for record in records
        ],
    }


def is_drawn(point: Point) -> bool:
    """Tell whether a point belongs on a curve: a generator that was late says nothing of the server."""
    return point["verdict"] != "invalid" and point["achieved_ips"] is not None


def _point(point: Point) -> dict[str, Any]:
    made: dict[str, Any] = {
        "x": _short(point["achieved_ips"]),
        "offered": _short(point["offered_ips"]),
        "requests": point["requests"],
        "verdict": str(point["verdict"]),
        **{name: _short(point["latency_ms"][name]) for name in PERCENTILES},
        "bars": {name: [_short(end) for end in ends] for name in _BOUNDED if (ends := point["interval"][name])},
    }
    clients = point.get("clients")
    if clients:
        made["clients"] = [
            {"x": _short(item["achieved_ips"]), "p50": _short(item["p50_ms"]), "p99": _short(item["p99_ms"])}
            for item in clients
        ]
    return made


def _short(value: float | str | None) -> float | None:
    """Return a number with the digits that a chart needs; None for what is no finite number."""
    if not isinstance(value, float | int) or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")

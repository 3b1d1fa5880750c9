"""Draw a sweep as one self-contained page: latency at throughput, one curve per variant. It opens offline."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any, Literal

from sweep.analysis import drifted, joules, score, sqnr_text
from sweep.report.comparison import builds_line, compared, same_engine_note, same_engines, speedups
from sweep.report.ranking import answer
from sweep.report.table import cost_line, format_number, format_speedup, peak_text, score_lines, status_text
from sweep.system import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.report.recommendation import Answer
    from sweep.spec import Slo
    from sweep.storage import ClientFigures, Point, Record

    CurvePercentile = Literal["p50", "p99"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d", "#8c564b")  # Okabe-Ito
_LIMIT = "#b00"  # colour of the SLO's limit
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {
    "ok": "circle",
    "unstable": "circle-open",
    "short": "diamond-open",
    "overloaded": "triangle-up-open",
}
_AXIS_MARGIN = 1.25  # factor by which the y axis exceeds the data
_MAX_SIDE_NAME = 32  # characters of the longest name for which the legend stands beside the curves
_CHARACTER_PX = 7.5
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }}
 .answer {{ background: #eef4fb; border-left: 4px solid #0072b2; padding: .7rem 1rem; }}
 table {{ border-collapse: collapse; margin: 1rem 0; }} td, th {{ padding: .25rem .8rem; text-align: right; }}
 th {{ border-bottom: 1px solid #999; }}
 td:first-child, th:first-child, td:last-child, th:last-child {{ text-align: left; }}
 td:first-child {{ white-space: nowrap; }}
 .note {{ color: #555; }}
</style></head><body>
<h1>{title}</h1>
<p class="answer">{answer}{settings}</p>
{figures}
{table}
<p class="note">Latency runs from the scheduled arrival to the completion that the host saw. Filled points count in
full; circles are unstable, diamonds ended short of the requested count, triangles are overloaded: past the knee, where
the latency grows for as long as the load lasts. Points that the load generator delayed are left out. Bars are 95%
intervals; a point without one has too few requests that count as independent.</p>
<p class="note">{facts}</p>
</body></html>
"""


def write(
    path: Path, title: str, records: Sequence[Record], slo: Slo | None, recommendation: Answer | None = None
) -> Path:
    """Write the page to `path`, atomically, and return `path`.

    Args:
        path: file to write.
        title: name of the sweep.
        records: records of the sweep.
        slo: latency objective; None without one.
        recommendation: answer of the sweep; None computes it from the records.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    recommendation = recommendation or answer(records, slo)
    figures = [figure(records, "p99", slo), figure(records, "p50", slo)]
    charts = [
        item.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"curve{number}")
        for number, item in enumerate(figures)
    ]
    text = _PAGE.format(
        title=html.escape(f"sweep: {title}"),
        answer=html.escape(recommendation.text).replace("\n", "<br>"),
        settings="".join(f"<br><code>{html.escape(line)}</code>" for line in recommendation.settings.splitlines()),
        figures="\n".join(charts),
        table=_table(records, recommendation),
        facts=html.escape(_facts(records)),
    )
    write_atomic(path, text.encode(errors="backslashreplace"))
    return path


def figure(records: Sequence[Record], percentile: CurvePercentile, slo: Slo | None) -> Any:
    """Draw a latency percentile over the achieved throughput, one line per variant.

    Args:
        records: records of the sweep; those without points are left out.
        percentile: percentile of the latency.
        slo: latency objective; its limit is marked if it is about this percentile. None without one.

    Returns:
        A plotly figure, whose y axis is logarithmic and covers the data.
    """
    import plotly.graph_objects as go

    chart, labels = go.Figure(), compared(records).labels
    for number, record in enumerate(record for record in records if record.points):
        label = labels[record.key]
        chart.add_trace(_curve(go, record, percentile, number, label))
        for client in range(_clients(record)):
            chart.add_trace(_client_curve(go, record, percentile, number, f"{label}, client {client + 1}", client))
    axis = _log_range(chart.data)
    if slo and slo.percentile == percentile:
        _mark_limit(chart, slo.limit_ms, axis)
    chart.update_layout(
        yaxis_range=axis,
        legend=_legend([trace.name for trace in chart.data]),
        title=f"{percentile} latency at throughput",
        xaxis_title="achieved samples/s",
        yaxis_title=f"{percentile} latency, ms (log)",
        yaxis_type="log",
        xaxis_rangemode="tozero",
        template="plotly_white",
        height=480,
        hovermode="closest",
    )
    return chart


def _log_range(traces: Sequence[Any]) -> list[float] | None:
    """Return the exponents of the y axis around every latency and its interval; None leaves the axis to plotly."""
    values: list[float] = []
    for trace in traces:
        bars = trace.error_y
        for n, value in enumerate(trace.y):
            if value is not None:
                values += [value - (bars.arrayminus[n] if bars.arrayminus else 0), value]
                values.append(value + (bars.array[n] if bars.array else 0))
    positive = [value for value in values if value > 0]
    return [math.log10(min(positive) / _AXIS_MARGIN), math.log10(max(positive) * _AXIS_MARGIN)] if positive else None


def _mark_limit(chart: Any, limit_ms: float, axis: Sequence[float] | None) -> None:
    """Mark the limit of the SLO by a line, or by a note at the edge if the limit lies outside the y axis.

    Args:
        chart: plotly figure to mark.
        limit_ms: limit of the SLO, ms.
        axis: exponents of the ends of the y axis, [low, high]; None without data.
    """
    exponent, name = math.log10(limit_ms), f"SLO {limit_ms:g} ms"
    note: dict[str, Any] = {"x": 1, "xref": "paper", "xanchor": "right", "showarrow": False, "font_color": _LIMIT}
    if axis is None or axis[0] <= exponent <= axis[1]:
        chart.add_hline(y=limit_ms, line_dash="dot", line_color=_LIMIT)
        # On a log axis an annotation stands at the logarithm, and a shape at the value.
        chart.add_annotation(y=exponent, yanchor="bottom", text=name, **note)
    elif exponent > axis[1]:
        chart.add_annotation(y=1, yref="paper", yanchor="bottom", text=f"\u2191 {name} (above this axis)", **note)
    else:
        chart.add_annotation(y=0, yref="paper", yanchor="bottom", text=f"\u2193 {name} (below this axis)", **note)


def _legend(names: Sequence[str]) -> dict[str, Any]:
    """Return the layout of the legend: beside the curves, or below them if long names would leave no room."""
    longest = max(map(len, names), default=0)
    if longest <= _MAX_SIDE_NAME:
        return {}
    return {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "entrywidth": _CHARACTER_PX * longest}


def curve(record: Record, percentile: CurvePercentile) -> list[Point]:
    """Return the points of a record that belong on a curve: not invalid, with enough requests for the percentile."""
    return [
        point
        for point in record.points
        if point["verdict"] != "invalid"
        and point["latency_ms"][percentile] is not None
        and point["achieved_ips"] is not None
    ]


def _curve(go: Any, record: Record, percentile: CurvePercentile, number: int, label: str) -> Any:
    points = curve(record, percentile)
    values = [point["latency_ms"][percentile] or 0.0 for point in points]
    bars = [point["interval"][percentile] or [value] * 2 for point, value in zip(points, values, strict=True)]
    colour = _COLOURS[number % len(_COLOURS)]
    return go.Scatter(
        x=[point["achieved_ips"] for point in points],
        y=values,
        name=html.escape(label),  # plotly takes some HTML in a name
        mode="lines+markers",
        line={"color": colour, "dash": _DASHES[number // len(_COLOURS) % len(_DASHES)]},
        marker={"symbol": [_SYMBOLS[point["verdict"]] for point in points], "size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - value for (_, high), value in zip(bars, values, strict=True)],
            "arrayminus": [value - low for (low, _), value in zip(bars, values, strict=True)],
            "thickness": 1,
        },
        customdata=[[point["offered_ips"], point["requests"], point["verdict"]] for point in points],
        hovertemplate="%{y:.4g} ms at %{x:,.0f} samples/s<br>offered %{customdata[0]:,.0f}, "
        "%{customdata[1]:,} requests, %{customdata[2]}<extra>%{fullData.name}</extra>",
    )


def _clients(record: Record) -> int:
    return len(record.points[0].get("clients") or ())


def _clients_of(record: Record, percentile: CurvePercentile) -> list[list[ClientFigures]]:
    return [point.get("clients", []) for point in curve(record, percentile)]


def _client_curve(go: Any, record: Record, percentile: CurvePercentile, number: int, name: str, client: int) -> Any:
    """Draw one client's own latency at its own throughput; hidden until its name in the legend is clicked."""
    figures = [clients[client] for clients in _clients_of(record, percentile) if client < len(clients)]
    return go.Scatter(
        x=[item["achieved_ips"] for item in figures],
        y=[item.get(f"{percentile}_ms") for item in figures],
        name=html.escape(name),
        mode="lines+markers",
        visible="legendonly",
        line={"color": _COLOURS[number % len(_COLOURS)], "dash": "dot", "width": 1},
        marker={"symbol": "x-thin-open", "size": 6},
        hovertemplate="%{y:.4g} ms at %{x:,.0f} samples/s of its own<extra>%{fullData.name}</extra>",
    )


def _table(records: Sequence[Record], recommendation: Answer | None = None) -> str:
    with_energy = any(joules(record) is not None for record in records)
    with_score = any(score(record) is not None for record in records)
    comparison, same, ratios = compared(records), same_engines(records), speedups(records)
    columns = ["variant", *(axis.column for axis in comparison.axes), "status", "peak samples/s"]
    columns += [*(["peak over fp32"] if ratios else []), "of the best (95%)", "SQNR dB"]
    columns += [*(["top-1"] if with_score else []), *(["mJ per sample"] if with_energy else []), "why"]
    rows = ["".join(f"<th>{html.escape(column)}</th>" for column in columns)]
    ranked = recommendation or answer(records, None)
    for record in records:
        top1, energy = score(record), joules(record)
        cells = [comparison.labels[record.key], *(comparison.cell(record.key, axis) for axis in comparison.axes)]
        cells += [status_text(record), peak_text(record)]
        cells += [format_speedup(ratios.get(record.key))] if ratios else []
        cells += [ranked.ratio_text(record), sqnr_text(record)]
        cells += [format_number(top1, "{:.2%}")] if with_score else []
        cells += [format_number(None if energy is None else energy * 1e3, "{:.3g}")] if with_energy else []
        cells.append(_remarks(record, same.get(record.key)))
        rows.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _remarks(record: Record, same: str | None) -> str:
    """Return the error of a variant, else its notes: whose engine it has, and a drift of the machine, included."""
    if record.error:
        return record.error["message"]
    notes = [*((record.realised or {}).get("notes") or []), *([same_engine_note(same)] if same else [])]
    built = builds_line(record)
    notes += [built] if built else []
    if record.drift and drifted(record):
        notes.append(f"the machine drifted: {record.drift['reason']}")
    return "; ".join(notes)


def _facts(records: Sequence[Record]) -> str:
    if not records:
        return ""
    facts = {name: value for name, value in records[0].facts.items() if value is not None}
    costs = dict.fromkeys(line for record in records if (line := cost_line(record)))
    return ". ".join([*costs, *score_lines(records), ", ".join(f"{name} {value}" for name, value in facts.items())])

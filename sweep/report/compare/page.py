"""Draw a comparison as one self-contained HTML page: the ratios, the curves over each other, and the table."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from sweep.report.compare.figures import FIGURES, PEAK, known
from sweep.report.compare.rows import Outcome
from sweep.report.compare.terminal import RATE_HEADS, rate_cells, ratio_text
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import Row, RunComparison
    from sweep.storage import Record

_COLOURS = {Outcome.SLOWER: "#d55e00", Outcome.FASTER: "#009e73"}  # Okabe-Ito, apart for the colour-blind
_NEUTRAL = "#4d4d4d"
_OLD, _NEW = "#56b4e9", "#0072b2"
_ROW_PX, _FRAME_PX, _CHART_PX = 22, 120, 480
_MOST_ROWS = 60  # of the chart of ratios; the table has all
_CONFIG = {"displayModeBar": False, "responsive": True}
_MOST_LINES = 10  # of a list, before the rest of it is folded
_ALL = 1_000_000
_MOST_SHARE = 4.0  # ratio at which an interval without a bound is cut
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }}
 .answer {{ background: #eef4fb; border-left: 4px solid #0072b2; padding: .7rem 1rem; }}
 .failed {{ background: #fdf0e8; border-left: 4px solid #d55e00; padding: .7rem 1rem; }}
 .wide {{ overflow-x: auto; }}
 table {{ border-collapse: collapse; margin: 1rem 0; }}
 td, th {{ padding: .25rem .6rem; text-align: right; white-space: nowrap; }}
 th {{ border-bottom: 1px solid #999; white-space: normal; vertical-align: bottom; }}
 td:first-child, th:first-child {{ text-align: left; position: sticky; left: 0; background: #fff; }}
 td:nth-child(2), th:nth-child(2) {{ text-align: left; }}
 h3 {{ font-size: 1rem; font-weight: 600; margin: 1.2rem 0 0; }}
 ul {{ margin: .3rem 0; padding-left: 1.2rem; }}
 @media (max-width: 600px) {{
  body {{ margin: 1rem auto; padding: 0 .6rem; font-size: 14px; }}
  h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1.1rem; }}
  table {{ font-size: 12px; }} td, th {{ padding: .2rem .3rem; }}
 }}
 @media print {{ .wide {{ overflow: visible; }} table {{ font-size: 9px; }} tr {{ break-inside: avoid; }} }}
 .slower {{ color: #a84300; font-weight: 600; }} .faster {{ color: #00654a; font-weight: 600; }}
 .note {{ color: #555; }}
</style>
<noscript><style>.charts {{ display: none; }}</style></noscript>
</head><body>
<h1>{title}</h1>
<p class="answer">{summary}</p>
{failures}
<h2>What differs</h2>
{facts}
<h2>NEW over OLD</h2>
<div class="charts">{charts}</div>
<noscript><p class="note">The charts need JavaScript; the tables below have their figures.</p></noscript>
<h2>Every variant</h2>
<div class="wide">{table}</div>
{rates}
{reasons}
<p class="note">{evidence}</p>
</body></html>
"""


def as_page(comparison: RunComparison, failed: Sequence[Failure] = ()) -> bytes:
    """Return the page, which opens without a network.

    Args:
        comparison: the comparison.
        failed: rows that fail a gate.
    """
    charts = [chart for chart in (_ratios(comparison.rows), _curves(comparison.rows)) if chart is not None]
    drawn = [
        f"<h3>{html.escape(title)}</h3>\n"
        + chart.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"chart{number}", config=_CONFIG)
        for number, (title, chart) in enumerate(charts)
    ]
    lines = [f"{failure.kind}: {failure.row.label}: {failure.message}" for failure in failed]
    facts = [str(fact) for fact in comparison.facts] or ["no fact of machine, libraries or clocks"]
    reasons = [f"{row.label}: {row.reason}" for row in comparison.rows if row.reason is not None]
    text = _PAGE.format(
        title=html.escape(f"{comparison.old} (OLD) against {comparison.new} (NEW)"),
        summary=html.escape(comparison.summary),
        failures=f'<div class="failed">{_list(lines)}</div>' if lines else "",
        facts=_list([*facts, *comparison.notes]),
        charts="\n".join(drawn) or "<p>No variant could be compared.</p>",
        table=_table(comparison.rows),
        rates=_rates(comparison),
        reasons=_list(reasons) if reasons else "",
        evidence=html.escape(comparison.evidence),
    )
    return text.encode()


def _list(lines: Sequence[str]) -> str:
    """Return a list, of which what is beyond the first lines is folded."""
    items = [f"<li>{html.escape(line)}</li>" for line in lines]
    if len(items) <= _MOST_LINES + 1:
        return f"<ul>{''.join(items)}</ul>"
    shown, folded = items[:_MOST_LINES], items[_MOST_LINES:]
    more = f"<details><summary>and {len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
    return f"<ul>{''.join(shown)}</ul>{more}"


def _table(rows: Sequence[Row]) -> str:
    figures = [figure for figure in FIGURES if known(figure, tuple(rows))]
    heads = ["variant", "verdict", "NEW / OLD (95%)", "samples/s", *(figure.head for figure in figures)]
    body = []
    for row in rows:
        cells = [row.label, str(row.outcome), ratio_text(row), PEAK.text(row), *(f.cell(row) for f in figures)]
        mark = f' class="{row.outcome}"' if row.outcome in _COLOURS else ""
        body.append(f"<tr{mark}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _rates(comparison: RunComparison) -> str:
    """Return the table of the figures at equal rates; empty where there is none."""
    shown, _ = comparison.rates(_ALL)
    if not shown:
        return ""
    body = "".join(
        f"<tr{_mark(change.slower, change.faster)}>"
        f"{''.join(f'<td>{html.escape(cell)}</td>' for cell in rate_cells(row, change))}</tr>"
        for row, change in shown
    )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in RATE_HEADS)
    table = f'<table class="rates"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h2>At the rates that both were offered</h2>\n<div class="wide">{table}</div>'


def _mark(is_slower: bool, is_faster: bool) -> str:  # noqa: FBT001 - two flags of one change
    return ' class="slower"' if is_slower else ' class="faster"' if is_faster else ""


def _ratios(rows: Sequence[Row]) -> tuple[str, Any] | None:
    """Draw the ratio of each compared row with its interval, the slowest on top; None where none was compared.

    Returns:
        Title and chart.
    """
    import plotly.graph_objects as go

    measured = sorted(
        ((row, row.change) for row in rows if row.change is not None), key=lambda item: item[1].ratio, reverse=True
    )
    if not measured:
        return None
    shown = measured[-_MOST_ROWS:]
    chart = go.Figure()
    for outcome in (Outcome.SAME, Outcome.FASTER, Outcome.SLOWER):
        part = [(row, change) for row, change in shown if row.outcome is outcome]
        if not part:
            continue
        chart.add_trace(
            go.Scatter(
                x=[change.ratio for _, change in part],
                y=[row.label for row, _ in part],
                error_x={
                    "type": "data",
                    "array": [min(change.high, _MOST_SHARE) - change.ratio for _, change in part],
                    "arrayminus": [change.ratio - change.low for _, change in part],
                },
                mode="markers",
                name=str(outcome),
                marker={"size": 9, "color": _COLOURS.get(outcome, _NEUTRAL)},
                hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            )
        )
    chart.add_vline(x=1, line={"color": "#999", "dash": "dot"})
    which = "the slowest" if len(shown) < len(measured) else "all"
    chart.update_layout(
        xaxis_title="NEW / OLD (left of 1: slower)",
        yaxis={"categoryorder": "array", "categoryarray": [row.label for row, _ in shown], "automargin": True},
        template="plotly_white",
        height=_FRAME_PX + _ROW_PX * len(shown),
        margin={"t": 60, "l": 10, "r": 10, "b": 50},
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 1, "yref": "container", "yanchor": "top"},
    )
    return f"Ratio of the peaks with its 95% interval for all rows together ({which} {len(shown)})", chart


def _curves(rows: Sequence[Row]) -> tuple[str, Any] | None:
    """Draw the p99 over the throughput of both sides, a variant at a time; None where none has two curves.

    Returns:
        Title and chart.
    """
    import plotly.graph_objects as go

    both = [
        (row.label, row.old, row.new)
        for row in rows
        if row.old is not None and row.new is not None and _points(row.old) and _points(row.new)
    ]
    if not both:
        return None
    chart = go.Figure()
    for number, (_, old, new) in enumerate(both):
        for record, name, colour, dash in ((old, "OLD", _OLD, "dash"), (new, "NEW", _NEW, "solid")):
            chart.add_trace(_curve(go, record, name, colour, dash, visible=number == 0))
    buttons = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [index // 2 == number for index in range(2 * len(both))]}],
        }
        for number, (label, _, _) in enumerate(both)
    ]
    chart.update_layout(
        xaxis_title="achieved samples/s",
        yaxis_title="p99 latency, ms (log)",
        yaxis_type="log",
        xaxis_rangemode="tozero",
        template="plotly_white",
        height=_CHART_PX,
        margin={"t": 80, "l": 60, "r": 10, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.1, "yanchor": "bottom", "showactive": True}
    if len(both) > 1:
        chart.update_layout(updatemenus=[menu])
        return "p99 latency at throughput", chart
    return f"p99 latency at throughput: {both[0][0]}", chart


def _curve(go: Any, record: Record, name: str, colour: str, dash: str, *, visible: bool) -> Any:
    points = _points(record)
    tails = [(point["latency_ms"]["p99"] or math.nan) for point in points]
    bars = [point["interval"]["p99"] or [tail, tail] for point, tail in zip(points, tails, strict=True)]
    return go.Scatter(
        x=[point["achieved_ips"] for point in points],
        y=tails,
        error_y={
            "type": "data",
            "array": [bar[1] - tail for bar, tail in zip(bars, tails, strict=True)],
            "arrayminus": [tail - bar[0] for bar, tail in zip(bars, tails, strict=True)],
            "thickness": 1,
        },
        mode="lines+markers",
        name=name,
        line={"color": colour, "dash": dash},
        marker={"symbol": ["circle" if point["verdict"] == Verdict.OK else "circle-open" for point in points]},
        visible=visible,
        hovertemplate="%{x:,.0f} samples/s: %{y:.3g} ms<extra>" + name + "</extra>",
    )


def _points(record: Record) -> list[Any]:
    """Return the points of a curve that can be drawn."""
    return [
        point
        for point in record.points
        if point["verdict"] != Verdict.INVALID and point["achieved_ips"] and point["latency_ms"]["p99"]
    ]

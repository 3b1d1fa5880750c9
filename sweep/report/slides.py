"""Draw the outcome for slides: PNG and PDF, with matplotlib, which needs no browser and no display."""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING, Any

from sweep.report.columns import capacity_ips, figures, peak_ips, peak_text, slo_of, tail_of
from sweep.report.comparison import compared
from sweep.system import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweep.report.columns import Column
    from sweep.report.recommendation import Answer
    from sweep.spec import PercentileName
    from sweep.storage import Point, Record

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d", "#8c564b")  # Okabe-Ito
_DASHES = ("-", "--", ":", "-.")
_FILLED = {"ok": ("o", True), "unstable": ("o", False), "short": ("D", False), "overloaded": ("^", False)}
_LIMIT = "#b00020"  # colour of the SLO's limit
_SIZE_INCHES = (12.8, 7.2)  # 16:9, 1920 x 1080 pixels
_DPI = 150
_CURVES = 12  # that one picture tells apart
_BARS = 20
_TITLE_WIDTH = 100  # characters of a line
_BESIDE = 40  # characters of a label that has room beside the curves
_LONGEST = 90  # characters of a label


def write_png(path: Path, title: str, records: Sequence[Record], percentile: PercentileName | None = None) -> None:
    """Write one picture of 1920 x 1080 pixels: the curves, or the peaks of a sweep without curves.

    Args:
        path: file to write.
        title: its title.
        records: records of the sweeps.
        percentile: percentile of the latency; None takes the SLO's, or the highest that the records carry.

    Raises:
        OSError: the file could not be written.
    """
    figure = _curves(title, records, percentile or _preferred(records)) or _peaks(title, records)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_atomic(path, content.getvalue())


def write_pdf(
    path: Path, title: str, records: Sequence[Record], recommendation: Answer, percentile: PercentileName | None = None
) -> None:
    """Write one page a picture: the curves at `percentile` and at p50, the peaks, and throughput against accuracy.

    Args:
        path: file to write.
        title: title of each page.
        records: records of the sweeps.
        recommendation: answer of the sweeps.
        percentile: as for `write_png`.

    Raises:
        OSError: the file could not be written.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    first = percentile or _preferred(records)
    names: list[PercentileName] = [first, *(["p50"] if first != "p50" else [])]  # type: ignore[list-item]  # literals
    pages = [*(_curves(title, records, name) for name in names), _peaks(title, records)]
    pages.append(_trade_off(title, records, figures(records, recommendation, None)))
    content = io.BytesIO()
    with PdfPages(content) as pdf:
        for page in pages:
            if page is not None:
                pdf.savefig(page)
    write_atomic(path, content.getvalue())


def _preferred(records: Sequence[Record]) -> PercentileName:
    slo = next((slo for record in records if (slo := slo_of(record)) is not None), None)
    return tail_of(records) if slo is None else slo.percentile


def _axes(title: str) -> tuple[Any, Any]:
    """Return a new figure and its axes; no global state of matplotlib is touched, and no window opened."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title("\n".join(textwrap.wrap(_plain(title), _TITLE_WIDTH)), fontsize=16, loc="left")
    axes.grid(visible=True, color="#ddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(text: str) -> str:
    """Return a text of a record as matplotlib prints it: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def _short(records: Sequence[Record], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of records without the words that all of them have, such as the settings of their sweep."""
    words = {record.key: labels[record.key].split() for record in records}
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    short = {key: " ".join(word for word in own if word not in common) for key, own in words.items()}
    return {
        key: text if len(text := own or labels[key]) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        for key, own in short.items()
    }


def _common(records: Sequence[Record], labels: Mapping[str, str]) -> str:
    """Return the words of a title that `_short` leaves out of the labels, without settings: ``, resnet50 fp16``."""
    words = [labels[record.key].split() for record in records]
    common = [word for word in words[0] if all(word in own for own in words)] if len(words) > 1 else []
    text = " ".join(word for word in common if "=" not in word)
    return f", {text}" if text else ""


def _best(records: Sequence[Record], most: int) -> list[Record]:
    """Return the records with the highest capacities, or peaks, in the order of the table."""
    best = sorted(records, key=lambda record: (-(capacity_ips(record) or 0.0), -(peak_ips(record) or 0.0)))[:most]
    return [record for record in records if any(record is item for item in best)]


def _curves(title: str, records: Sequence[Record], percentile: PercentileName) -> Any | None:
    """Draw latency over throughput; None where no record has a point with this percentile."""
    points = {record.key: _drawn(record, percentile) for record in records}
    from matplotlib.ticker import LogLocator

    with_points = [record for record in records if points[record.key]]
    if not with_points:
        return None
    shown = _best(with_points, _CURVES)
    labels = _short(shown, compared(records).labels)
    note = _common(shown, compared(records).labels)
    note += "" if len(shown) == len(with_points) else f", the best {len(shown)} of {len(with_points)} variants"
    figure, axes = _axes(f"{title}: {percentile} latency at throughput{note}")
    for number, record in enumerate(shown):
        _curve(axes, points[record.key], percentile, number, labels[record.key])
    for slo in {slo for record in records if (slo := slo_of(record)) is not None and slo.percentile == percentile}:
        axes.axhline(slo.limit_ms, color=_LIMIT, linestyle=":", label=f"SLO {slo.limit_ms:g} ms")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("achieved samples/s", fontsize=13)
    axes.set_ylabel(f"{percentile} latency, ms", fontsize=13)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    is_wide = max(map(len, labels.values())) > _BESIDE
    figure.legend(fontsize=11, loc="outside lower center" if is_wide else "outside right upper", frameon=False)
    return figure


def _drawn(record: Record, percentile: PercentileName) -> list[Point]:
    return [
        point
        for point in record.points
        if point["verdict"] != "invalid"
        and point["achieved_ips"] is not None
        and point["latency_ms"][percentile] is not None
    ]


def _curve(axes: Any, points: Sequence[Point], percentile: PercentileName, number: int, label: str) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    x = [point["achieved_ips"] for point in points]
    y = [point["latency_ms"][percentile] or math.nan for point in points]
    axes.plot(x, y, _DASHES[number // len(_COLOURS) % len(_DASHES)], color=colour, label=_plain(label), linewidth=2)
    for point, at, value in zip(points, x, y, strict=True):
        marker, is_filled = _FILLED[str(point["verdict"])]
        axes.plot([at], [value], marker, color=colour, markerfacecolor=colour if is_filled else "white", markersize=7)
        ends = _interval(point, percentile)
        if ends is not None:
            axes.vlines(at, ends[0], ends[1], color=colour, linewidth=1)


def _interval(point: Point, percentile: PercentileName) -> Sequence[float] | None:
    intervals: Mapping[str, Any] = {"p50": point["interval"]["p50"], "p99": point["interval"]["p99"]}
    return intervals.get(percentile)


def _peaks(title: str, records: Sequence[Record]) -> Any:
    """Draw the peaks of the closed loop as bars, the highest first."""
    measured = [record for record in records if peak_ips(record)]
    shown = sorted(measured, key=lambda record: -(peak_ips(record) or 0.0))[:_BARS]
    labels = _short(shown, compared(records).labels)
    note = _common(shown, compared(records).labels)
    note += "" if len(shown) == len(measured) else f", the best {len(shown)} of {len(measured)} variants"
    figure, axes = _axes(f"{title}: peak samples/s{note}")
    places = range(len(shown))
    bars = axes.barh(places, [peak_ips(record) for record in shown], color=_COLOURS[0])
    axes.bar_label(bars, [peak_text(record) for record in shown], padding=4)
    axes.set_yticks(places, [_plain(labels[record.key]) for record in shown])
    axes.margins(x=0.1, y=0.02)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("samples/s in the closed loop (~ was not steady)", fontsize=13)
    return figure


def _trade_off(title: str, records: Sequence[Record], columns: Sequence[Column]) -> Any | None:
    """Draw peak samples/s against the accuracy, or else the latency, of each variant; None if neither is known."""
    by_name = {column.name: column for column in columns}
    for name in ("top1", "sqnr_db", f"{tail_of(records)}_at_80_percent_ms"):
        column = by_name.get(name)
        pairs = [
            (record, peak, value)
            for record in records
            if column is not None
            and record.status == "ok"
            and (peak := peak_ips(record)) is not None
            and isinstance(value := column.value(record), float)
        ]
        if column is not None and len(pairs) > 1:
            break
    else:
        return None
    figure, axes = _axes(f"{title}: {column.title} at peak samples/s")
    names = list(dict.fromkeys(str(record.variant.get("precision")) for record, _, _ in pairs))
    for number, name in enumerate(names):
        group = [(peak, value) for record, peak, value in pairs if str(record.variant.get("precision")) == name]
        marker = "osD^vXP*"[(number // len(_COLOURS) + number) % 8]
        axes.plot(*zip(*group, strict=True), marker, color=_COLOURS[number % len(_COLOURS)], label=_plain(name))
    axes.set_xlabel("peak samples/s", fontsize=13)
    axes.set_ylabel(f"{column.title} ({column.better} is better)", fontsize=13)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(fontsize=11, title="precision")
    return figure

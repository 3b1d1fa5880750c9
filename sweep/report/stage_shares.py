"""Tell where the requests of a pipeline spend their time: lines of text, and the bars of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.storage import Peak, Point, Record

_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")  # Okabe and Ito
_REST_COLOR = "#999999"


class Share(NamedTuple):
    """Hold one part of the mean latency of a request.

    Attributes:
        name: of the stage, or of what is between the stages.
        mean_ms: its mean, ms.
        share: of the latency, 0 to 1.
        is_stage: whether it is a stage.
        runs: times that the stage runs in a request.
    """

    name: str
    mean_ms: float
    share: float
    is_stage: bool
    runs: int = 1


def shares(record: Record) -> tuple[str, float, list[Share]] | None:
    """Return the load that is shown, the mean latency in ms, and its parts; None for one network.

    The load is the closed loop, or the lowest rate where there is none.
    """
    part: Peak | Point | None = record.peak or next(iter(record.points), None)
    if part is None or "stages" not in part or "latency_ms" not in part:
        return None
    total = part["latency_ms"]["mean"]
    if not total:
        return None
    parts = [
        Share(item["stage"], mean, mean / total, is_stage=True, runs=item["runs"])
        for item in part["stages"]
        if (mean := item["latency_ms"]["mean"]) is not None
    ]
    rest = part.get("stage_rest")
    if rest is not None:
        named = (("queue", rest["queue_ms"]), ("copies", rest["copies_ms"]), ("other", rest["other_ms"]))
        parts += [Share(name, value, value / total, is_stage=False) for name, value in named]
    return "closed loop" if record.peak else "lowest rate", total, parts


def stage_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """Return a line for each record of a pipeline: the mean latency, the share of each stage, and the rest by name."""
    lines = []
    for record in records:
        known = shares(record)
        if known is None:
            continue
        load, total, parts = known
        texts = [
            f"{part.name}{f' x{part.runs}' if part.runs > 1 else ''} {part.mean_ms:.3g} ms ({part.share:.1%})"
            for part in parts
            if part.is_stage or abs(part.share) >= 0.0005  # noqa: PLR2004 - what would show as 0.0%
        ]
        lines.append(f"{labels[record.key]}: {load} by stage, {total:.3g} ms on average: {', '.join(texts)}")
    return lines


def stage_bars(records: Sequence[Record], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page draws: a bar a record, as long as its latency over the longest, and a legend.

    Returns:
        {bars: [{label, total, width, parts: [{name, text, width, color}]}], legend: [{name, color}]}; widths in percent
        of the whole line. No bars without a pipeline.
    """
    known = [(labels[record.key], value) for record in records if (value := shares(record)) is not None]
    longest = max((total for _, (_, total, _) in known), default=0.0)
    stages = dict.fromkeys(part.name for _, (_, _, parts) in known for part in parts if part.is_stage)
    colors = {name: _COLORS[number % len(_COLORS)] for number, name in enumerate(stages)}
    bars = []
    for label, (load, total, parts) in known:
        shown = [part for part in parts if part.share > 0]
        bars.append(
            {
                "label": label,
                "total": f"{total:.3g} ms, {load}",
                "parts": [
                    {
                        "name": part.name,
                        "text": f"{part.name}: {part.mean_ms:.3g} ms, {part.share:.1%}",
                        "width": f"{100 * part.mean_ms / longest:.3f}",
                        "color": colors.get(part.name, _REST_COLOR) if part.is_stage else _REST_COLOR,
                    }
                    for part in shown
                ],
            }
        )
    legend = [{"name": name, "color": color} for name, color in colors.items()]
    return {"bars": bars, "legend": [*legend, {"name": "queue, copies, other", "color": _REST_COLOR}] if bars else []}

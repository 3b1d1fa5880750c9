"""Render a layer profile, or the difference of two, as one self-contained HTML page, which opens without a network.

All that comes from a profile is escaped: by Jinja in the HTML, and as JSON without markup in the data. The page forbids
itself the network (its Content-Security-Policy). Tables and findings need no JavaScript; the charts do.
"""

from __future__ import annotations

import base64
import functools
import re
from typing import TYPE_CHECKING, Any

from sweep.report.layers import machine_formats, wording
from sweep.report.layers.difference import by_scope
from sweep.report.layers.names import name_parts, scope_of
from sweep.report.layers.tables import sums
from sweep.report.layers.terminal import side_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jinja2 import Template
    from markupsafe import Markup

    from sweep.analysis.layers import Finding, LayerRow
    from sweep.report.layers.difference import LayerDifference
    from sweep.report.layers.profiles import Source

_COLOURS = {  # of kinds of layers; Okabe and Ito's, apart for the colour-blind, and greys
    "gemm": "#0072b2",
    "convolution": "#56b4e9",
    "attention": "#009e73",
    "normalisation": "#cc79a7",
    "elementwise": "#e69f00",
    "reduction": "#f0e442",
    "data movement": "#d55e00",
    "quantisation": "#8b1a1a",
    "other": "#999999",
}
_MOST_TILES = 4000  # of the treemap
_MOST_BARS = 12  # causes that a chart shows one by one
_SMALL = 0.005  # share of the time below which a cause is not drawn by itself


def profile_page(source: Source) -> bytes:
    """Return the page of one profile."""
    profile, analysis = source.profile, source.analysis
    figures = [wording.balance(source), wording.timing(source), wording.rates(analysis), wording.gemm(analysis)]
    csv = machine_formats.as_csv(source).encode(errors="backslashreplace")
    context = {
        "title": wording.headline(source),
        "answer": _answer(source),
        "figures": [text for text in figures if text],
        "findings": [_finding(source, finding) for finding in analysis.findings],
        "kinds": [_bar(item, _COLOURS.get(item.name, _COLOURS["other"])) for item in sums(source, "kind")],
        "scopes": [_bar(item, None) for item in sums(source, "scope")],
        "rows": [_row(source, row) for row in analysis.rows],
        "notes": wording.notes(source),
        "memory": _memory(profile.get("memory_bytes") or {}),
        "downloads": [("layers.csv", _url("text/csv", csv))],
        "data": {"tiles": _tiles(source), "roofline": _roofline(source), "colours": _COLOURS},
    }
    return _render("layers.html.jinja", context)


def difference_page(difference: LayerDifference) -> bytes:
    """Return the page that says why one engine is slower than the other."""
    sides = (("A", difference.a, difference.a_us), ("B", difference.b, difference.b_us))
    csv = machine_formats.difference_csv(difference).encode(errors="backslashreplace")
    context = {
        "title": f"{difference.names[0]} against {difference.names[1]}",
        "answer": difference.headline,
        "sides": [
            {
                "name": name,
                "what": wording.headline(source),
                "us": wording.amount(time),
                "texts": [text for text in (wording.balance(source), wording.gemm(source.analysis)) if text],
                "findings": [_finding(source, finding) for finding in source.analysis.findings if not finding.small],
            }
            for name, source, time in sides
        ],
        "unit": difference.unit,
        "causes": [_cause(cause) for cause in difference.causes],
        "total": {"a": wording.amount(difference.a_us), "b": wording.amount(difference.b_us)},
        "groups": [_group(difference, group) for group in difference.groups],
        "scopes": [
            {"name": name, "a": wording.amount(a), "b": wording.amount(b), "change": _signed(b - a), "value": b - a}
            for name, a, b in by_scope(difference)
        ],
        "notes": [*difference.notes, *_side_notes(difference)],
        "downloads": [("difference.csv", _url("text/csv", csv))],
        "data": {"waterfall": _waterfall(difference)},
    }
    return _render("difference.html.jinja", context)


def _render(name: str, context: Mapping[str, Any]) -> bytes:
    return _template(name).render(context, plotly=_plotly()).encode(errors="backslashreplace")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.cache
def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sweep.report.layers"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False, "allow_nan": False}
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """Return a text whose words between backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text)))  # noqa: S704 - it was escaped


def _answer(source: Source) -> str:
    """Return in one sentence what takes the time, and what to do first."""
    kinds = sums(source, "kind")
    if not kinds:
        return "The profile has no layers."
    words = ", ".join(f"{item.name} {item.share:.0%}" for item in kinds[:3])
    finding = next((item for item in source.analysis.findings if not item.small), None)
    first = f" First: {finding.title}." if finding is not None else " No finding costs much."
    return f"The time of the layers goes to {words}.{first}"


def _finding(source: Source, finding: Finding) -> dict[str, Any]:
    return {
        "title": finding.title,
        "cost": f"{wording.amount(finding.cost_us)} us",
        "share": f"{finding.share:.1%}",
        "saving": None if finding.saving_us is None else f"{wording.amount(finding.saving_us)} us",
        "explanation": finding.explanation,
        "advice": finding.advice,
        "source": finding.source,
        "small": finding.small,
        "names": wording.places(source, finding),
    }


def _bar(item: Any, colour: str | None) -> dict[str, Any]:
    return {
        "name": item.name,
        "us": wording.amount(item.time_us),
        "share": f"{item.share:.1%}",
        "width": f"{100 * item.share:.2f}",
        "layers": item.layers,
        "detail": item.detail,
        "colour": colour or _COLOURS["gemm"],
    }


def _row(source: Source, row: LayerRow) -> dict[str, Any]:
    layer = source.profile["layers"][row.index]
    formats = dict.fromkeys(
        str(tensor["format"]) for tensor in (*layer["inputs"], *layer["outputs"]) if tensor.get("format")
    )
    return {
        "index": row.index + 1,
        "text": wording.layer_text(row),
        "name": row.name,
        "category": row.category,
        "operators": ", ".join(row.op_kinds) or row.kind,
        "bound": row.bound,
        "types": wording.types_text(source, row),
        "formats": ", ".join(formats),
        "tactic": layer["tactic"] or "",
        "numbers": [
            _number(row.time_us, wording.amount),
            _number(row.share, lambda value: f"{value:.1%}"),
            _number(row.tflops, wording.rate),
            _number(row.gb_per_s, wording.rate),
        ],
    }


def _number(value: float | None, text: Any) -> dict[str, Any]:
    return {"value": "" if value is None else f"{value:.8g}", "text": "-" if value is None else text(value)}


def _memory(owners: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{size / (1 << 20):,.1f} MiB") for name, size in sorted(owners.items(), key=lambda item: -item[1])]


def _tiles(source: Source) -> dict[str, list[Any]]:
    """Return the treemap: ids, labels, parents, times and kinds of scopes and layers, each below its scope."""
    tiles: dict[str, dict[str, Any]] = {}
    whole = wording.headline(source)
    tiles["/"] = {"label": whole, "parent": "", "value": 0.0, "kind": "", "text": ""}
    rows = sorted(source.analysis.rows, key=lambda row: -(row.time_us or 0.0))
    for row in [row for row in rows if row.time_us][:_MOST_TILES]:
        parent = "/"
        for part in scope_of(row):
            place = f"{parent}{part}/"
            tiles.setdefault(place, {"label": part, "parent": parent, "value": 0.0, "kind": "", "text": ""})
            parent = place
        place = f"{parent}#{row.index}"
        label = " + ".join(dict.fromkeys(name_parts(node)[-1] for node in row.nodes)) or row.name
        operators = ", ".join(row.op_kinds) or row.kind
        tiles[place] = {
            "label": wording.clipped(label, 60),
            "parent": parent,
            "value": row.time_us,
            "kind": row.category,
            "text": f"{wording.amount(row.time_us or 0.0)} us, {operators}",
        }
        while parent:
            tiles[parent]["value"] += row.time_us
            parent = tiles[parent]["parent"]
    return {
        "ids": list(tiles),
        **{
            f"{name}s": [tile[name] for tile in tiles.values()] for name in ("label", "parent", "value", "kind", "text")
        },
    }


def _roofline(source: Source) -> dict[str, Any]:
    """Return the points (FLOP per byte, TFLOP/s) of the layers that have both, and the lines of the peaks."""
    points = [
        {
            "x": float(f"{row.flops / row.bytes:.5g}"),
            "y": float(f"{row.tflops:.5g}"),
            "us": float(f"{row.time_us:.5g}"),
            "kind": row.category,
            "bound": row.bound,
            "name": wording.clipped(wording.layer_text(row), 70),
        }
        for row in source.analysis.rows
        if row.flops and row.bytes and row.tflops and row.time_us
    ]
    peaks = source.analysis.peaks
    return {
        "points": points,
        "roofs": _roofs(source),
        "bandwidth": peaks.gb_per_s if peaks is not None else None,
        "source": f"{peaks.name}: {peaks.source}" if peaks is not None else "",
    }


def _roofs(source: Source) -> list[dict[str, Any]]:
    """Return the peaks of the types in which layers compute, TFLOP/s, and their source."""
    peaks = source.analysis.peaks
    if peaks is None:
        return []
    types = dict.fromkeys(row.dtype for row in source.analysis.rows if row.flops)
    known = {dtype: peaks.of_type(dtype) for dtype in types}
    return [{"name": dtype, "tflops": value} for dtype, value in known.items() if dtype and value]


def _cause(cause: Any) -> dict[str, Any]:
    return {
        "what": cause.text,
        "a": "-" if cause.presence == "B" else wording.amount(cause.a_us),
        "b": "-" if cause.presence == "A" else wording.amount(cause.b_us),
        "change": _signed(cause.change_us),
        "value": cause.change_us,
        "ratio": f"{cause.b_us / cause.a_us:.2f}"
        if cause.presence == "both" and min(cause.a_us, cause.b_us) > 0
        else "-",
        "layers": cause.layers or "",
    }


def _group(difference: LayerDifference, group: Any) -> dict[str, Any]:
    return {
        "name": group.name,
        "nodes": " ".join(group.nodes),
        "what": group.what,
        "presence": group.presence,
        "numbers": [
            _number(None if group.presence == "B" else group.a_us, wording.amount),
            _number(None if group.presence == "A" else group.b_us, wording.amount),
            _number(group.change_us, _signed),
            _number(group.ratio, lambda value: f"{value:.2f}"),
        ],
        "a": side_text(difference.a, group.a),
        "b": side_text(difference.b, group.b),
        "a_layers": " | ".join(row.name for row in group.a),
        "b_layers": " | ".join(row.name for row in group.b),
    }


def _waterfall(difference: LayerDifference) -> dict[str, Any]:
    """Return the steps from the time of A to that of B: a cause each, small ones together."""
    least = _SMALL * max(difference.a_us, difference.b_us)
    drawn = [cause for cause in difference.causes if abs(cause.change_us) >= least][:_MOST_BARS]
    rest = difference.b_us - difference.a_us - sum(cause.change_us for cause in drawn)
    steps = [(_cause(cause)["what"], cause.change_us) for cause in drawn]
    if len(drawn) < len(difference.causes):
        steps.append((f"{len(difference.causes) - len(drawn)} more", rest))
    return {
        "names": list(difference.names),
        "a": difference.a_us,
        "b": difference.b_us,
        "steps": [{"name": name, "us": float(f"{change:.6g}")} for name, change in steps],
        "unit": difference.unit,
    }


def _side_notes(difference: LayerDifference) -> Iterable[str]:
    for name, source in (("A", difference.a), ("B", difference.b)):
        yield f"{name}: {wording.timing(source)}"
        for note in wording.notes(source):
            yield f"{name}: {note}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{wording.amount(value)}"


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}"

"""Render the page: records -> tables in HTML, data for its charts, files to download.

Everything that comes from records is escaped: by Jinja in the HTML, and as JSON without markup in the data. The page
forbids itself the network (its Content-Security-Policy). Tables, facts and downloads need no JavaScript.
"""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweep.report import shape_ways, side_by_side
from sweep.report.columns import common_slo, figures
from sweep.report.comparison import compared
from sweep.report.html import chart_data
from sweep.report.html.csv_files import points_csv, variants_csv
from sweep.report.outcome_lines import Footnotes, below_table, bottleneck_lines
from sweep.report.ranking import answer
from sweep.report.stage_shares import stage_bars
from sweep.system import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jinja2 import Template

    from sweep.report.columns import Column
    from sweep.report.recommendation import Answer
    from sweep.spec import Axis
    from sweep.storage import Record

_TEXTS = {"status", "bottleneck"}  # columns of words, sorted by the alphabet and offered as filters
_MARKS = {">": "best", "=": "tied"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Hold the command lines that make what the page shows.

    Attributes:
        sweeps: command of each sweep, by its name.
        variants: command of each variant alone, by the key of its record.
        profiles: what ``report.layers.summaries`` says of the variants whose layers were profiled.
    """

    sweeps: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    profiles: Sequence[Mapping[str, str]] = ()


def write(
    path: Path,
    title: str,
    records: Sequence[Record],
    recommendation: Answer | None = None,
    commands: Commands | None = None,
) -> Path:
    """Write the page to `path`, atomically, and return `path`.

    Args:
        path: file to write.
        title: name of the sweep, or of all of them.
        records: records of the sweeps; no two have one key.
        recommendation: answer of the sweeps; None computes it from the records.
        commands: command lines that the page shows; None shows none.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    write_atomic(path, render(title, records, recommendation, commands).encode(errors="backslashreplace"))
    return path


def render(
    title: str,
    records: Sequence[Record],
    recommendation: Answer | None = None,
    commands: Commands | None = None,
) -> str:
    """Return the page as HTML; the arguments are those of `write`."""
    return _template().render(context(title, records, recommendation, commands), plotly=_plotly())


def context(
    title: str,
    records: Sequence[Record],
    recommendation: Answer | None = None,
    commands: Commands | None = None,
) -> dict[str, Any]:
    """Return what the template takes, as plain values; the arguments are those of `write`."""
    slo = common_slo(records)
    recommendation = recommendation or answer(records, slo)
    commands = commands or Commands()
    columns, footnotes = figures(records, recommendation, slo), Footnotes(records)
    axes, following = _of_sweeps(records, footnotes)
    labels = compared(records).labels
    files = {"variants.csv": variants_csv(records, recommendation.ratios), "points.csv": points_csv(records)}
    return {
        "title": title,
        "answer": recommendation.text.splitlines(),
        "settings": recommendation.settings.splitlines(),
        "limits": bottleneck_lines(recommendation),
        "table": _table(records, recommendation, footnotes, axes, columns, labels),
        "footnotes": footnotes.texts,
        "lines": below_table(records),
        "stages": stage_bars(records, labels),
        "counts": _counts(records),
        "started": [min(times), max(times)] if (times := [record.started_at[:16] for record in records]) else [],
        "facts": [*_facts(records), *following],
        "profiles": commands.profiles,
        "shape_ways": [shape_ways.table_of(group) for group in shape_ways.groups(records)],
        "side_by_side": side_by_side.page_context(records, slo),
        "sweeps": commands.sweeps,
        "commands": [(labels[key], command) for key, command in commands.variants.items() if key in labels],
        "downloads": [(name, _data_url(text), len(text)) for name, text in files.items()],
        "data": chart_data.of(records, recommendation, footnotes, axes, columns, labels),
        "has_curves": any(record.points for record in records),
    }


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sweep.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False, "allow_nan": False}
    return environment.get_template("page.html.jinja")


def _table(
    records: Sequence[Record],
    recommendation: Answer,
    footnotes: Footnotes,
    axes: Sequence[Axis],
    columns: Sequence[Column],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return heads and rows of the table: text, value to sort by, footnotes and reason of each cell."""
    several = len({record.sweep for record in records}) > 1
    heads = [
        *([{"title": "sweep", "kind": "axis"}] if several else []),
        *({"title": axis.column, "kind": "axis"} for axis in axes),
        *({"title": column.title, "kind": "axis" if column.name in _TEXTS else "number"} for column in columns),
    ]
    rows = []
    for record in records:
        mark = recommendation.mark(record)
        cells: list[dict[str, Any]] = [{"text": record.sweep}] if several else []
        cells += [
            {
                "text": footnotes.cell(record, axis),
                "notes": footnotes.numbers(record) if footnotes.is_marked(axis) else (),
            }
            for axis in axes
        ]
        for column in columns:
            value = column.value(record)
            cell = {"text": column.text(record), "value": value if isinstance(value, float | int) else None}
            if column.name == "status" and record.error is not None:
                cell["reason"] = f"{record.error['stage']}: {record.error['message']}"
            cells.append(cell)
        rows.append({"mark": mark, "kind": _MARKS.get(mark, ""), "label": labels[record.key], "cells": cells})
    return {"heads": heads, "rows": rows}


def _of_sweeps(records: Sequence[Record], footnotes: Footnotes) -> tuple[list[Axis], list[tuple[str, list[str], bool]]]:
    """Return the axes that have a column, and as facts those that follow from the sweep, alone or with the precision.

    Several sweeps often differ in settings of their load, which would push the figures of every row out of sight.
    """
    sweeps = [record.sweep for record in records]
    if len(set(sweeps)) == 1:
        return list(footnotes.axes), []
    precision = next((axis for axis in footnotes.axes if axis.info.key == "precision.name"), None)
    precisions = [None if precision is None else footnotes.cell(record, precision) for record in records]
    shown: list[Axis] = []
    following: list[tuple[str, list[str], bool]] = []
    for axis in footnotes.axes:
        cells = [footnotes.cell(record, axis) for record in records]
        if len(set(zip(sweeps, cells, strict=True))) == len(set(sweeps)):
            owners: dict[str, list[str]] = {}
            for sweep, cell in dict.fromkeys(zip(sweeps, cells, strict=True)):
                owners.setdefault(cell, []).append(sweep)
            values = [f"{cell} ({', '.join(names)})" for cell, names in owners.items()]
            following.append((str(axis.column), values, True))
        elif axis is not precision and len(set(zip(sweeps, precisions, cells, strict=True))) == len(
            set(zip(sweeps, precisions, strict=True))
        ):
            following.append((str(axis.column), ["follows from sweep and precision, see variants.csv"], True))
        else:
            shown.append(axis)
    return (shown, following) if shown else (list(footnotes.axes), [])


def _counts(records: Sequence[Record]) -> list[tuple[str, int]]:
    """Return how many variants ended in each status, the most frequent first."""
    counts: dict[str, int] = {}
    for record in records:
        counts[str(record.status)] = counts.get(str(record.status), 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _facts(records: Sequence[Record]) -> list[tuple[str, list[str], bool]]:
    """Return each fact with its values, and whether it is not the same for all records.

    Of several values each is followed by the sweeps that have it.
    """
    facts: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for name, value in record.facts.items():
            if value is not None:
                facts.setdefault(name, {}).setdefault(str(value), []).append(record.sweep)
    several = len({record.sweep for record in records}) > 1
    return [
        (
            name,
            [
                f"{value} ({', '.join(dict.fromkeys(sweeps))})" if several and len(values) > 1 else value
                for value, sweeps in values.items()
            ],
            len(values) > 1,
        )
        for name, values in facts.items()
    ]


def _data_url(text: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode(errors='backslashreplace')).decode()}"

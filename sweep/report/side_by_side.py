"""Show what networks side by side cost each other: a matrix of slowdowns, and the goodput of each way to share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.analysis import fairness, interference
from sweep.spec import parse_sharing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.spec import Slo
    from sweep.storage import Record

_TIED_WITHIN = 0.05  # ways to share whose goodput differs by less are named together: starts differ by as much
_HOTTEST = 3.0  # slowdown from which on a cell of the heat map has the full colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Hold the slowdowns of one way to share: a row a network, a column what was beside it.

    Attributes:
        sharing: kind, and shares in the order of the rows.
        rows: networks.
        columns: networks beside them.
        cells: slowdown by row and column; missing where nothing was measured.
    """

    sharing: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], interference.Slowdown]

    @property
    def fairness(self) -> float | None:
        """Return Jain's index of the throughputs as shares of those alone: 1 where all are slowed alike.

        None where one of them is not known.
        """
        shares = [1 / each.rate for each in self.cells.values() if each.rate]
        return fairness.jain(shares) if len(shares) == len(self.cells) == len(self.rows) else None


def matrices(slowdowns: Sequence[interference.Slowdown]) -> list[Matrix]:
    """Return the slowdowns as a matrix for each way to share."""
    rows = tuple(dict.fromkeys(each.network for each in slowdowns))
    grouped: dict[Any, list[interference.Slowdown]] = {}
    for each in slowdowns:
        grouped.setdefault(_way(each), []).append(each)
    made = []
    for group in grouped.values():
        present = {each.network for each in group} | {name for each in group for name in each.beside}
        own_rows = [name for name in rows if name in present]
        columns = tuple(dict.fromkeys(" + ".join(each.beside) for each in group))
        order = [name for name in own_rows if name in columns]
        made.append(
            Matrix(
                sharing=_text(group[0], own_rows),
                rows=tuple(own_rows),
                columns=(*order, *(name for name in columns if name not in order)),
                cells={(each.network, " + ".join(each.beside)): each for each in group},
            )
        )
    return made


def _way(each: interference.Slowdown) -> Any:
    """Return what is the same for all networks that share the device in one way."""
    sharing = parse_sharing(each.sharing)
    names = (each.network, *each.beside)
    if sharing is None or not sharing.shares:
        return each.sharing, frozenset(names)
    return sharing.kind, frozenset(zip(names, sharing.shares, strict=False))


def _text(each: interference.Slowdown, rows: Sequence[str]) -> str:
    """Return how the device was shared, with the shares in the order of the rows."""
    sharing = parse_sharing(each.sharing)
    if sharing is None or not sharing.shares:
        return each.sharing
    shares = dict(zip((each.network, *each.beside), sharing.shares, strict=False))
    order = [*(name for name in rows if name in shares), *(name for name in shares if name not in rows)]
    return f"{sharing.kind}:{'/'.join(str(shares[name]) for name in order)}"


def cell_text(each: interference.Slowdown | None) -> str:
    """Return a cell: ``3.00 (2.95 to 3.05), p99 3.1``: factors on the time of a sample and on the p99."""
    if each is None:
        return "-"
    if each.rate is None:
        return "not known"
    tail = "" if each.p99 is None else f", p99 {_factor(each.p99, each.p99_interval)}"
    return f"{_factor(each.rate, each.rate_interval)}{tail}"


def _factor(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.2f}" + ("" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})")


def print_side_by_side(console: Console, records: Sequence[Record], slo: Slo | None) -> None:
    """Print the matrices and the goodput of each way to share; nothing without networks side by side.

    Args:
        console: where to print.
        records: of the sweep.
        slo: objective of a network that has none of its own.
    """
    result = interference.find(records, slo)
    if not result.slowdowns:
        return
    made = matrices(result.slowdowns)
    columns = list(dict.fromkeys(column for matrix in made for column in matrix.columns))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title="Slowdown side by side: row beside column, throughput and p99 as factors on those alone (95%)",
        title_justify="left",
    )
    for heading in ("sharing", "fairness", "network", *(f"beside {column}" for column in columns)):
        table.add_column(escape(heading), no_wrap=True)
    for matrix in made:
        for number, row in enumerate(matrix.rows):
            cells = [cell_text(matrix.cells.get((row, column))) for column in columns]
            table.add_row(*map(escape, (*(_head(matrix) if number == 0 else ("", "")), row, *cells)))
    console.print(table)
    for line in split_lines(result):
        console.print(escape(line), highlight=False, soft_wrap=not console.is_terminal)


def _head(matrix: Matrix) -> tuple[str, str]:
    return matrix.sharing, "" if matrix.fairness is None else f"{matrix.fairness:.2f}"


def split_lines(result: interference.Interference) -> list[str]:
    """Return a line for each way to share where networks have an SLO, and which one keeps all at the most goodput."""
    lines = []
    for splits in result.splits:
        best = result.best(splits)
        for split in splits:
            mark = ">" if split is best else " "
            each = ", ".join(f"{one.network} {_served(one)}" for one in split.services)
            kept = "" if split.keeps_all else "; not every SLO is kept"
            lines.append(f"{mark} {split.sharing}: goodput {split.goodput_ips:,.0f} samples/s: {each}{kept}")
        lines.append(_answer(best, splits))
    return lines


def _served(service: interference.Service) -> str:
    limit = "without an SLO" if service.slo is None else f"({service.slo})"
    return f"{service.ips:,.0f} {limit}"


def _answer(best: interference.Split | None, splits: Sequence[interference.Split]) -> str:
    names = " and ".join(service.network for service in splits[0].services)
    if best is None:
        return f"No way to share that was measured keeps the SLO of each of {names}; offer less, or allow more"
    near = [
        split.sharing
        for split in splits
        if split is not best and split.keeps_all and split.goodput_ips >= (1 - _TIED_WITHIN) * best.goodput_ips
    ]
    tied = f"; within {_TIED_WITHIN:.0%} of it: {', '.join(near)}" if near else ""
    return (
        f"Of {len(splits)} ways to share, sharing={best.sharing} keeps every SLO of {names} at the most goodput{tied}"
    )


def page_context(records: Sequence[Record], slo: Slo | None) -> dict[str, Any]:
    """Return what the page shows: matrices with the heat of each cell, 0 to 1, and the lines of the ways to share."""
    result = interference.find(records, slo)
    shown = [
        {
            "sharing": matrix.sharing,
            "fairness": _head(matrix)[1],
            "columns": matrix.columns,
            "rows": [
                {
                    "network": row,
                    "cells": [_page_cell(matrix.cells.get((row, column))) for column in matrix.columns],
                }
                for row in matrix.rows
            ],
        }
        for matrix in matrices(result.slowdowns)
    ]
    return {"matrices": shown, "lines": split_lines(result)}


def _page_cell(each: interference.Slowdown | None) -> dict[str, Any]:
    slowest = None if each is None or each.rate is None else max(each.rate, each.p99 or 0.0)
    return {
        "text": cell_text(each),
        "heat": None if slowest is None else round(min(max((slowest - 1) / (_HOTTEST - 1), 0.0), 1.0), 2),
        "at": "" if each is None or each.rate is None else each.at,
    }

"""Run the cells of the study's tables over processes, and print them as Markdown and JSON.

A cell is simulated in blocks of sweeps. Every block has seeds of its own, and blocks are merged in their order, so that
the figures are the same for any number of processes.
"""

import functools
import json
import math
import multiprocessing
import operator
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

BLOCK = 20  # sweeps that one process simulates before it takes the next block


@dataclass(frozen=True)
class Share:
    """A share of simulated sweeps.

    Attributes:
        count: how many of them.
        of: how many were simulated.
    """

    count: int
    of: int

    def __add__(self, other):
        return Share(self.count + other.count, self.of + other.of)

    @property
    def value(self):
        return self.count / self.of if self.of else math.nan

    @property
    def error(self):
        """The standard error; that of a quarter of a sweep more where none or all are counted."""
        return math.sqrt(max(self.value * (1 - self.value), 0.25 / self.of) / self.of) if self.of else math.nan

    def __str__(self):
        return f"{self.value:.1%} ± {self.error:.1%}" if self.of else "-"

    def figures(self):
        return {"value": self.value, "error": self.error, "of": self.of} if self.of else {"of": 0}


@dataclass(frozen=True)
class Median:
    """The median of a figure over sweeps.

    Attributes:
        values: the figure of each sweep.
        digits: decimals that are printed.
    """

    values: tuple
    digits: int = 2

    def __add__(self, other):
        return Median(self.values + other.values, self.digits)

    @property
    def value(self):
        return float(np.median(self.values)) if self.values else math.nan

    @property
    def error(self):
        """The standard error: half the distance of the order statistics one standard deviation to either side."""
        if len(self.values) < 3:
            return math.nan
        ordered, half = sorted(self.values), math.sqrt(len(self.values)) / 2
        low, high = (round((len(ordered) - 1) / 2 + side * half) for side in (-1, 1))
        return (ordered[min(high, len(ordered) - 1)] - ordered[max(low, 0)]) / 2

    def __str__(self):
        return f"{self.value:.{self.digits}f} ± {self.error:.{self.digits}f}" if self.values else "-"

    def figures(self):
        return {"value": self.value, "error": self.error, "of": len(self.values)} if self.values else {"of": 0}


@dataclass(frozen=True)
class Coverage:
    """What became of an interval.

    Attributes:
        held: how many contained the truth, of those printed.
        null: how many sweeps printed none.
    """

    held: Share
    null: Share

    def __add__(self, other):
        return Coverage(self.held + other.held, self.null + other.null)

    def __str__(self):
        return f"{self.held}, null {self.null.value:.0%} ± {self.null.error:.0%}"

    def figures(self):
        return {**self.held.figures(), "null": self.null.figures()}


@dataclass(frozen=True)
class Cell:
    """A figure that is simulated.

    Attributes:
        run: (sweeps, block number) -> a figure that adds up over blocks.
        sweeps: how many to simulate.
        block: sweeps of a block.
    """

    run: Callable
    sweeps: int
    block: int = BLOCK

    def blocks(self):
        """Return the sweeps of each block."""
        return [min(self.block, self.sweeps - start) for start in range(0, self.sweeps, self.block)]


def cell(function, sweeps, *, each=BLOCK, **settings):
    """Return the cell of ``function(sweeps, block=number, **settings)``."""
    return Cell(lambda size, number: function(size, block=number, **settings), sweeps, each)


@dataclass(frozen=True)
class Printed:
    """Rows that a function prints itself, as one block.

    Attributes:
        run: (say) -> None; of what it says, the lines of a table count.
    """

    run: Callable


@dataclass(frozen=True)
class Table:
    """A table of the study.

    Attributes:
        name: what the command line calls it.
        title: what is printed above it.
        heads: names of the columns, labels first.
        rows: of each row the labels and the cells, whose texts are printed as they are; or rows printed by a function.
    """

    name: str
    title: str
    heads: Sequence
    rows: Sequence = field(default_factory=list)


_TASKS: list = []  # of the tables that run; a child process inherits it


def _tasks(tables):
    """Return every block of every cell: where it belongs, and what it does."""
    for at, table in enumerate(tables):
        for line, row in enumerate(table.rows):
            if isinstance(row, Printed):
                yield (at, line, 0, 0), functools.partial(_printed_lines, row)
                continue
            for column, item in enumerate(row[1]):
                if isinstance(item, Cell):
                    for number, size in enumerate(item.blocks()):
                        yield (at, line, column, number), functools.partial(item.run, size, number)


def _printed_lines(row):
    lines: list = []
    row.run(lines.append)
    return [line for line in lines if line.startswith("|")]


def _run(number):
    place, work = _TASKS[number]
    started = time.process_time()
    return place, work(), time.process_time() - started


def measure(tables, jobs, write, save=None):
    """Run all cells, and write each table once it and those before it are done.

    Args:
        tables: the tables.
        jobs: processes; 1 runs in this one.
        write: takes the Markdown of a table.
        save: takes the tables that are done, as JSON.
    """
    _TASKS[:] = list(_tasks(tables))
    missing = [0] * len(tables)
    for place, _ in _TASKS:
        missing[place[0]] += 1
    results, cpu_s, written = {}, [0.0] * len(tables), 0
    finished = []

    def flush():
        nonlocal written
        while written < len(tables) and not missing[written]:
            table = _finished(tables[written], written, results)
            write(_markdown(table))
            finished.append({**_plain(table), "cpu_s": round(cpu_s[written], 1)})
            if save:
                save(finished)
            sys.stderr.write(f"{table.name}: {cpu_s[written]:.0f} CPU-seconds\n")
            written += 1

    flush()
    for place, value, seconds in _outcomes(jobs):
        results[place] = value
        cpu_s[place[0]] += seconds
        missing[place[0]] -= 1
        flush()
    return finished


def _outcomes(jobs):
    if jobs <= 1:
        yield from map(_run, range(len(_TASKS)))
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_run, range(len(_TASKS)))


def _finished(table, at, results):
    """Return the table with figures in place of its cells."""
    rows = []
    for line, row in enumerate(table.rows):
        if isinstance(row, Printed):
            head, _, *lines = results[at, line, 0, 0]
            rows += [_parsed(text) for text in lines]
            table = Table(table.name, table.title, table.heads or [*_parsed(head)[0], *_parsed(head)[1]], table.rows)
            continue
        cells = []
        for column, item in enumerate(row[1]):
            if isinstance(item, Cell):
                parts = [results[at, line, column, number] for number in range(len(item.blocks()))]
                cells.append(functools.reduce(operator.add, parts))
            else:
                cells.append(item)
        rows.append((row[0], cells))
    return Table(table.name, table.title, table.heads, rows)


def _parsed(text):
    """Return a printed row of Markdown as half and family, and the cells."""
    parts = tuple(part.strip() for part in re.split(r"(?<!\\)\|", text.strip().strip("|")))
    return parts[:2], parts[2:]


def _markdown(table):
    lines = [f"**{table.title}**", "", f"| {' | '.join(table.heads)} |", "|" + "---|" * len(table.heads)]
    lines += [f"| {' | '.join(str(item) for item in (*labels, *cells))} |" for labels, cells in table.rows]
    return "\n".join(lines) + "\n"


def _plain(table):
    rows = [{"labels": list(labels), "cells": [_figures(item) for item in cells]} for labels, cells in table.rows]
    return {"table": table.name, "title": table.title, "columns": list(table.heads), "rows": rows}


def _figures(item):
    if hasattr(item, "figures"):
        return {"text": str(item), **item.figures()}
    share = re.match(r"([\d.]+)% ± ([\d.]+)%", str(item))
    figures = (
        dict(zip(("value", "error"), (float(part) / 100 for part in share.groups()), strict=True)) if share else {}
    )
    return {"text": str(item), **figures}


def saver(path):
    """Return a function that writes the tables that are done to ``path`` as JSON."""

    def save(finished):
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - one line
            json.dump(finished, file, indent=1, ensure_ascii=False)

    return save

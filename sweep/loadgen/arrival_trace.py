"""Replay the arrivals of a file, which is read, checked and digested when the sweep is planned.

The file is CSV: one column of times in seconds, with or without a header, or a column called ``arrival_s`` among
others. Times count from the first arrival, so the zero point of the file is free.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LoadError
from sweep.loadgen.arrivals import Schedule
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sweep.spec import JsonDict, LoadAxes

KIND = "trace"
COLUMN = "arrival_s"
_FEWEST = 2  # arrivals that have a rate
_SHORTEST_S = 1e-6  # clocks count in ns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrivalTrace:
    """Hold the arrivals of a file.

    Attributes:
        path: absolute.
        digest: sha256 of its bytes, in hex.
        times_s: arrival times after the first, seconds, ascending; equal times arrive together.
    """

    path: Path
    digest: str
    times_s: NDArray[np.float64]

    @property
    def span_s(self) -> float:
        """Return the time from the first to the last arrival, seconds."""
        return float(self.times_s[-1])


def read(path: str) -> ArrivalTrace:
    """Read the arrival trace at ``path``; once, however many variants share it, unless the file changes.

    Raises:
        LoadError: the file cannot be read, holds fewer than two arrivals, or a line is no time in seconds, negative or
            before the one above it; one line that names it.
    """
    file = Path(path).expanduser().resolve()
    try:
        stat = file.stat()
        return _read(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise LoadError(f"load.trace={path}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=16)
def _read(file: Path, _mtime_ns: int, _size: int) -> ArrivalTrace:
    content = regular_files.read_bytes(file, follow=True)
    try:
        times = np.fromiter(_times(file, content.decode("utf-8-sig")), dtype=np.float64)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LoadError(f"load.trace={file}: is no text file of arrival times ({error})") from error
    if len(times) < _FEWEST or times[0] == times[-1]:
        raise LoadError(
            f"load.trace={file}: holds {len(times)} arrivals and no time between them; "
            "give two or more, at different times, in seconds"
        )
    return ArrivalTrace(path=file, digest=hashlib.sha256(content).hexdigest(), times_s=times - times[0])


def _times(file: Path, text: str) -> Iterator[float]:
    """Yield each time of the file, checked against the one before it."""
    column: int | None = None
    before, start = 0.0, True
    lines = csv.reader(io.StringIO(text))
    for row in lines:
        if not any(cell.strip() for cell in row):
            continue
        if start:
            start = False
            column = _column(file, row)
            if column is not None:
                continue
        cell = row[column or 0].strip() if (column or 0) < len(row) else ""
        before = _time(f"load.trace={file}: line {lines.line_num}", cell, before)
        yield before


def _column(file: Path, row: list[str]) -> int | None:
    """Find the column that holds the times, by the header; None where the first line is a time already."""
    names = [cell.strip() for cell in row]
    if COLUMN in names:
        return names.index(COLUMN)
    if len(names) > 1:
        raise LoadError(
            f"load.trace={file}: has {len(names)} columns ({', '.join(names)}) and none called {COLUMN}; "
            "name the one with the arrival times so, in seconds"
        )
    return None if _is_number(names[0]) else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _time(location: str, cell: str, before: float) -> float:
    value = float(cell) if _is_number(cell) else math.nan
    if not math.isfinite(value):
        raise LoadError(f"{location}: {cell!r} is no time in seconds")
    if value < 0:
        raise LoadError(f"{location}: {cell} is negative; times count up from 0 or later, in seconds")
    if value < before:
        raise LoadError(f"{location}: {cell} comes before {before:g}, which is above it; sort the file by arrival")
    return value


def axes(path: str | None, scale: float, timeout_s: float) -> JsonDict:
    """Return the fields of ``LoadAxes`` that describe a trace: file, digest, scale and duration.

    Args:
        path: file of arrival times, as the user gave it.
        scale: how many times faster it is replayed.
        timeout_s: longest silence of a worker, s.

    Raises:
        LoadError: the file is missing or damaged, or the replay lasts longer than ``timeout_s``.
    """
    if path is None:
        raise LoadError(f"load.kind={KIND} needs load.trace, as in load.trace=arrivals.csv: arrival times in seconds")
    trace = read(path)
    span_s = trace.span_s / scale
    if span_s < _SHORTEST_S:
        raise LoadError(f"load.trace={path} is over in {span_s:g} s; give times in seconds that span {_SHORTEST_S:g} s")
    if span_s >= timeout_s:
        raise LoadError(
            f"load.trace={path} lasts {span_s:.0f} s, and a worker that is silent for timeout_s={timeout_s:g} is "
            f"killed: set timeout_s={math.ceil(span_s) + 60} or a load.trace_scale"
        )
    unscaled = {"trace": str(trace.path), "trace_digest": trace.digest, "trace_s": span_s}
    return unscaled if scale == 1 else {**unscaled, "trace_scale": scale}


def replay_schedule(load: LoadAxes) -> Schedule:
    """Return the schedule of ``load.trace``, ``load.trace_scale`` times faster; all arrivals are measured.

    Raises:
        LoadError: the file cannot be read, or is not the one that was planned.
    """
    if load.trace is None:
        raise LoadError(f"load.kind={KIND} needs load.trace")
    trace = read(load.trace)
    if trace.digest != load.trace_digest:
        raise LoadError(f"load.trace={load.trace}: changed since the sweep was planned; start the sweep again")
    times_s = trace.times_s / (load.trace_scale or 1.0)
    return Schedule(
        kind=KIND,
        due_ns=np.asarray(times_s * 1e9, dtype=np.int64),
        warmup=0,
        rate_rps=float((len(times_s) - 1) / times_s[-1]),
    )

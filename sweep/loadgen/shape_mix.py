"""Decide which shape each request has: drawn by seed from a mix, or replayed from a file of sizes.

The file is CSV with a header that names the dimensions, as ``seq`` or ``h,w``, and a row a request; the rows are
replayed in order, from the start again after the last.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LoadError
from sweep.loadgen.communicator import communicator_of
from sweep.system import generator, regular_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.backends import Session
    from sweep.spec import LoadAxes

_MIX = 7018  # of the seed's children: no rung of a ladder has this number
_CLOSED_DRAWS = 4096  # shapes of a stream of a closed loop, which then come again
_MOST_SHAPES = 30_000  # distinct ones in a file: samples store their number in 16 bits
_MOST_SIZE = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedShapes:
    """Hold the sizes of a file.

    Attributes:
        names: names of the dimensions, sorted.
        shapes: the distinct sizes, the smallest first.
        order: number in ``shapes`` of each row.
        digest: sha256 of the file, in hex.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    digest: str


def read(path: str) -> RecordedShapes:
    """Read the file at `path`; once, however many variants share it, unless the file changes.

    Raises:
        LoadError: it cannot be read, or a row is no sizes; one line that names it.
    """
    file = Path(path).expanduser().resolve()
    try:
        stat = file.stat()
        return _read(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise LoadError(f"load.shapes={path}: cannot be read ({error.strerror}); give a CSV file of sizes") from error


@lru_cache(maxsize=16)
def _read(file: Path, _mtime_ns: int, _size: int) -> RecordedShapes:
    content = regular_files.read_bytes(file, follow=True)
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise LoadError(f"load.shapes={file}: is no text file of sizes ({error})") from error
    numbered = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, 1) if any(row)]
    names = numbered[0][1] if numbered else []
    if len(numbered) < 2 or not all(names) or any(map(_is_size, names)) or len(set(names)) < len(names):  # noqa: PLR2004
        raise LoadError(
            f"load.shapes={file}: begins with no header and rows of sizes; name the dimensions in the first line, as "
            "seq or h,w"
        )
    columns = sorted(range(len(names)), key=names.__getitem__)
    sizes = []
    for number, row in numbered[1:]:
        if len(row) != len(names) or not all(map(_is_size, row)):
            raise LoadError(
                f"load.shapes={file}: line {number}: {','.join(row)!r:.60} is not {len(names)} sizes above 0"
            )
        sizes.append(tuple(int(row[column]) for column in columns))
    shapes = sorted(set(sizes), key=lambda each: (int(np.prod(each, dtype=object)), each))
    if len(shapes) > _MOST_SHAPES:
        raise LoadError(f"load.shapes={file}: has {len(shapes)} distinct shapes, and {_MOST_SHAPES} is the most")
    places = {shape: place for place, shape in enumerate(shapes)}
    return RecordedShapes(
        names=tuple(names[column] for column in columns),
        shapes=tuple(shapes),
        order=tuple(places[each] for each in sizes),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _is_size(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal() and 0 < int(cell) <= _MOST_SIZE


class ShapeDraws:
    """Give the shapes of the requests of one point, as numbers of the entries of the mix; the same each time.

    Args:
        load: its mix and seed.
        session: its clients have shapes of their own each.
        index: rung of the point.
        repeat: pass, from 0.

    Raises:
        LoadError: the file of the mix is not the one that was planned.
    """

    def __init__(self, load: LoadAxes, session: Session, index: int, repeat: int) -> None:
        assert load.shapes is not None  # noqa: S101 - ``of_point`` makes one for a mix alone; tells mypy
        self._load, self._mix = load, load.shapes
        self._path = (index + 1, repeat, communicator_of(session).rank)
        self._clients, self._streams = communicator_of(session).size, len(session.streams)
        self._intervals = 0
        self._order: NDArray[np.int16] | None = None
        if self._mix.path is not None:
            recorded = read(self._mix.path)
            if recorded.digest != self._mix.digest:
                raise LoadError(f"load.shapes={self._mix.path}: changed since the sweep was planned; start it again")
            self._order = np.array(recorded.order, dtype=np.int16)
        self.engines = np.array(load.engine_places, dtype=np.int16)

    def closed(self) -> list[NDArray[np.int16]]:
        """Return, for each stream of this client, the entries of the next interval, which come again."""
        self._intervals += 1
        rank = self._path[2]
        if self._order is not None:
            count, step = len(self._order), self._clients * self._streams
            return [
                self._order[(rank * self._streams + stream + step * np.arange(count)) % count]
                for stream in range(self._streams)
            ]
        return [self._drawn(_CLOSED_DRAWS, self._intervals, stream) for stream in range(self._streams)]

    def arrivals(self, count: int) -> NDArray[np.int16]:
        """Return the entry of each of `count` arrivals of an open loop."""
        if self._order is not None:
            rows = (self._path[2] + self._clients * np.arange(count)) % len(self._order)
            return np.asarray(self._order[rows], dtype=np.int16)
        return self._drawn(count, 0, 0)

    def _drawn(self, count: int, *path: int) -> NDArray[np.int16]:
        shares = [entry.share for entry in self._mix.entries]
        whole = np.cumsum(shares)
        values = generator(self._load.seed, _MIX, *self._path, *path).random(count) * whole[-1]
        places = np.minimum(np.searchsorted(whole, values, side="right"), len(shares) - 1)
        return np.asarray(places, dtype=np.int16)


def of_point(load: LoadAxes, session: Session, index: int, repeat: int) -> ShapeDraws | None:
    """Return the shapes of the requests of one point; None where all have that of the model."""
    return None if load.shapes is None else ShapeDraws(load, session, index, repeat)

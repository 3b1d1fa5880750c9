"""Draw how many rows each request of a pipeline has, and share out what its streams have in common."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from sweep.system import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from sweep.spec import Pipeline, Stage

_ROWS = 7002  # of the seed's children: no rung of a ladder has this number
_DRAWS = 4096  # after which the draws of a stream begin again


def drawn_rows(pipeline: Pipeline, seed: int, stream: int) -> dict[int, list[int]]:
    """Return the rows that each stage which draws them gives in each request of a stream, by the stage's number.

    Args:
        pipeline: its stages.
        seed: of the load.
        stream: number of the stream; each has draws of its own.
    """
    return {
        number: _draw(stage, generator(seed, _ROWS, number, stream))
        for number, stage in enumerate(pipeline.stages)
        if stage.rows is not None
    }


def _draw(stage: Stage, rng: np.random.Generator) -> list[int]:
    """Return draws of a Poisson distribution around the mean, from 1 to the most rows."""
    import numpy as np

    most = stage.most_rows or 1
    drawn: list[int] = np.clip(rng.poisson(stage.rows or 1.0, _DRAWS), 1, most).tolist()
    return drawn


def in_turn(draws: dict[int, list[int]]) -> dict[int, Iterator[int]]:
    """Return the draws of each stage without end, from the first."""
    return {number: itertools.cycle(rows) for number, rows in draws.items()}


def locks(pipeline: Pipeline) -> list[threading.Semaphore] | None:
    """Return what lets as many requests into each stage as it takes at a time; None where stages do not overlap."""
    if not pipeline.overlap:
        return None
    return [threading.Semaphore(stage.streams or 1) for stage in pipeline.stages]


def slices(rows: int, batch: int) -> range:
    """Return the first row of each inference of a network that takes ``batch`` rows."""
    return range(0, max(rows, 1), batch)

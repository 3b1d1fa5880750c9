"""Measure what the first inference after a change of shape costs: two shapes in turn, against staying at each."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends import SupportsPartTimes
from sweep.loadgen.issue_loops import quiet_interpreter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.backends import Session, Stream

_MOST = 50  # inferences of each kind
_LEAST = 5
_SETTLING = 2  # inferences that are not counted: the first after a pair of shapes is taken up
_PAIR_S = 1.0  # time for one pair of shapes
_TIMES = ("", "gpu_", "enqueue_")  # prefixes of the figures, in the order of ``_timed``
_COMPUTE_AND_ENQUEUE = [1, 3]  # columns of ``take_parts_ms``
_MOST_PAIRS_ALL = 4  # engines up to which every pair is measured; neighbours in size beyond it


def measure(session: Session, engines: int) -> list[dict[str, Any]]:
    """Run two shapes in turn, and each alone, one inference at a time on the first stream.

    Args:
        session: its streams run several shapes.
        engines: number of shapes.

    Returns:
        For each shape after each other one: {engine, after, stay_ms, change_ms, inferences}; the medians of its service
        time after itself and after the other, and the inferences behind each. On a stream that times the parts of an
        inference also {gpu_stay_ms, gpu_change_ms, enqueue_stay_ms, enqueue_change_ms}: the medians by the device's
        clock, without copies, and those of the host's time in the enqueue.
    """
    stream, rows = session.streams[0], []
    with quiet_interpreter():
        for one, other in _pairs(engines):
            each_ms = statistics.median(_timed(stream, [one, other] * _LEAST)[:, 0].tolist()) or 1e-6
            count = int(min(max(_PAIR_S * 1e3 / (4 * each_ms), _LEAST), _MOST))
            stays = {number: _timed(stream, [number] * (count + _SETTLING))[_SETTLING:] for number in (one, other)}
            turns = _timed(stream, [one, other] * (count + _SETTLING))[2 * _SETTLING :]
            for number, after, changed in ((one, other, turns[::2]), (other, one, turns[1::2])):
                row: dict[str, Any] = {"engine": number, "after": after, "inferences": count}
                for place, name in enumerate(_TIMES):
                    stay_ms, change_ms = (statistics.median(own[:, place].tolist()) for own in (stays[number], changed))
                    if not math.isnan(stay_ms + change_ms):
                        row |= {f"{name}stay_ms": stay_ms, f"{name}change_ms": change_ms}
                rows.append(row)
    return rows


def _pairs(engines: int) -> list[tuple[int, int]]:
    if engines <= _MOST_PAIRS_ALL:
        return list(itertools.combinations(range(engines), 2))
    return list(itertools.pairwise(range(engines)))


def _timed(stream: Stream, numbers: list[int]) -> NDArray[np.float64]:
    """Run an inference of each shape, one after the other, and return their times.

    Returns:
        Array of shape (inferences, 3), ms: from enqueue to completion by the stream's clock, then the inference alone
        by the device's clock and the host's time in the enqueue; NaN where a stream does not time parts.
    """
    clock, times = stream.clock, np.full((len(numbers), len(_TIMES)), np.nan)
    parts = stream if isinstance(stream, SupportsPartTimes) else None
    if parts is not None:
        parts.take_parts_ms()  # those of the load
    for place, number in enumerate(numbers):
        start = clock.now_ns()
        stream.enqueue_shape(number)  # type: ignore[attr-defined]  # streams of a mix have it
        stream.wait()
        times[place, 0] = (clock.now_ns() - start) / 1e6
    if parts is not None:
        times[:, 1:] = parts.take_parts_ms()[:, _COMPUTE_AND_ENQUEUE]
    return times

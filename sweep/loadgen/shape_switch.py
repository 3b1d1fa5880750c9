"""Measure what the first inference after a change of shape costs: two shapes in turn, against staying at each."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, Any

from sweep.loadgen.issue_loops import quiet_interpreter

if TYPE_CHECKING:
    from sweep.backends import Session, Stream

_MOST = 50  # inferences of each kind
_LEAST = 5
_SETTLING = 2  # inferences that are not counted: the first after a pair of shapes is taken up
_PAIR_S = 1.0  # time for one pair of shapes
_MOST_PAIRS_ALL = 4  # engines up to which every pair is measured; neighbours in size beyond it


def measure(session: Session, engines: int) -> list[dict[str, Any]]:
    """Run two shapes in turn, and each alone, one inference at a time on the first stream.

    Args:
        session: its streams run several shapes.
        engines: number of shapes.

    Returns:
        For each shape after each other one: {engine, after, stay_ms, change_ms, inferences}; the medians of its service
        time after itself and after the other, and the inferences behind each.
    """
    stream, rows = session.streams[0], []
    with quiet_interpreter():
        for one, other in _pairs(engines):
            each_ms = statistics.median(_timed(stream, [one, other] * _LEAST)) or 1e-6
            count = int(min(max(_PAIR_S * 1e3 / (4 * each_ms), _LEAST), _MOST))
            stays = {number: _timed(stream, [number] * (count + _SETTLING))[_SETTLING:] for number in (one, other)}
            turns = _timed(stream, [one, other] * (count + _SETTLING))[2 * _SETTLING :]
            for number, after, changed in ((one, other, turns[::2]), (other, one, turns[1::2])):
                rows.append(
                    {
                        "engine": number,
                        "after": after,
                        "stay_ms": statistics.median(stays[number]),
                        "change_ms": statistics.median(changed),
                        "inferences": count,
                    }
                )
    return rows


def _pairs(engines: int) -> list[tuple[int, int]]:
    if engines <= _MOST_PAIRS_ALL:
        return list(itertools.combinations(range(engines), 2))
    return list(itertools.pairwise(range(engines)))


def _timed(stream: Stream, numbers: list[int]) -> list[float]:
    """Return the time from enqueue to completion of an inference of each shape, one after the other, ms."""
    clock, times = stream.clock, []
    for number in numbers:
        start = clock.now_ns()
        stream.enqueue_shape(number)  # type: ignore[attr-defined]  # streams of a mix have it
        stream.wait()
        times.append((clock.now_ns() - start) / 1e6)
    return times

"""Mark what a worker does by NVTX ranges: variant, stage, point and inference.

Nothing is replaced and nothing is called in the timed loop unless a profiler is attached.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sweep.backends import Session
    from sweep.runner.worker.events import Events
    from sweep.system import Ranges

MEASURE = "measure"  # the stage whose details are points


class StageRanges:
    """Mark a variant, its current stage and, while it is measured, the current point.

    Args:
        ranges: mark ranges.
        label: name of the variant.
    """

    def __init__(self, ranges: Ranges, label: str) -> None:
        self._ranges = ranges
        self._open: list[str] = []
        self._enter(f"variant {label}")

    def stage(self, name: str, detail: str = "") -> None:
        """Tell that stage `name` starts; of the measured stage, that the point `detail` does."""
        names = [f"stage {name}", *([f"point {detail}"] if name == MEASURE and detail else [])]
        if self._open[1:] != names:
            self._leave(1)
            for each in names:
                self._enter(each)

    def close(self) -> None:
        """End all ranges; a second call does nothing."""
        self._leave(0)

    def _enter(self, name: str) -> None:
        self._ranges.push(name)
        self._open.append(name)

    def _leave(self, remaining: int) -> None:
        while len(self._open) > remaining:
            self._open.pop()
            self._ranges.pop()


@contextmanager
def marked_stages(events: Events, label: str, ranges: Ranges | None) -> Iterator[None]:
    """Mark the variant `label`, its stages and points within the context; without `ranges` nothing is called."""
    if ranges is None:
        yield
        return
    stages = StageRanges(ranges, label)
    events.on_stage = stages.stage
    try:
        yield
    finally:
        events.on_stage = None
        stages.close()


@contextmanager
def marked_inferences(session: Session, ranges: Ranges | None) -> Iterator[None]:
    """Mark every enqueue of the session's streams within the context by a range; without `ranges` nothing changes.

    The range covers the host's enqueue; a profiler draws what the GPU does for it below that range's projection.
    """
    if ranges is None:
        yield
        return
    streams: list[Any] = list(session.streams)
    for number, stream in enumerate(streams):
        stream.enqueue = _marked(stream.enqueue, ranges, f"stream {number} " if len(streams) > 1 else "")
    try:
        yield
    finally:
        for stream in streams:
            del stream.enqueue  # the method of the class is seen again


def _marked(enqueue: Callable[..., None], ranges: Ranges, prefix: str) -> Callable[..., None]:
    numbers = itertools.count()

    def call(samples: int | None = None) -> None:
        ranges.push(f"{prefix}inference {next(numbers)}")
        try:
            enqueue(samples)
        finally:
            ranges.pop()

    return call

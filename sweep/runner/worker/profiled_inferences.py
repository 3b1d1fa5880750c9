"""Run inferences of one loaded engine below a profiler: ``python -m sweep.runner.worker.profiled_inferences FILE``.

FILE holds a ``ProfileRequest``. The engine comes from the cache, so that nothing is built; loading and warm-up come
before the range that the profiler captures. The answer is written beside FILE.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.backends import SupportsProfilerCapture, registry
from sweep.errors import CacheError, SweepError, error_line
from sweep.runner import messages
from sweep.runner.worker.artifacts import Artifacts
from sweep.runner.worker.measure import timed_inputs
from sweep.storage.cache import Cache
from sweep.system import file_trust, nvtx_ranges, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.backends import Session
    from sweep.runner.messages import ProfileRequest
    from sweep.spec import JsonDict, Variant
    from sweep.system import Ranges

ANSWER = "inferences.json"
FAILURE = "sweep-profile: "  # begins the line that tells the parent why this process failed
FAILED = 3


def main(arguments: list[str]) -> int:
    """Run the request of the file that `arguments` name; return the exit code."""
    file_trust.restrict()
    path = Path(arguments[0])
    try:
        request = messages.decode(regular_files.read_bytes(path, follow=False), messages.ProfileRequest)
        answer = run(request)
    except (SweepError, OSError) as error:
        sys.stderr.write(f"{FAILURE}{error_line(error)}\n")
        return FAILED
    write_atomic(path.with_name(ANSWER), json.dumps(answer, indent=1).encode())
    return 0


def run(request: ProfileRequest) -> JsonDict:
    """Load the engine, warm it up, and run the inferences that the profiler captures.

    Returns:
        {nvtx, inferences, streams, round_us, cuda_graph}: what marked the ranges (None for nothing), inferences of each
        stream within the capture, streams that ran at the same time, and the median time of one inference on every
        stream, us.

    Raises:
        CacheError: the engine is not in the cache.
        SessionError: it cannot be loaded or run.
    """
    variant, backend = request.variant, registry.get(request.variant.backend)
    if request.eager:
        variant = dataclasses.replace(variant, session=dataclasses.replace(variant.session, cuda_graph=False))
    ranges = nvtx_ranges.load_ranges()
    marks = ranges or nvtx_ranges.NO_RANGES
    with Cache(request.cache) as cache:
        entry = cache.get("engines", request.engine, _missing)
        artifacts = Artifacts(onnx=None, engine=entry, model=None)
        with marks.range(f"variant {variant.label}", "stage load"):
            feeds = timed_inputs(variant, backend, artifacts).batches[0]
            session = backend.load(entry.path, entry.info, variant, feeds)
        try:
            with marks.range(f"variant {variant.label}", "stage warm-up"):
                _rounds(session, nvtx_ranges.NO_RANGES, request.warmup)
            # Ranges that began before the capture are not in the report, so they are pushed again within it.
            with _capture(session), marks.range(*_names(variant)):
                times_us = _rounds(session, marks, request.inferences)
        finally:
            session.close()
    return {
        "nvtx": None if ranges is None else ranges.provider,
        "inferences": request.inferences,
        "streams": variant.session.streams,
        "round_us": statistics.median(times_us),
        "cuda_graph": session.realised.get("cuda_graph"),
    }


def _names(variant: Variant) -> tuple[str, str, str]:
    return f"variant {variant.label}", "stage measure", "point one inference at a time on each stream"


def _missing(folder: Path) -> JsonDict:
    raise CacheError(f"engine {folder.name} is not in the cache, and nothing is built below a profiler")


@contextmanager
def _capture(session: Session) -> Iterator[None]:
    """Let an attached profiler record what is within; a session without a GPU is recorded whole."""
    if not isinstance(session, SupportsProfilerCapture):
        yield
        return
    session.start_profiler()
    try:
        yield
    finally:
        session.stop_profiler()


def _rounds(session: Session, marks: Ranges, count: int) -> list[float]:
    """Run `count` inferences on every stream at the same time; return the time of each round, us."""
    times_us = []
    for number in range(count):
        start = time.perf_counter_ns()
        with marks.range(f"inference {number}"):
            for stream in session.streams:
                stream.enqueue()
            for stream in session.streams:
                stream.wait()
        times_us.append((time.perf_counter_ns() - start) / 1e3)
    return times_us


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

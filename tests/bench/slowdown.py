"""Make the inferences of one batch slower in a worker, by a share of their own time; and hide libraries.

On a CPU a stream spins after each inference. On a GPU a spinning host would hide behind what is in flight, so that a
share of the inferences is enqueued twice: the device works longer by that share.
"""

import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from typing import Any

SHARE, BATCH = "SWEEP_CAMPAIGN_SLOWER", "SWEEP_CAMPAIGN_BATCH"  # set for the workers of a slowed measurement
BLOCKED = "SWEEP_CAMPAIGN_BLOCKED"  # modules that cannot be imported, separated by commas


_ROUNDS, _CALLS = 30, 200  # of the measurement of what a spin costs


class Blocker(MetaPathFinder):
    """Refuse to import modules, as if they were not installed.

    Args:
        names: of the top packages.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise for a module that is blocked; leave the others to the next finder."""
        if fullname.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {fullname!r} (blocked)", name=fullname)


def extra_time(share: float) -> float:
    """Return the further time of an inference, as a share of its own, that lowers the throughput by `share`."""
    return share / (1 - share)


def spinning(run: Callable[..., Any], extra: float) -> Callable[..., Any]:
    """Return `run` followed by a spin of `extra` times what it took, less what the spin itself costs."""
    return _spinning(run, extra, _overhead_ns())


def _spinning(run: Callable[..., Any], extra: float, overhead_ns: float) -> Callable[..., Any]:
    now = time.perf_counter_ns

    def slowed(*args: Any) -> Any:
        start = now()
        answer = run(*args)
        end = now()
        due = end + extra * (end - start) - overhead_ns
        while now() < due:
            pass
        return answer

    return slowed


def _overhead_ns() -> float:
    """Measure what a spin of no time adds to a call, ns."""

    def nothing() -> None:
        pass

    best = {}
    for call in (nothing, _spinning(nothing, 0.0, 0.0)):
        times = []
        for _ in range(_ROUNDS):
            start = time.perf_counter_ns()
            for _ in range(_CALLS):
                call()
            times.append((time.perf_counter_ns() - start) / _CALLS)
        best[call] = min(times)
    plain, spun = best.values()
    return spun - plain


def repeating(launch: Callable[[], Any], extra: float) -> Callable[[], Any]:
    """Return `launch`, of which a share of `extra` runs twice."""
    owed = 0.0

    def slowed() -> Any:
        nonlocal owed
        owed += extra
        if owed >= 1:
            owed -= 1
            launch()  # an error of it is an error of the stream, which the next one returns
        return launch()

    return slowed


def slow_down(share: float, batch: int) -> None:
    """Patch the streams of this process, so that the throughput of sessions of `batch` falls by `share`."""
    from sweep.backends.onnxruntime import session
    from sweep.backends.tensorrt import execution_context, stream

    extra = extra_time(share)
    start_ort, start_context = session.OnnxRuntimeStream.__init__, execution_context.ExecutionContext.__init__
    add_launch, is_slowed = stream.TensorRTStream.add, False

    def start_ort_stream(self: Any, ort_session: Any, feeds: Any, *args: Any) -> None:
        start_ort(self, ort_session, feeds, *args)
        if _batch(feeds) == batch:
            self._run = spinning(self._run, extra)

    def start_execution_context(self: Any, engine: Any, cuda: Any, resources: Any, axes: Any, feeds: Any, *args: Any):
        nonlocal is_slowed
        is_slowed = _batch(feeds) == batch
        start_context(self, engine, cuda, resources, axes, feeds, *args)

    def add(self: Any, samples: Any, launch: Any, copies: Any) -> None:
        add_launch(self, samples, repeating(launch, extra) if is_slowed else launch, copies)

    session.OnnxRuntimeStream.__init__ = start_ort_stream  # type: ignore[method-assign]
    execution_context.ExecutionContext.__init__ = start_execution_context  # type: ignore[method-assign]
    stream.TensorRTStream.add = add  # type: ignore[method-assign]


def _batch(feeds: Any) -> int:
    """Return the batch of the first input."""
    shape = next(iter(feeds.values())).shape
    return int(shape[0]) if shape else 1

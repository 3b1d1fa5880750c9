"""What the load generator itself costs: its own code, whole, on the host's clock, over streams that do nothing.

    make bench
    python tests/bench/generator.py --windows 20 --lag-us 50

Two figures are held to a mark: requests/s that one process sustains, and issue lag at p99 (issued - due of requests
that found a free stream) at 5,000 requests/s, with a thread a stream and with one thread that polls all of them. A
machine that does other work adds its own delays, so the lag is taken in several windows; all are shown, with the load
average, and their median is judged. Exit code 1 where a mark is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from sweep.analysis import measured_window
from sweep.backends import PreparedCalls
from sweep.backends.clock import RealClock
from sweep.loadgen import compiled_loop
from sweep.loadgen.load_point import Place, open_point
from sweep.spec import LoadAxes

SUSTAINED_RPS = 50_000
COMPILED_RPS = 1_000_000
LAG_RPS = 5_000
_FLAT_OUT_RPS = 1e9  # all requests are due at once
_KEPT_UP = 0.99  # of the offered rate
_JUDGED_STREAMS = 2  # more share two cores, as they would not in earnest


class NullStream:
    """Completes at once and does nothing."""

    max_depth = 1

    def __init__(self) -> None:
        self.clock = RealClock()

    def enqueue(self, samples: int | None = None) -> None:
        """Nothing."""

    def wait(self) -> None:
        """Nothing."""


class PolledStream(NullStream):
    """As ``NullStream``, for the loop in which one thread asks all streams."""

    spins = True

    def poll(self) -> bool:
        """Always complete."""
        return True


class CompiledStream(NullStream):
    """As ``NullStream``, for the compiled loops: every call is ``memcmp`` of no bytes."""

    def prepared_calls(self) -> PreparedCalls:
        """Record, launch, record, each of which does nothing and succeeds."""
        nothing = ctypes.cast(ctypes.CDLL(None).memcmp, ctypes.c_void_p).value or 0
        call = [nothing, 0, 0, 0, 0]
        return PreparedCalls(
            calls={None: np.array([[call] * 3] * 9, dtype=np.int64)},
            launch=1,
            events=np.zeros((9, 2), dtype=np.int64),
            synchronise=nothing,
            query=nothing,
            not_ready=1,
            elapsed=nothing,
            enter=(0, 0),
            number=0,
        )

    def adopt(self, counts, gpu_ms, host_ns) -> None:
        """Nothing is kept."""

    def fail_call(self, call: str, error: int) -> None:
        """No call fails."""
        raise AssertionError(call, error)


@dataclass
class NullSession:
    """Streams that do nothing, so that what is measured is the generator."""

    streams: list[NullStream]
    virtual: bool = False
    partial_batches: bool = True
    realised: dict[str, object] = field(default_factory=dict)
    engine_facts: dict[str, object] = field(default_factory=dict)

    def prepare(self, sizes) -> None:
        """Nothing is to be made ready."""


@dataclass(frozen=True)
class Found:
    """One open-loop point over streams that do nothing."""

    cost_us: float
    achieved_rps: float
    lag_us: float | None
    latency_us: tuple[float, float]  # p50, p99 from the scheduled arrival


def measure(
    rate_rps: float,
    seconds: float,
    streams: int,
    *,
    gather: int = 1,
    seed: int = 0,
    kind: type[NullStream] = NullStream,
) -> Found:
    """Poisson arrivals at ``rate_rps`` for ``seconds``."""
    count = max(round(rate_rps * seconds), 1) if rate_rps < _FLAT_OUT_RPS else round(seconds * 500_000)
    load = LoadAxes(
        kind="poisson",
        warmup_s=min(0.1, 0.1 * seconds) if rate_rps < _FLAT_OUT_RPS else 0.0,
        min_s=1e-9,
        min_requests=count,
        max_s=1e9,
        max_wait_s=1e9,
        seed=seed,
        batch_wait_ms=0.2 if gather > 1 else None,
    )
    session = NullSession([kind() for _ in range(streams)])
    point = open_point(session, load, rate_rps, Place(index=0, repeat=0, batch=gather))
    keep = point.measured
    issued, done = point.issued_ns[keep], point.done_ns[keep]
    lag = measured_window.issue_lag_ms([point])
    span_s = (int(done.max()) - int(issued.min())) / 1e9
    latency = np.sort(point.latency_ms) * 1e3
    return Found(
        cost_us=span_s * 1e6 / len(done),
        achieved_rps=len(done)
        / max(span_s, (int(point.scheduled_ns[keep].max() - point.scheduled_ns[keep].min())) / 1e9),
        lag_us=None if lag is None else lag * 1e3,
        latency_us=(float(latency[len(latency) // 2]), float(latency[int(len(latency) * 0.99)])),
    )


def say(line: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def crowd() -> str:
    """How busy this machine is by itself."""
    return f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}"


def flat_out(seconds: float) -> None:
    """The cost of one request where none is waited for."""
    say(f"Cost of a request, all of them due at once ({crowd()}):")
    for streams, gather in ((1, 1), (2, 1), (4, 1), (1, 8), (2, 8)):
        best = min(
            (measure(_FLAT_OUT_RPS, seconds, streams, gather=gather) for _ in range(3)), key=lambda it: it.cost_us
        )
        how = f"gathered to {gather}" if gather > 1 else "one at a time"
        say(f"  {streams} streams, {how}: {best.cost_us:.2f} us, {1e6 / best.cost_us:,.0f} requests/s")


def sustained(seconds: float) -> bool:
    """Whether one process keeps up with ``SUSTAINED_RPS`` on one stream, and what it does at other rates."""
    say(f"\nPoisson arrivals for {seconds:g} s ({crowd()}):")
    met = False
    for streams, gather in ((1, 1), (2, 1), (1, 8)):
        for rate in (SUSTAINED_RPS, 2 * SUSTAINED_RPS, 4 * SUSTAINED_RPS):
            found = measure(rate, seconds, streams, gather=gather)
            kept = found.achieved_rps >= _KEPT_UP * rate
            met = met or (kept and streams == gather == 1)
            p50, p99 = found.latency_us
            say(
                f"  {streams} streams{f', gathered to {gather}' if gather > 1 else ''}, {rate:,}/s offered: "
                f"{found.achieved_rps:,.0f}/s done, latency p50 {p50:.1f} us, p99 {p99:.1f} us"
                f"{'' if kept else '  FELL BEHIND'}"
            )
    say(f"  mark: {SUSTAINED_RPS:,} requests/s sustained by one process: {'met' if met else 'MISSED'}")
    return met


def compiled(seconds: float) -> bool:
    """Whether the compiled loop sustains ``COMPILED_RPS``, one stream or several; a core each."""
    say(f"\nCompiled loop, Poisson arrivals for {seconds:g} s ({crowd()}):")
    if compiled_loop.load() is None and not compiled_loop.is_available():
        say("  not measured: numba is not installed")
        return True
    met = False
    for streams in range(1, min(len(os.sched_getaffinity(0)) - 1, 4) + 1):
        for rate in (COMPILED_RPS // 10, COMPILED_RPS, _FLAT_OUT_RPS):
            found = measure(rate, seconds, streams, kind=CompiledStream)
            kept = found.achieved_rps >= _KEPT_UP * rate
            met = met or (kept and rate == COMPILED_RPS)
            offered = "all due at once" if rate == _FLAT_OUT_RPS else f"{rate:,}/s offered"
            say(
                f"  {streams} streams, {offered}: {found.achieved_rps:,.0f}/s done, latency p50 "
                f"{found.latency_us[0]:.1f} us, lag p99 {found.lag_us or 0.0:.1f} us"
            )
    say(f"  mark: {COMPILED_RPS:,} requests/s sustained by one process: {'met' if met else 'MISSED'}")
    return met


def lags(windows: int, seconds: float, mark_us: float) -> bool:
    """Whether the median window is within the mark at ``LAG_RPS``, on one and two streams, however they are driven."""
    met = True
    for kind, driven in ((NullStream, "a thread a stream"), (PolledStream, "one thread for all")):
        for streams, rate in itertools.product((1, 2, 4), (LAG_RPS // 10, LAG_RPS)):
            found = [measure(rate, seconds, streams, seed=seed, kind=kind).lag_us or 0.0 for seed in range(windows)]
            judged = rate == LAG_RPS and streams <= _JUDGED_STREAMS
            held = statistics.median(found) <= mark_us
            met = met and (held or not judged)
            say(
                f"  {driven}, {streams} streams, {rate:,} requests/s: median {statistics.median(found):.0f} us, "
                f"calmest {min(found):.0f}, worst {max(found):.0f}{'' if held else '  OVER'}"
            )
    say(f"  mark: {mark_us:g} us on one and two streams at {LAG_RPS:,}/s: {'met' if met else 'MISSED'}")
    return met


def main() -> None:
    """Print the figures; exit code 1 where a mark is missed."""
    parser = argparse.ArgumentParser(description="What the load generator itself costs.")
    parser.add_argument("--windows", type=int, default=5, help="windows of the issue lag")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window")
    parser.add_argument("--lag-us", type=float, default=100.0, help="mark for the issue lag at p99, us")
    asked = parser.parse_args()
    start = time.perf_counter()
    flat_out(0.4)
    kept_up = sustained(asked.seconds) and compiled(asked.seconds / 2)
    say(f"\nIssue lag at p99, {asked.windows} windows of {asked.seconds:g} s ({crowd()}):")
    on_time = lags(asked.windows, asked.seconds, asked.lag_us)
    say(f"\n{time.perf_counter() - start:.0f} s in all.")
    sys.exit(0 if kept_up and on_time else 1)


if __name__ == "__main__":
    main()

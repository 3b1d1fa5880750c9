"""Runs of our generator and of MLPerf LoadGen on one onnxruntime session, in turn; what each found.

Rounds are interleaved: each holds one run of each tool at every rate, in alternating order, with its own seeds.
A pair in which the inference itself was slowed by other programs is measured again, by one rule for both tools.
"""

import functools
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

import mlperf
import numpy as np

from sweep import models
from sweep.analysis import percentiles as stats
from sweep.analysis.measured_window import window_ips
from sweep.analysis.verdicts import open_verdict
from sweep.backends import registry
from sweep.loadgen import issue_loops, open_loop
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, closed_point, open_point
from sweep.runner.worker import artifacts, model_files
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Variant

BATCH = 64  # tiny_cnn takes 1 to 3 ms
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
ROUNDS, MOST_ROUNDS, MOST_S = 5, 8, 540
WINDOW_S = 2.5
FLOOR = 0.01
SLOWED, STALLED = 1.08, 6.0  # a disturbed run: its mean and its longest inference, in medians of the calm closed loop
LATE, LATE_SHARE = 0.5, 0.03  # and one where more than this share of the idle server's requests began that much late


@dataclass
class Both:
    """What both tools found, by what was compared and percentile, one entry a round.

    Attributes:
        ours: our figures.
        theirs: LoadGen's, as it prints them.
        start_cost: time between arrival and start where the server was free, ms, in LoadGen's runs.
        wrong: our figures with a timer that runs from the send.
        same: our figures and LoadGen's under the very same arrivals.
        handover: time between two inferences where requests wait, ms, under those arrivals.
        explained: each figure under those arrivals over the one that a first-in-first-out queue gives.
        peak_rps: closed loop, requests/s.
        service_ms: median inference of the closed loop.
        rounds: how many were calm.
        thrown_away: runs of a pair of tools that were disturbed.
    """

    ours: dict = field(default_factory=lambda: defaultdict(list))
    theirs: dict = field(default_factory=lambda: defaultdict(list))
    start_cost: dict = field(default_factory=lambda: defaultdict(list))
    wrong: dict = field(default_factory=lambda: defaultdict(list))
    same: dict = field(default_factory=lambda: defaultdict(list))
    handover: dict = field(default_factory=lambda: defaultdict(list))
    explained: dict = field(default_factory=lambda: defaultdict(list))
    peak_rps: float = 0.0
    service_ms: float = 0.0
    rounds: int = 0
    thrown_away: int = 0


class DisturbedError(Exception):
    """Other programs took the processor."""


class Bench:
    """The session, what its calm is, and what both tools found on it."""

    def __init__(self, session, fractions, folder) -> None:
        self.session = session
        self.fractions = fractions
        self.stream = session.streams[0]
        self.folder = folder
        self.runs = 0
        self.until_s = time.monotonic() + MOST_S
        issue_loops._precise_sleep()
        calm = [self._closed(seed) for seed in range(5)]
        self.found = Both(
            peak_rps=max(window_ips(point) for point in calm),
            service_ms=min(float(np.median(point.latency_ms)) for point in calm),
        )

    def round(self, number) -> bool:
        """Every comparison once; False if no calm was found in time."""
        pairs = [functools.partial(self._server, fraction) for fraction in self.fractions]
        for pair in (*pairs, self._single_stream, self._offline):
            if not self._calmly(pair, number):
                return False
        self.found.rounds += 1
        return True

    def _calmly(self, pair, number) -> bool:
        while time.monotonic() < self.until_s:
            try:
                self._glance()
                pair(number)
            except DisturbedError:
                self.found.thrown_away += 1
            else:
                return True
        return False

    def _glance(self) -> None:
        """A fifth of a second that tells whether a pair is worth starting now."""
        load = LoadAxes(kind="closed", depth=1, warmup_s=0.0, min_s=0.2, min_requests=1, max_s=1.0)
        try:
            self._undisturbed(closed_point(self.session, load, Place(index=-1, repeat=0, batch=1)).latency_ms)
        except DisturbedError:
            time.sleep(0.5)
            raise

    def _server(self, fraction, number) -> None:
        rate = fraction * self.found.peak_rps
        queries = max(stats.min_count(0.99), round(rate * WINDOW_S))
        runs = [lambda: self._open(rate, queries, number), lambda: self._theirs("Server", rate, queries, number)]
        results = [run() for run in (runs if number % 2 else runs[::-1])]
        point, said = results if number % 2 else results[::-1]
        replayed = self._replayed(said.scheduled_ns) if fraction == max(self.fractions) else None
        found = self.found
        keep(found.ours, fraction, point.latency_ms)
        keep(found.wrong, fraction, service_ms(point))
        put(found.theirs, fraction, said.percentiles_ms)
        found.start_cost[fraction].append(said.start_cost_ms)
        if replayed is not None:
            self._same("ours", said.scheduled_ns, *replayed)
            self._same("LoadGen", said.scheduled_ns, said.latency_ms, said.service_ms)

    def _same(self, tool, scheduled_ns, latency_ms, took_ms) -> None:
        """Hold latencies against a first-in-first-out queue of the same arrivals and the same inferences."""
        arrived_ms = scheduled_ns / 1e6
        done_ms = arrived_ms + latency_ms
        before_ms = np.r_[-np.inf, done_ms[:-1]]
        free = arrived_ms > before_ms
        over_ms = done_ms - np.maximum(arrived_ms, before_ms) - took_ms
        usual_ms = float(np.median(over_ms[free])), float(np.median(over_ms[~free]))
        keep(self.found.same, tool, latency_ms)
        self.found.handover[tool].append(usual_ms[1])
        ordered = np.sort(latency_ms), np.sort(queued_ms(arrived_ms, took_ms, *usual_ms))
        for name, share in SHARES.items():
            seen, expected = (stats.percentile(values, share) for values in ordered)
            self.found.explained[tool, name].append(seen / expected)

    def _single_stream(self, number) -> None:
        point = self._calm_closed(number)
        said = self._theirs("SingleStream", self.found.peak_rps, 662, number)
        keep(self.found.ours, "SingleStream", point.latency_ms)
        put(self.found.theirs, "SingleStream", said.percentiles_ms)
        self.found.start_cost["SingleStream"].append(said.start_cost_ms)

    def _offline(self, number) -> None:
        point = self._calm_closed(number)
        said = self._theirs("Offline", 1.2 * self.found.peak_rps, 662, number)
        self.found.ours["Offline", "rps"].append(window_ips(point))
        self.found.theirs["Offline", "rps"].append(said.number("Samples per second"))

    def _undisturbed(self, took_ms, late_ms=()) -> None:
        """Raise unless inferences took the usual time, and requests that found the server free were started at once."""
        usual = self.found.service_ms
        if np.mean(took_ms) > SLOWED * usual or np.max(took_ms) > STALLED * usual:
            raise DisturbedError
        if len(late_ms) and np.mean(np.asarray(late_ms) > LATE * usual) > LATE_SHARE:
            raise DisturbedError

    def _theirs(self, scenario, rate_rps, queries, seed):
        self.runs += 1
        said = mlperf.run(self.stream, scenario, rate_rps, queries, 1000 + seed, self.folder / str(self.runs))
        self._undisturbed(said.service_ms, said.late_ms if scenario == "Server" else ())
        assert "Result is : VALID" in said.summary
        assert len(said.service_ms) == len(said.latency_ms) >= queries
        return said

    def _closed(self, seed):
        load = LoadAxes(kind="closed", depth=1, warmup_s=0.2, min_s=1.0, min_requests=662, max_s=20.0, seed=seed)
        return closed_point(self.session, load, Place(index=-1, repeat=0, batch=1))

    def _calm_closed(self, seed):
        point = self._closed(seed)
        self._undisturbed(point.latency_ms)
        return point

    def _open(self, rate_rps, queries, seed):
        load = LoadAxes(kind="poisson", warmup_s=0.1, min_s=0.1, min_requests=queries, max_s=60.0, seed=seed)
        point = open_point(self.session, load, rate_rps, Place(index=0, repeat=0, batch=1))
        self._undisturbed(service_ms(point), late_ms(point))
        if open_verdict([point])[0] not in {"ok", "unstable"}:  # the generator, or both it and the stream, were held up
            raise DisturbedError
        return point

    def _replayed(self, scheduled_ns):
        """Latencies of our generator under a given schedule, and how long each inference took, ms."""
        origin = latest_now_ns(self.session) + 100_000_000
        waiting = open_loop.Queue((scheduled_ns + origin).tolist(), 60_000_000_000)
        issue_loops.run([open_loop.OpenServer(self.stream, waiting, 0)], virtual=False)
        issued, done, due = (np.array(each) for each in (waiting.issued, waiting.done, waiting.due))
        self._undisturbed((done - issued) / 1e6)
        return (done - due) / 1e6, (done - issued) / 1e6


def late_ms(point):
    """How late each request was started that found the stream free."""
    return (point.issued_ns - point.scheduled_ns)[point.measured & point.slot_free] / 1e6


def queued_ms(arrived_ms, took_ms, start_ms, handover_ms):
    """Time in a first-in-first-out queue with one server (Lindley's recursion).

    ``start_ms`` is added where the server was free, ``handover_ms`` where it was not.
    """
    out, free_ms = [], -np.inf
    for arrived, took in zip(arrived_ms, took_ms, strict=True):
        free_ms = arrived + start_ms + took if arrived > free_ms else free_ms + handover_ms + took
        out.append(free_ms - arrived)
    return np.array(out)


def service_ms(point):
    """What a timer that runs from the send would call the latency."""
    return (point.done_ns - point.issued_ns)[point.measured] / 1e6


def measured(session, fractions, folder) -> Both:
    """Rounds until their ranges meet, as many as are allowed, or until time is up."""
    bench = Bench(session, fractions, folder)
    found = bench.found
    while found.rounds < ROUNDS or (found.rounds < MOST_ROUNDS and apart(found)):
        if not bench.round(found.rounds):
            break
    return found


def keep(into, what, latency_ms) -> None:
    ordered = np.sort(latency_ms)
    put(into, what, {name: stats.percentile(ordered, share) for name, share in SHARES.items()})


def put(into, what, percentiles) -> None:
    for name in SHARES:
        into[what, name].append(percentiles[name])


def agree(ours, theirs, cost_ms=0.0) -> bool:
    """Whether the ranges over the rounds meet, or miss each other by under 1%, once LoadGen's start cost is taken off.

    The 1% is for SingleStream's median alone: its range is 0.01 ms wide, and the same call takes that much longer
    beside LoadGen's logging.
    """
    theirs = [value - cost_ms for value in theirs]
    return min(ours) <= max(theirs) * (1 + FLOOR) and min(theirs) <= max(ours) * (1 + FLOOR)


def cost_of(found, key) -> float:
    return statistics.median(found.start_cost[key[0]]) if key[0] in found.start_cost else 0.0


def apart(found) -> list:
    return [key for key in found.ours if not agree(found.ours[key], found.theirs[key], cost_of(found, key))]


def session_of(cache):
    backend = registry.get("onnxruntime")
    model = ModelRef(name="tiny_cnn", revision=models.zoo.entry("tiny_cnn").revision)
    onnx = OnnxAxes(model=model, precision=Precision(name="fp32", dtype="fp32"))
    asked = Variant(backend=backend.name, onnx=onnx, engine=EngineAxes(batch=BATCH))
    entry = artifacts.build_engine(asked, backend, model_files.model_file(asked, cache), cache)
    return backend.load(entry.path, entry.info, asked, models.draw(models.signature(model), BATCH, 0))


def show(found) -> None:
    lines = [
        f"\npeak {found.peak_rps:.1f}/s, median inference {found.service_ms:.3f} ms, medians [range]",
        f"{found.rounds} rounds, {found.thrown_away} pairs thrown away",
    ]
    for key, ours in found.ours.items():
        wrong = found.wrong.get(key)
        lines.append(
            f"{key[0]!s:>12} {key[1]:>4}  ours {said(ours)}  LoadGen {said(found.theirs[key])}  "
            f"start cost {cost_of(found, key):.3f}  {'' if wrong is None else f'from the send {said(wrong)}'}"
        )
    for tool, handover in found.handover.items():
        lines += [
            f"same arrivals {name}: {tool} {said(found.same[tool, name])}, "
            f"over a queue with {statistics.median(handover):.3f} ms of hand-over {said(found.explained[tool, name])}"
            for name in SHARES
        ]
    print("\n".join(lines))  # noqa: T201 - the table of docs/evidence/loadgen.md


def said(values) -> str:
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"

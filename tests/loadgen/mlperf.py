"""MLPerf LoadGen driving one stream of a session of ours, in this process."""

import json
import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlperf_loadgen as lg
import numpy as np
from numpy.typing import NDArray

from sweep.backends.base import Stream
from sweep.loadgen import issue_loops

SUMMARY, TRACE = "mlperf_log_summary.txt", "mlperf_log_trace.json"
SAMPLE = '{"name":"Sample","cat":"default","ph":"b"'
PRINTED = {"p50": "50.00", "p90": "90.00", "p99": "99.00"}


@dataclass(frozen=True)
class Said:
    """What LoadGen said of one run.

    Attributes:
        summary: its summary file.
        scheduled_ns: scheduled arrival of each query after the start of the run, from its trace.
        latency_ms: latency of each query, from its trace, in the order of arrival.
        service_ms: how long each inference took, by our clock around the same call that our own generator makes.
    """

    summary: str
    scheduled_ns: NDArray[np.int64]
    latency_ms: NDArray[np.float64]
    service_ms: NDArray[np.float64]

    def number(self, label: str) -> float:
        """A figure of the summary."""
        found = re.search(rf"^{re.escape(label)}\s*: ([\d.]+)$", self.summary, re.MULTILINE)
        assert found, f"no {label!r} in {self.summary}"
        return float(found[1])

    @property
    def percentiles_ms(self) -> dict[str, float]:
        """p50, p90 and p99 as LoadGen prints them."""
        return {name: self.number(f"{text} percentile latency (ns)") / 1e6 for name, text in PRINTED.items()}

    @property
    def late_ms(self) -> NDArray[np.float64]:
        """Latency less service of the queries that found the server free: wake-up and hand-over."""
        done_ms = self.scheduled_ns / 1e6 + self.latency_ms
        free = np.r_[True, self.scheduled_ns[1:] / 1e6 > done_ms[:-1]]
        return (self.latency_ms - self.service_ms)[free]

    @property
    def start_cost_ms(self) -> float:
        """The usual of these."""
        return float(np.median(self.late_ms))


@dataclass
class System:
    """The system under test: one stream, first in, first out.

    LoadGen's Server scenario wants ``issue`` to return at once, so a thread of its own serves; the two others
    wait for the answer anyway and are served where they are issued.
    """

    stream: Stream
    threaded: bool
    service_ms: list[float] = field(default_factory=list)
    _waiting: queue.SimpleQueue[list[int] | None] = field(default_factory=queue.SimpleQueue)

    def issue(self, samples: Sequence[lg.QuerySample]) -> None:
        take = self._waiting.put if self.threaded else self._serve
        take([sample.id for sample in samples])

    def _serve(self, numbers: list[int]) -> None:
        stream, now_ns = self.stream, self.stream.clock.now_ns
        for number in numbers:
            start = now_ns()
            stream.enqueue()
            stream.wait()
            end = now_ns()
            lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0)])
            self.service_ms.append((end - start) / 1e6)

    def _work(self) -> None:
        while (numbers := self._waiting.get()) is not None:
            self._serve(numbers)

    def during(self, test: Callable[[], None]) -> None:
        """Serve while ``test`` runs, in the quiet interpreter that our own generator measures in."""
        thread = threading.Thread(target=self._work)
        thread.start()
        with issue_loops.quiet_interpreter():
            test()
        self._waiting.put(None)
        thread.join()


def run(stream: Stream, scenario: str, rate_rps: float, queries: int, seed: int, folder: Path) -> Said:
    """One run of ``Server``, ``SingleStream`` or ``Offline``; its logs stay in ``folder``."""
    folder.mkdir(parents=True)
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries if scenario != "Offline" else 1
    settings.min_duration_ms = round(queries / rate_rps * 1000) if scenario == "Offline" else 0
    settings.server_target_qps = settings.offline_expected_qps = rate_rps
    settings.server_target_latency_ns = 60_000_000_000  # its verdict on a latency limit is not asked for
    settings.schedule_rng_seed = seed
    settings.server_coalesce_queries = False
    logs = lg.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = True
    system = System(stream, threaded=scenario == "Server")
    sut = lg.ConstructSUT(system.issue, lambda: None)
    samples = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    issue_loops._precise_sleep()  # LoadGen's sleeps and ours wake by the same rule
    try:
        system.during(lambda: lg.StartTestWithLogSettings(sut, samples, settings, logs))
    finally:
        lg.DestroySUT(sut)
        lg.DestroyQSL(samples)
    return _read(folder, system.service_ms)


def _read(folder: Path, service_ms: list[float]) -> Said:
    lines = (folder / TRACE).read_text().splitlines()  # the file as a whole is no valid JSON; its lines are
    queries = [json.loads(line.rstrip(",")) for line in lines if line.startswith(SAMPLE)]
    queries.sort(key=lambda event: event["args"]["sample_seq"])
    return Said(
        summary=(folder / SUMMARY).read_text(),
        scheduled_ns=np.array([round(event["ts"] * 1000) for event in queries], dtype=np.int64),
        latency_ms=np.array([event["args"]["complete_ns"] / 1e6 for event in queries]),
        service_ms=np.array(service_ms),
    )

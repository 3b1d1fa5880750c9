"""Run other networks beside the one that is measured: each in a process of its own, or all in this one.

The measured network starts them before its first window and stops them after its last; each then tells what it got in
those windows, which shows that it really ran meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.analysis import measured_window
from sweep.backends import registry
from sweep.errors import LoadError
from sweep.loadgen import BackgroundLoad, in_rank_order
from sweep.storage import samples_file
from sweep.system import regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sweep.backends import Session
    from sweep.loadgen import Communicator
    from sweep.runner.messages import Request
    from sweep.runner.worker.events import Events
    from sweep.spec import JsonDict, Variant
    from sweep.storage import PointSamples

    Loader = Callable[[Variant], Session]

LEAST_OVERLAP = 0.99  # of a window; below it the neighbour did not run beside the measured network
_POLL_S = 0.05
_HEARTBEAT_S = 1.0
_MOST_BYTES = 1 << 24


class Neighbours:
    """Start and stop the networks beside the measured one, seen from its process.

    Args:
        request: of the measured network.
        communicator: connects the processes; a single one where all networks are in this process.
        load_session: variant -> session, for the networks of this process.
    """

    def __init__(self, request: Request, communicator: Communicator, load_session: Loader) -> None:
        self._variant = request.variant
        self._windows_path = samples_file.windows_path(request.samples)
        self._communicator = communicator
        self._loads: list[tuple[Variant, Session, BackgroundLoad]] = []
        shared = self._variant.session.shared
        if shared is None or not shared.one_process:
            return
        for number, neighbour in enumerate(self._variant.session.beside or (), 1):
            member = spec.member(self._variant, number)
            session = load_session(member)
            load = BackgroundLoad(session, member.load, member.engine.batch, neighbour.name)
            self._loads.append((member, session, load))

    def start(self) -> None:
        """Start them; return once each has completed a request."""
        for _, _, load in self._loads:
            load.start(one_process=True)
        self._communicator.all_gather(None)
        self._communicator.all_gather(None)

    def check(self) -> None:
        """Raise what ended the load of a network in this process."""
        for _, _, load in self._loads:
            load.check()

    def stop(self, points: Sequence[PointSamples]) -> tuple[list[JsonDict], str | None]:
        """Stop them after the last window.

        Args:
            points: what was measured.

        Returns:
            What each of them tells (``realised.beside``), and how one differs from what was requested, in one line.

        Raises:
            LoadError: one of them did not run during a whole window.
        """
        windows = _windows(points)
        for _, _, load in self._loads:
            load.stop()
        write_atomic(self._windows_path, json.dumps(windows).encode(), durable=False)
        reports = [_report(member, session, load, windows) for member, session, load in self._loads]
        reports += [report for report in self._communicator.all_gather(None) if report is not None]
        self._windows_path.unlink(missing_ok=True)
        for report in reports:
            _check_overlap(report)
        mismatches = [f"{report['name']}: {report['mismatch']}" for report in reports if report["mismatch"]]
        return reports, mismatches[0] if mismatches else None

    def close(self) -> None:
        """Release the networks of this process."""
        for _, session, load in self._loads:
            with contextlib.suppress(LoadError):
                load.stop()
            session.close()
        self._loads = []


def serve(request: Request, events: Events, communicator: Communicator, load_session: Loader) -> None:
    """Run one network beside the measured one, in this process, until that is over.

    Args:
        request: of the measured network.
        events: hears that the load goes on.
        communicator: connects the processes; its rank is the number of this network.
        load_session: variant -> session.
    """
    member = spec.member(request.variant, communicator.rank)
    neighbour = (request.variant.session.beside or ())[communicator.rank - 1]
    stop = samples_file.windows_path(request.samples)
    session = in_rank_order(communicator, lambda: load_session(member))
    try:
        load = BackgroundLoad(session, member.load, member.engine.batch, neighbour.name)
        communicator.all_gather(None)  # all are loaded: a probe of the SMs meets an idle device
        load.start()
        communicator.all_gather(None)
        _wait_for(stop, load, events)
        load.stop()
        windows = [tuple(row) for row in json.loads(regular_files.read_bytes(stop, follow=False, most=_MOST_BYTES))]
        communicator.all_gather(_report(member, session, load, windows))
    finally:
        session.close()


def _wait_for(path: Path, load: BackgroundLoad, events: Events) -> None:
    """Wait until the measured network is through; tell the parent that this one still completes requests."""
    completed, told = 0, time.monotonic()
    while not path.exists():
        load.check()
        time.sleep(_POLL_S)
        if time.monotonic() - told > _HEARTBEAT_S and (load.virtual or load.completed > completed):
            completed, told = load.completed, time.monotonic()
            events.stage("measure", "beside")


def _windows(points: Sequence[PointSamples]) -> list[Any]:
    """Return rung, pass, start and end (ns) of each window in which requests were measured."""
    windows = []
    for point in points:
        window = measured_window.measured_window(point)
        if window is not None:
            windows.append((point.index, point.repeat, window[0], window[1]))
    return windows


def _report(member: Variant, session: Session, load: BackgroundLoad, windows: Sequence[Any]) -> JsonDict:
    shown = ("sm_count", "sm_reached", "sm_total", "under_mps", "contexts", "cuda_graph", "precision")
    return {
        "name": load.name,
        **{name: session.realised[name] for name in shown if name in session.realised},
        "device_memory_bytes": session.engine_facts.get("device_memory_bytes"),
        "windows": load.figures(windows),
        "mismatch": registry.get(member.backend).mismatch(member, session.realised),
    }


def _check_overlap(report: JsonDict) -> None:
    for window in report["windows"]:
        if window["overlap"] < LEAST_OVERLAP or not window["requests"]:
            place = "the closed loop" if window["index"] < 0 else f"rate {window['index'] + 1}"
            raise LoadError(
                f"{report['name']} ran for {window['overlap']:.0%} of the window of {place} and completed "
                f"{window['requests']} requests in it: it was not beside the measured network; a longer load.min_s, "
                "or a higher rate of it, gives it time"
            )

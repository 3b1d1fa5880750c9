"""The clocks of a whole sweep step: the wall clock moves no figure, a broken monotonic one costs the pass."""

from __future__ import annotations

import datetime as dt
import json
import re
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from python_path import python_path

from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Cli

    from sweep.storage.record import Record

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

HERE = Path(__file__).parent
SCRIPTED = ("-m", "batch=1,8,32", "backend=simulated", "load=quick")
HOUR_S = 3600
STEP_S = 1  # of the monotonic clock: a loop that waits for a time waits that much longer after a step back
# What steps, by the batch of the variant in which it does: seconds of CLOCK_REALTIME and CLOCK_MONOTONIC.
WALL = f"clock:{HOUR_S},0;-{2 * HOUR_S},0"  # forward, then further back
FORWARD, BACK = f"clock:0,{STEP_S}", f"clock:0,-{STEP_S}"
STEPS = {
    "1": (WALL, "point or search"),
    "2": (FORWARD, "point"),
    "3": (BACK, "point"),
    "4": (FORWARD, "search"),
    "5": (BACK, "search"),
}
REAL = (
    *("-m", "backend=onnxruntime", "model=digits", "batch=1,2,3,4,5"),
    *("load=quick", "load.warmup_s=0.02", "load.min_s=0.3", "load.max_s=0.4", "load.fractions=[0.3]"),
    *("slo.p90_ms=50", "slo.search_s=1"),
)


class Clocks:
    """Shift the clocks of the processes that preload ``clock_steps.c``.

    Args:
        folder: folder for the library and the file that holds the shifts.

    Attributes:
        environment: variables of those processes.
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "clock_steps.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "clock_steps.c"), "-ldl"]
        subprocess.run(command, check=True)
        self._file = folder / "steps"
        self.set(0.0, 0.0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_STEPS": str(self._file)}

    def set(self, realtime_s: float, monotonic_s: float) -> None:
        """Shift both clocks from now on, in every process."""
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("qq", round(realtime_s * 1e9), round(monotonic_s * 1e9)))

    @contextmanager
    def to_and_fro(self) -> Iterator[None]:
        """Step CLOCK_REALTIME an hour forward and back, many times a second."""
        over = threading.Event()

        def step() -> None:
            while not over.wait(0.05):
                self.set(HOUR_S, 0)
                over.wait(0.05)
                self.set(-HOUR_S, 0)

        thread = threading.Thread(target=step)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


def test_the_clocks_of_the_tests_do_step(clocks: Clocks) -> None:
    code = "import sys, time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))\n"
    shown = []
    for steps in ((0, 0), (HOUR_S, 60), (-HOUR_S, -60)):
        clocks.set(*steps)
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], env=clocks.environment, capture_output=True, text=True, check=True
        )
        shown.append([float(number) for number in done.stdout.split()])
    still, forward, back = shown
    assert [round((now - then) / 60) for now, then in zip(forward, still, strict=True)] == [60, 1, 0]
    assert [round((now - then) / 60) for now, then in zip(back, still, strict=True)] == [-60, -1, 0]


def records(cli: Cli, name: str) -> list[Record]:
    store = Store(cli.results / name)
    return sorted((store.read(key) for key in store.record_keys()), key=lambda record: record.variant["batch"])


def stepped_s(record: Record) -> float:
    """How far the record's start is from now."""
    return abs((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(record.started_at)).total_seconds())


def test_scripted_figures_are_the_same_to_the_last_digit(cli: Cli, clocks: Clocks) -> None:
    for name, environment in (("still", {}), ("stepped", clocks.environment)):
        with clocks.to_and_fro():
            done = cli.run(*SCRIPTED, f"name={name}", fresh=bool(environment), **environment)
        assert done.returncode == 0, done.stdout + done.stderr
    still, stepped = records(cli, "still"), records(cli, "stepped")
    assert [(one.key, one.status, one.peak, one.points) for one in stepped] == [
        (one.key, one.status, one.peak, one.points) for one in still
    ]
    assert all(stepped_s(one) > HOUR_S / 2 for one in stepped), "the clock of the sweep was not stepped"
    assert all(0 <= one.wall_s < 60 for one in stepped if one.wall_s is not None)


@pytest.mark.timeout(900)
def test_steps_in_mid_window_and_in_mid_search(cli: Cli, clocks: Clocks) -> None:
    """The wall clock's move no figure; those of a broken monotonic clock cost the pass, which is measured again."""
    faults = {"SWEEP_TEST_FAULTS": json.dumps(STEPS), "PYTHONPATH": python_path(HERE / "faulty")}
    done = cli.run(*REAL, "name=real", fresh=True, **clocks.environment, **faults)
    assert done.returncode == 1, done.stdout + done.stderr
    measured = records(cli, "real")
    for record in measured:
        what, where = STEPS[str(record.variant["batch"])]
        assert 0 < record.wall_s < 50, record.wall_s
        if record.peak is not None:  # whatever is shown is right
            assert 0 < record.peak["latency_ms"]["p50"] < STEP_S * 500  # half a step
            assert 0 <= record.engine["load_s"] < 50
            assert all(point["latency_ms"]["p50"] < STEP_S * 500 for point in record.points)
        if what == WALL:
            assert record.status == "ok", record.error
            assert record.slo
            assert record.slo["capacity_ips"] is None or 0 < record.slo["capacity_ips"] < 10 * record.peak["ips"]
            continue
        assert record.status == "failed"
        assert (record.error["stage"], record.error["kind"]) == ("measure", "LoadError")
        jump = re.match(r"the machine's clock \(CLOCK_MONOTONIC\) jumped by (.+) s while", record.error["message"])
        assert jump, record.error
        steps = float(jump[1]) / STEP_S  # a search has short probes, and a step in each
        assert steps == pytest.approx(round(steps), abs=0.04)
        assert (steps > 0) == (what == FORWARD)
        assert (record.peak is None) == (where == "point")
        assert record.slo is None or record.slo["capacity_ips"] is None
    assert [record.variant["batch"] for record in measured] == list(map(int, STEPS))
    again = cli.run(*REAL, "name=real", "plan=true")
    assert "4 to measure" in again.stdout, again.stdout

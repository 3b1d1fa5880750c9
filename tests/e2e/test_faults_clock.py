"""The wall clock stepped by an hour, to and fro, in every process of a sweep: no figure moves."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import CLOSED, Cli

from sweep.storage.store import Store

if TYPE_CHECKING:
    from sweep.storage.record import Record

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

SOURCE = Path(__file__).parent / "clock_steps.c"
SCRIPTED = ("-m", "batch=1,8,32", "backend=simulated", "load=quick")
REAL = ("-m", "batch=1,2,3", *CLOSED, "load.min_s=0.8", "load.max_s=2")
HOUR_S = 3600


@pytest.fixture
def stepping(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock steps; seen to do so."""
    library = tmp_path / "clock_steps.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    environment = {"LD_PRELOAD": str(library)}
    code = "import time\nseen = set()\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end:\n"
    code += "    seen.add(round((time.time() - time.monotonic()) / 3600)); time.sleep(0.01)\n"
    code += "print(max(seen) - min(seen))"
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(shown.stdout) == 2
    return environment


def records(cli: Cli, name: str) -> list[Record]:
    store = Store(cli.results / name)
    return sorted((store.read(key) for key in store.record_keys()), key=lambda record: record.variant["batch"])


def stepped_s(record: Record) -> float:
    """How far the record's start is from now."""
    return abs((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(record.started_at)).total_seconds())


def test_scripted_figures_are_the_same_to_the_last_digit(cli: Cli, stepping: dict[str, str]) -> None:
    for name, environment in (("still", {}), ("stepped", stepping)):
        done = cli.run(*SCRIPTED, f"name={name}", fresh=True, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
    still, stepped = records(cli, "still"), records(cli, "stepped")
    assert [(one.key, one.status, one.peak, one.points) for one in stepped] == [
        (one.key, one.status, one.peak, one.points) for one in still
    ]
    assert all(stepped_s(one) > HOUR_S / 2 for one in stepped), "the clock of the sweep was not stepped"
    assert all(0 <= one.wall_s < 60 for one in stepped if one.wall_s is not None)


def test_a_measured_sweep_ends_as_ever_and_its_second_start_keeps_all(
    cli: Cli, stepping: dict[str, str], empty_db: bytes
) -> None:
    cli.results.mkdir()
    (cli.results / "mlflow.db").write_bytes(empty_db)
    done = cli.run(*REAL, "name=real", "tracking=auto", fresh=True, **stepping)
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(cli, "real")
    for one in found:
        assert one.status == "ok"
        assert one.peak
        assert one.peak["latency_ms"]["p50"] > 0
        assert one.peak["latency_ms"]["p99"] is None or one.peak["latency_ms"]["p99"] < 10_000
        assert one.wall_s is not None
        assert 0.8 < one.wall_s < 60
    again = cli.run(*REAL, "name=real", fresh=True, **stepping)
    assert "0 to measure, 3 measured already" in again.stdout
    assert records(cli, "real") == found

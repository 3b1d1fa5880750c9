"""The parent killed -9 at ten random moments: no torn record, no worker left, nothing measured twice."""

from __future__ import annotations

import os
import random
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from mlflow_ui import wait_until

if TYPE_CHECKING:
    from conftest import Cli

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

MARK = "SWEEP_TEST_RUN"
SEED = 5
COUNT = 20
WORDS = (
    *("-m", "batch=1,2,3,4", f"streams={','.join(map(str, range(1, COUNT // 4 + 1)))}"),
    *("backend=simulated", "load=quick", "load.min_s=0.1", "load.fractions=[0.5]", "tracking=none", "name=killed"),
)


def marked(value: str) -> list[psutil.Process]:
    """Processes, of whatever parent, that were started with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(900)
def test_kill_9_of_the_parent_at_ten_random_moments(cli: Cli) -> None:
    draw = random.Random(SEED)  # noqa: S311 - moments, no secret
    kept: dict[str, str] = {}
    start_s = 0.0  # how long a start takes here until its first record
    for number in range(10):
        run = f"{os.getpid()}-{number}"
        began = time.monotonic()
        process = subprocess.Popen(
            cli.command(*WORDS),
            env=cli.environment() | {MARK: run},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=cli.results.parent,
            start_new_session=True,
        )
        if number == 0:
            wait_until(lambda: bool(list(cli.results.glob("*/records/*.json"))), 60, lambda: "no record")
            start_s = time.monotonic() - began
        else:
            time.sleep(draw.uniform(0.2, 1.3) * start_s)
        process.kill()
        process.wait()
        wait_until(lambda run=run: not marked(run), 10, lambda run=run: f"left alive: {marked(run)}")
        found = {record.key: record.started_at for record in cli.records()}  # each can be read, or this raises
        assert found.items() >= kept.items(), "measured twice"
        kept = found
    done = cli.run(*WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    records = cli.records()
    assert [record.status for record in records] == ["ok"] * COUNT
    assert {record.key: record.started_at for record in records}.items() >= kept.items()
    root = cli.results / "killed"
    assert not list((root / "parts").glob("*"))
    assert {path.name for path in (root / "records").iterdir()} == {f"{record.key}.json" for record in records}

"""A worker that is killed, hangs or eats memory in each stage: its variant says so, the next is clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from conftest import Cli

    from sweep.storage.record import Record

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

FAULTY = Path(__file__).parent / "faulty"
STOPPED = {
    "9": ["eat", "load"],  # the largest first: what runs out of memory spares no larger one
    "8": ["eat", "point"],
    "5": ["kill", "build"],
    "4": ["kill", "load"],
    "3": ["kill", "point"],
}
HUNG = {"4": ["hang", "build"], "3": ["hang", "load"], "2": ["hang", "point"]}
ENDS = {"kill": ("crashed", "SIGKILL"), "eat": ("oom", "MemoryError"), "hang": ("timeout", "Timeout")}
STAGES = {"point": "measure"}
CLOSED = ("load=closed", "load.warmup_s=0.02", "load.min_s=0.4", "load.min_requests=9", "load.max_s=0.6")


def faulty(cli: Cli, faults: dict[str, list[str]]) -> dict[str, str]:
    path = f"{FAULTY}:{cli.environment()['PYTHONPATH']}"
    return {"PYTHONPATH": path, "SWEEP_TEST_FAULTS": json.dumps(faults)}


def by_batch(cli: Cli) -> dict[str, Record]:
    return {str(record.variant["batch"]): record for record in cli.records()}


def left_alive(cli: Cli) -> list[psutil.Process]:
    """Return the processes of this sweep that are still there, by their working folder."""
    alive = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(cli.results.parent):
                alive.append(process)
        except psutil.Error:
            continue
    return alive


@pytest.mark.parametrize(("faults", "timeout_s"), [(STOPPED, 60), (HUNG, 3)], ids=["killed", "hung"])
def test_a_fault_in_each_stage_costs_its_variant_alone(cli: Cli, faults: dict[str, list[str]], timeout_s: int) -> None:
    words = ("-m", f"batch={','.join([*faults, '1'])}", *CLOSED, "name=s")
    done = cli.run(*words, f"timeout_s={timeout_s}", **faulty(cli, faults))
    assert done.returncode == 1, done.stdout + done.stderr
    found = by_batch(cli)
    for batch, (what, where) in faults.items():
        error = found[batch].error
        assert error, done.stdout
        told = (found[batch].status, error["kind"], error["stage"])
        assert told == (*ENDS[what], STAGES.get(where, where)), error
        assert len(error["message"]) > 10
    assert found["1"].status == "ok"
    assert found.keys() == {*faults, "1"}
    assert not left_alive(cli)
    assert not list((cli.results / "s" / "parts").glob("*"))
    if faults is HUNG:
        return
    again = cli.run(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    now = by_batch(cli)
    assert [record.status for record in now.values()] == ["ok"] * len(now)
    assert now["1"] == found["1"]

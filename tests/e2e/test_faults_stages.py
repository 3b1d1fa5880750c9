"""A worker that is killed, hangs or eats memory in each stage: its variant says so, every other one is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from conftest import Cli

if TYPE_CHECKING:
    from sweep.record import Record

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.heavy]

FAULTY = Path(__file__).parent / "faulty"
FAULTS = {
    "kill": {"2": ["kill", "build"], "3": ["kill", "load"], "5": ["kill", "point"]},
    "eat": {"2": ["eat", "build"], "3": ["eat", "load"], "5": ["eat", "point"]},
    "hang": {"2": ["hang", "build"], "3": ["hang", "load"], "5": ["hang", "point"]},
}
STAGES = {"2": "build", "3": "load", "5": "measure"}
CLEAN = ("1", "4", "6")
WORDS = ("-m", f"batch={','.join(sorted([*STAGES, *CLEAN]))}", "load=closed", "load.min_s=0.4", "load.min_requests=9")


def faulty(cli: Cli, faults: dict[str, list[str]]) -> dict[str, str]:
    path = f"{FAULTY}:{cli.environment()['PYTHONPATH']}"
    return {"PYTHONPATH": path, "SWEEP_TEST_FAULTS": json.dumps(faults)}


def by_batch(cli: Cli) -> dict[str, Record]:
    return {str(record.variant["batch"]): record for record in cli.records()}


def left_alive(cli: Cli) -> list[psutil.Process]:
    """Workers of this sweep that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if "sweep.worker" in process.cmdline() and process.cwd() == str(cli.results.parent):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [("kill", "crashed", "SIGKILL"), ("eat", "oom", "MemoryError"), ("hang", "timeout", "Timeout")],
)
def test_a_fault_in_each_stage_costs_its_variant_alone(cli: Cli, fault: str, status: str, kind: str) -> None:
    done = cli.run(*WORDS, "timeout_s=4", **faulty(cli, FAULTS[fault]))
    assert done.returncode == 1, done.stdout + done.stderr
    found = by_batch(cli)
    for batch, stage in STAGES.items():
        assert found[batch].status == status, found[batch].error
        assert found[batch].error
        assert (found[batch].error["stage"], found[batch].error["kind"]) == (stage, kind)
        assert found[batch].error["message"]
    assert [found[batch].status for batch in CLEAN] == ["ok"] * 3
    assert not left_alive(cli)
    assert not list((cli.results / next(iter(cli.stores())).root.name / "parts").glob("*"))

    again = cli.run(*WORDS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 to measure, 3 measured already" in again.stdout
    now = by_batch(cli)
    assert [record.status for record in now.values()] == ["ok"] * 6
    for batch in CLEAN:
        assert now[batch] == found[batch]

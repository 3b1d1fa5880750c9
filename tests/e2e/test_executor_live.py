"""What the executor promises over whole sweeps: turns at a device, limits of stages, filters, retries, pruning."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from conftest import CLOSED, Cli
from mlflow_ui import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.storage.record import Record

pytestmark = pytest.mark.e2e

SIMULATED = ("backend=simulated", *CLOSED)

HANGS = """
import time
from sweep.backends.simulated import Simulated
Simulated.{stage} = lambda *_: time.sleep(600)
"""
LITTLE_MEMORY = """
import resource, sys
if "sweep.runner.worker.main" in sys.orig_argv:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
"""


def customised(cli: Cli, code: str) -> dict[str, str]:
    """Environment in which every Python process of the sweep runs ``code`` first."""
    folder = cli.results.parent / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), cli.environment()["PYTHONPATH"]])}


def spans(records: list[Record]) -> list[tuple[float, float]]:
    """Start and end of the work on each variant, in the order of time."""
    starts = [(dt.datetime.fromisoformat(record.started_at).timestamp(), record.wall_s or 0.0) for record in records]
    return sorted((start, start + took) for start, took in starts)


def test_two_sweeps_on_one_machine_take_turns_and_both_end(tmp_path: Path) -> None:
    first, second = Cli(tmp_path / "a"), Cli(tmp_path / "b")
    words = ("-m", "backend=onnxruntime", "batch=1,2,4", *CLOSED)
    processes = [cli.start(*words) for cli in (first, second)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any("waiting for cpu" in output and "measured on by user" in output for output in outputs)
    taken = spans([*first.records(), *second.records()])
    assert len(taken) == 6
    slack_s = 0.01  # started_at is rounded to ms
    assert all(end <= start + slack_s for (_, end), (start, _) in pairwise(taken)), taken


def test_a_device_that_stays_busy_is_given_up_in_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    first, second = Cli(tmp_path / "a"), Cli(tmp_path / "b")
    assert second.run("backend=onnxruntime", "batch=1", *CLOSED, "name=s").returncode == 0
    busy = first.start("-m", "backend=onnxruntime", "batch=1", *CLOSED, "load.min_s=60", "load.max_s=60")
    engines = first.results / "cache" / "engines"
    wait_until(engines.exists, 60, lambda: "the first does not start")
    done = second.run("-m", "backend=onnxruntime", "batch=1,2", *CLOSED, "name=s", "gpu.wait_s=0.5")
    simulated = second.run(*SIMULATED, "name=other")  # uses no core, so it waits for nobody
    os.killpg(busy.pid, signal.SIGTERM)
    busy.communicate(timeout=60)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("sweep: cpu is still measured on by user ")
    assert f"process {busy.pid} (" in done.stderr
    assert "after 0.5 s (gpu.wait_s)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert simulated.returncode == 0
    assert [record.status for record in second.records()] == ["ok", "ok"]
    rest = second.run("-m", "backend=onnxruntime", "batch=1,2", *CLOSED, "name=s")
    assert "1 to measure, 1 measured already" in rest.stdout


@pytest.mark.parametrize(("stage", "key"), [("build", "build_s"), ("load", "load_s")])
def test_a_stage_that_hangs_has_its_own_limit(cli: Cli, stage: str, key: str) -> None:
    began = time.monotonic()
    done = cli.run(*SIMULATED, f"timeout.{key}=1", **customised(cli, HANGS.format(stage=stage)))
    assert done.returncode == 1, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    (record,) = cli.records()
    assert (record.status, (record.error or {})["stage"]) == ("timeout", stage)
    assert f"for 1 s (timeout.{key})" in (record.error or {})["message"]


def test_a_point_that_hangs_has_its_own_limit(cli: Cli) -> None:
    done = cli.run("backend=onnxruntime", *CLOSED, "load.min_s=60", "load.max_s=60", "timeout.point_s=1")
    assert done.returncode == 1
    (hung,) = cli.records()
    assert (hung.status, (hung.error or {})["stage"]) == ("timeout", "measure")
    assert "(timeout.point_s)" in (hung.error or {})["message"]


def test_a_batch_above_one_that_ran_out_of_memory_is_not_tried(cli: Cli) -> None:
    words = ("-m", "backend=onnxruntime", "batch=1,300000,600000", "name=s", *CLOSED)
    done = cli.run(*words, **customised(cli, LITTLE_MEMORY))
    assert done.returncode == 1, done.stdout + done.stderr
    found = {record.variant["batch"]: record for record in cli.records()}
    assert [found[batch].status for batch in (1, 300000, 600000)] == ["ok", "oom", "oom"], found
    tried, pruned = found[300000].error or {}, found[600000].error or {}
    assert tried["stage"] != "plan"
    assert (pruned["stage"], pruned["kind"]) == ("plan", "Pruned")
    assert "tiny_cnn fp32 b300000 s1 ran out of memory" in pruned["message"]
    assert "prune=false" in pruned["message"]
    kept = cli.run(*words, "retry=none", **customised(cli, LITTLE_MEMORY))  # from the record on disk
    assert {record.variant["batch"]: (record.error or {}).get("kind") for record in cli.records()}[600000] == "Pruned"
    assert kept.returncode == 1
    cli.run(*words, "prune=false", "retry=none", **customised(cli, LITTLE_MEMORY))
    again = {record.variant["batch"]: record.error or {} for record in cli.records()}
    assert again[600000]["stage"] != "plan"
    assert again[300000] == tried


def test_a_chosen_few_share_the_folder_of_the_whole_sweep(cli: Cli) -> None:
    words = ("-m", "backend=simulated", "batch=1,8", *CLOSED)
    refused = cli.run(*words, "only=batch=9")
    assert (refused.returncode, refused.stderr) == (2, "sweep: only=batch:9: no variant has it; batch is 1, 8\n")
    assert not cli.results.exists()
    assert "1 variants are left out" in cli.run(*words, "only=[batch=8]").stdout
    assert "1 to measure, 1 measured already" in cli.run(*words).stdout
    assert len(cli.stores()) == 1

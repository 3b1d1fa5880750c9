"""Real faults, and nothing lost: killed children, killed parents, Ctrl-C, damaged files, a dead server."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from conftest import CLOSED, QUICK, Cli
from mlflow_ui import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from forked_command import ForkedCommand

    Command = ForkedCommand | subprocess.Popen[str]

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

FOUR = ("-m", "precision=fp32,fp16", "batch=1,8", *QUICK)


def worker_of(process: Command) -> psutil.Process | None:
    """Return the measuring child, which leads a session of its own."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return next((child for child in children if os.getsid(child.pid) == child.pid), None)
    except (psutil.Error, ProcessLookupError):
        return None


def at_record(cli: Cli, process: Command, number: int) -> Callable[[], bool]:
    """Whether ``number`` records are there and the next variant is being worked on."""

    def ready() -> bool:
        assert process.poll() is None, "the sweep ended too soon"
        return len(list(cli.results.glob("*/records/*.json"))) >= number and worker_of(process) is not None

    return ready


def kill_at_work(process: Command) -> None:
    """SIGKILL to a worker that has been at a variant for a while: one that has just ended its last is let go."""
    seen: list[psutil.Process] = []

    def steady() -> bool:
        seen.append(worker_of(process))
        return len(seen) > 2 and seen[-1] is not None and seen[-3] == seen[-1]

    wait_until(steady, 30, lambda: "no worker stays", every_s=0.25)
    seen[-1].kill()


def test_kill_9_of_the_child_then_of_the_parent_and_a_second_start(cli: Cli) -> None:
    first = cli.start("-m", "precision=fp16,int8", "batch=1,8,32", *QUICK)
    wait_until(at_record(cli, first, 2), 60, lambda: "no second record")
    kill_at_work(first)
    wait_until(at_record(cli, first, 3), 60, lambda: "no third record")
    by_status = {record.status: record for record in cli.records()}
    assert by_status["crashed"].error
    assert by_status["crashed"].error["kind"] == "SIGKILL"
    orphan = worker_of(first)
    first.kill()
    first.wait()
    assert orphan
    wait_until(lambda: not orphan.is_running() or orphan.status() == "zombie", 10, lambda: "the child lives on")
    kept = {record.key: record.started_at for record in cli.records() if record.status == "ok"}
    assert len(kept) >= 2

    done = cli.run("-m", "precision=fp16,int8", "batch=1,8,32", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    records = cli.records()
    assert [record.status for record in records] == ["ok"] * 6
    for record in records:
        if record.key in kept:
            assert record.started_at == kept[record.key]


@pytest.mark.parametrize("how", ["SIGINT", "SIGINT twice", "SIGTERM"])
def test_an_interrupt_leaves_whole_records_exit_130_and_the_rest_for_later(cli: Cli, how: str) -> None:
    process = cli.start(*FOUR)
    wait_until(at_record(cli, process, 1), 60, lambda: "no record")
    child = worker_of(process)
    before = len(cli.records())
    os.killpg(process.pid, signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
    if how == "SIGINT twice":
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    if how == "SIGINT":  # the variant in hand is finished, and no other is begun
        assert "stopping after this variant; Ctrl-C again stops now" in output
        assert len(cli.records()) == before + 1
    assert process.returncode == 130, output
    assert "the same command measures the rest" in output
    assert child is None or not child.is_running() or child.status() == "zombie"
    kept = {record.key: record.started_at for record in cli.records()}
    assert 1 <= len(kept) < 4
    done = cli.run(*FOUR)
    assert done.returncode == 0
    assert f"{4 - len(kept)} to measure, {len(kept)} measured already" in done.stdout
    assert {record.key: record.started_at for record in cli.records()}.items() >= kept.items()


@pytest.mark.parametrize("delay_s", [0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.2, 2.0])
def test_an_interrupt_at_any_moment_ends_with_130(cli: Cli, delay_s: float) -> None:
    process = cli.start(*FOUR, fresh=True)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in {130, -signal.SIGINT}, output  # a shell shows 130 for both
    assert "Traceback" not in output or process.returncode == -signal.SIGINT, output
    assert all(record.status == "ok" for record in cli.records())


def first_worker_hangs(cli: Cli, *words: str) -> tuple[Command, psutil.Process, str]:
    """The sweep once it is over, its first worker suspended for good, and what it printed."""
    process = cli.start(*FOUR, "timeout_s=3", *words)
    wait_until(at_record(cli, process, 0), 60, lambda: "no worker")
    child = worker_of(process)
    assert child
    child.suspend()
    output, _ = process.communicate(timeout=120)
    return process, child, output


def test_a_worker_that_hangs_is_ended_and_the_next_variant_runs(cli: Cli) -> None:
    process, child, output = first_worker_hangs(cli)
    assert process.returncode == 1, output
    assert sorted(record.status for record in cli.records()) == ["ok", "ok", "ok", "timeout"]
    assert not child.is_running() or child.status() == "zombie"


def test_a_sentinel_that_hangs_is_ended_and_every_variant_runs(cli: Cli) -> None:
    process, _, output = first_worker_hangs(cli, "sentinel_every=8")
    assert process.returncode == 0, output
    assert "the sentinel ended as timeout" in output
    assert [(record.status, record.drift) for record in cli.records()] == [("ok", None)] * 4


def test_a_truncated_record_is_said_and_measured_again(cli: Cli) -> None:
    words = CLOSED
    cli.run(*words)
    path = next(cli.results.glob("*/records/*.json"))
    path.write_bytes(path.read_bytes()[:100])
    again = cli.run(*words)
    assert again.returncode == 0
    assert "is measured again: record" in " ".join(again.stdout.split())
    assert [record.status for record in cli.records()] == ["ok"]


def contents(folder: Path) -> dict[Path, bytes]:
    """What each file holds, but for the lock, which names the process that had it last."""
    files = (item for item in folder.rglob("*") if item.is_file() and item.name != ".lock")
    return {item: item.read_bytes() for item in files}


@pytest.mark.parametrize("word", ["plan=true", "force=false", "force=true"])
def test_a_record_of_a_newer_version_is_not_written_over(cli: Cli, word: str) -> None:
    words = CLOSED
    cli.run(*words)
    path = next(cli.results.glob("*/records/*.json"))
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 2, "colour": "blue"}))
    files = contents(path.parents[1])
    again = cli.run(*words, word)
    assert again.returncode == 2
    advice = "update sweep, or measure into another folder: results=FOLDER"
    assert again.stderr == f"sweep: record {path} has schema 2, this version reads up to 1: {advice}\n"
    assert contents(path.parents[1]) == files


def test_a_damaged_engine_is_built_again_and_said(cli: Cli) -> None:
    words = (*CLOSED, "force=true")
    cli.run(*words)
    engine = next(cli.results.glob("cache/engines/*/optimised.onnx"))
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(bytes(content))
    again = cli.run(*words)
    assert "is damaged (optimised.onnx changed): built again" in " ".join(again.stdout.split())
    assert [record.status for record in cli.records()] == ["ok"]


def test_two_sweeps_in_one_folder_are_refused(cli: Cli) -> None:
    first = cli.start(*FOUR, "name=shared")
    wait_until(at_record(cli, first, 0), 60, lambda: "no worker")
    second = cli.run(*FOUR, "name=shared")
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert f"is in use by process {first.pid}" in second.stderr


def test_another_library_version_is_said_not_mixed_in_silently(cli: Cli) -> None:
    words = CLOSED
    cli.run(*words)
    path = next(cli.results.glob("*/records/*.json"))
    content = json.loads(path.read_text())
    content["facts"]["onnxruntime"] = "0.0.1"
    path.write_text(json.dumps(content))
    for more in ((), ("plan=true",)):
        text = " ".join(cli.run(*words, *more).stdout.split())
        assert text.count("kept from an earlier run, not measured again, although onnxruntime was 0.0.1 and is ") == 1


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_dead_server_costs_under_ten_seconds_and_no_record(cli: Cli, kind: str) -> None:
    words = ("-m", "backend=simulated", "batch=1,2", *CLOSED)  # its clock is virtual: a busy machine costs it little
    start = time.monotonic()
    cli.run(*words, "name=alone")
    alone = time.monotonic() - start
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == "silent":
            taken.listen(5)
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        done = cli.run(*words, "name=tracked", f"tracking.uri={uri}")
        took = time.monotonic() - start
    assert done.returncode == 0, done.stdout + done.stderr
    command = f"{sys.executable} -m sweep publish"
    assert f"nothing is lost, `{command} --uri {uri}` sends the records" in " ".join(done.stdout.split())
    assert len(cli.records()) == 4
    assert took - alone < 10

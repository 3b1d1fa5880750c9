"""Faults that only a GPU has: a sticky CUDA error and no device memory left. ``make test-gpu`` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import require
from python_path import python_path

from sweep.backends.tensorrt import library

pytestmark = [pytest.mark.gpu, pytest.mark.fault]

FAULTY = Path(__file__).parent / "faulty_gpu"
BACKEND = os.environ.get("SWEEP_GPU_BACKEND", "tensorrt_rtx")
WORDS = (
    *("-m", f"backend={BACKEND}", "model=mlp", "batch=4,2,1", "tracking=none", "name=s"),
    *("load=closed", "load.min_s=1", "load.max_s=3", "load.min_requests=9"),
)
SLACK_BYTES = 256 << 20
assert BACKEND in library.NAMES


def sweep(results: Path, fault: str | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": python_path(FAULTY), "COLUMNS": "200"}
    if fault is not None:
        environment["SWEEP_TEST_GPU_FAULT"] = fault
    command = [sys.executable, "-m", "sweep", *WORDS, f"results={results}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=results.parent)


def records(results: Path) -> dict[int, dict[str, object]]:
    found = [json.loads(path.read_text()) for path in (results / "s" / "records").glob("*.json")]
    return {record["variant"]["batch"]: record for record in found}


def used_bytes() -> int:
    import pynvml

    pynvml.nvmlInit()
    try:
        return sum(
            int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(number)).used)
            for number in range(pynvml.nvmlDeviceGetCount())
        )
    finally:
        pynvml.nvmlShutdown()


@pytest.mark.parametrize(
    ("fault", "status", "words", "proof"),
    [
        ("4:sticky", "failed", "illegal", "a kernel was launched that writes to address 16"),
        ("4:memory", "oom", "memory", "bytes of device memory"),
    ],
    ids=["sticky", "memory"],
)
def test_a_gpu_fault_costs_its_variant_alone(tmp_path, fault: str, status: str, words: str, proof: str) -> None:
    require.gpu_for(BACKEND)
    before = used_bytes()
    done = sweep(tmp_path / "results", fault)
    found = records(tmp_path / "results")
    logs = "".join(path.read_text(errors="replace") for path in (tmp_path / "results" / "s" / "logs").iterdir())
    assert proof in logs, logs[-2000:]
    assert done.returncode == 1, done.stdout + done.stderr
    print(found[4]["status"], found[4]["error"])  # noqa: T201 - CUDA's own words are worth a look
    assert found[4]["status"] == status, found[4]["error"]
    assert words in found[4]["error"]["message"].lower()
    assert [found[batch]["status"] for batch in (2, 1)] == ["ok", "ok"]
    assert used_bytes() <= before + SLACK_BYTES
    again = sweep(tmp_path / "results", None)
    assert again.returncode == 0, again.stdout + again.stderr
    now = records(tmp_path / "results")
    assert [now[batch]["status"] for batch in (4, 2, 1)] == ["ok"] * 3
    assert [now[batch] for batch in (2, 1)] == [found[batch] for batch in (2, 1)]

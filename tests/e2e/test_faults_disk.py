"""A disk that is full, read-only folders and a careless umask: real ones."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import CLOSED, Cli

from sweep.system.file_trust import OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

HERE = Path(__file__).parent
SIZE = "24m"
MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
WAYS = {  # in this order: a user's own namespace, root's, none
    "a tmpfs in a user namespace": ["unshare", "-rm", "sh", "-c", MOUNT, SIZE],
    "a tmpfs in a mount namespace of root": ["unshare", "-m", "sh", "-c", MOUNT, SIZE],
}
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def small_disk(folder: Path) -> tuple[str, list[str]]:
    """How a small disk is had here, and the command before the command; without one, a limit on the size of files."""
    for name, command in WAYS.items():
        if shutil.which(command[0]) is None:
            continue
        probe = subprocess.run([*command, str(folder), "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return name, [*command, str(folder)]
    return "RLIMIT_FSIZE", []


def test_a_disk_that_fills_while_an_engine_samples_and_a_record_are_written(cli: Cli) -> None:
    cli.results.mkdir()
    name, before = small_disk(cli.results)
    warnings.warn(f"full disk by {name}", stacklevel=1)
    what, reason = (str(cli.results / "ballast"), "No space left") if before else ("limit", "File too large")
    faults = json.dumps({"2": [what, "build"], "3": [what, "samples"], "4": [what, "record"]})
    done = subprocess.run(
        [*before, sys.executable, str(HERE / "full_disk.py"), str(cli.results), faults],
        env=cli.environment(),
        cwd=cli.results.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, second = found["first"], found["second"]
    assert first["code"] == 1
    assert "Traceback" not in first["output"]
    assert reason in first["output"].splitlines()[-1]
    assert "the same command measures the rest" in first["output"].splitlines()[-1]
    assert first["scraps"] == []
    kept = first["records"]
    assert kept.keys() == {"1", "2", "3"}
    assert kept["1"][0] == "ok"
    for batch, stage in (("2", "cache"), ("3", "measure")):
        assert kept[batch][0] == "failed"
        assert kept[batch][2] == stage
        assert reason in kept[batch][4], kept[batch]
    assert second["code"] == 0, second["output"]
    assert {batch: record[0] for batch, record in second["records"].items()} == dict.fromkeys("1234", "ok")
    assert second["records"]["1"] == kept["1"]
    assert second["scraps"] == []
    assert len(second["samples"]) == 4


def bound_by_modes() -> None:
    """Root, too, is held by the modes of files from the next exec on."""
    library = ctypes.CDLL(None, use_errno=True)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if os.geteuid() == 0 and library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def run_bound(cli: Cli, before: Callable[[], object] = bound_by_modes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cli.command(*CLOSED, "tracking=none", "name=s"),
        env=cli.environment(),
        cwd=cli.results.parent,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_read_only_results_folder_is_one_line_and_exit_2(cli: Cli) -> None:
    cli.results.mkdir()
    cli.results.chmod(0o555)
    done = run_bound(cli)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.splitlines() == [f"sweep: results={cli.results}: cannot be written (Permission denied)"]
    assert list(cli.results.iterdir()) == []


def test_a_read_only_cache_costs_a_variant_one_clear_line(cli: Cli) -> None:
    cache = cli.results / "cache"
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    done = run_bound(cli)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for record in cli.records():
        assert record.status == "failed"
        assert record.error
        assert "Permission denied" in record.error["message"]
        assert str(cache) in record.error["message"]
    cache.chmod(0o755)
    again = run_bound(cli)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [record.status for record in cli.records()] == ["ok"]


def test_umask_0_leaves_nothing_for_others_to_write(cli: Cli) -> None:
    done = run_bound(cli, before=lambda: os.umask(0))
    assert done.returncode == 0, done.stdout + done.stderr
    made = [cli.results, *cli.results.rglob("*")]
    assert len(made) > 15
    assert [str(path) for path in made if path.lstat().st_mode & OTHERS] == []

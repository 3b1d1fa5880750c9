"""A short kill campaign: twenty disturbances at random moments, and nothing lost, measured twice or left over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

CAMPAIGN = Path(__file__).with_name("kill_campaign.py")
KILLS = 20


@pytest.mark.timeout(600)
def test_twenty_disturbances_leave_what_an_undisturbed_sweep_leaves(tmp_path: Path, empty_db: bytes) -> None:
    """`make torture` is the same with 500, and with MLflow servers and a PostgreSQL that are killed, too."""
    store, table, root = tmp_path / "empty.db", tmp_path / "table.json", tmp_path / "root"
    store.write_bytes(empty_db)
    root.mkdir()
    command = [sys.executable, str(CAMPAIGN), "--kills", str(KILLS), "--seed", "15", "--configs", "simulated,passes"]
    done = subprocess.run(
        [*command, "--root", str(root), "--store", str(store), "--table", str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    series = json.loads(table.read_text())
    hits = [hit for item in series for hit in item["hits"]]
    assert len(hits) >= KILLS
    assert len({hit["kind"] for hit in hits}) > 5
    assert len({hit["stage"] for hit in hits}) > 2, "the moments are spread over the sweep"

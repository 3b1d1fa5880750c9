"""Traces and server batching as a user asks for them, with real inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import QUICK

from sweep.storage import samples, samples_file

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

pytestmark = pytest.mark.e2e


def test_the_shipped_experiment_sets_a_gathered_batch_beside_streams(cli: Cli) -> None:
    done = cli.run("+experiment=batching", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {item.variant["label"]: item for item in cli.records()}
    assert set(records) == {f"tiny_cnn fp32 {name}" for name in ("b1 s1", "b1 s4", "b8 s1 w2ms", "b8 s4 w2ms")}
    assert {item.engine["key"] for item in records.values() if item.engine} == {
        records[f"tiny_cnn fp32 {name}"].engine["key"]  # type: ignore[index]
        for name in ("b1 s1", "b8 s1 w2ms")
    }
    for label, item in records.items():
        assert item.status == "ok"
        for point in item.points:
            assert (point["batching"] is not None) == ("w2ms" in label)
        assert (item.realised or {}).get("partial_batches") == ("true size" if "w2ms" in label else None)
    assert "batch_wait_ms" in done.stdout
    (store,) = cli.stores()
    _, *rungs = samples_file.load(store.samples_path(records["tiny_cnn fp32 b8 s1 w2ms"].key))
    assert rungs
    for rung in rungs:
        assert (rung.batch, rung.gathers) == (1, 8)
        assert np.all(np.diff(rung.issued_ns[rung.done_ns != samples.NEVER]) >= 0)


def test_a_trace_is_replayed_once_and_again_when_it_changes(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    gaps = np.random.default_rng(0).exponential(0.005, 200)
    path.write_text("arrival_s\n" + "\n".join(map(str, np.cumsum(gaps))))
    words = ("load=trace", f"load.trace={path}", "load.warmup_s=0.05", "load.min_s=0.1", "load.min_requests=64")
    done = cli.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = cli.records()
    assert found.variant["label"] == "tiny_cnn fp32 b1 s1 trace-arrivals"
    assert found.peak
    (point,) = found.points
    assert point["requests"] == 200
    assert point["offered_ips"] == pytest.approx(199 / gaps[1:].sum())
    again = cli.run(*words)
    assert again.returncode == 0
    assert len(cli.records()) == 1
    path.write_text(path.read_text() + "\n9.0")
    assert cli.run(*words, "load.trace_scale=4").returncode == 0
    assert len(cli.records()) == 2
    assert len({item.engine["key"] for item in cli.records() if item.engine}) == 1


def test_a_bad_trace_ends_in_one_line_before_anything_runs(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text("0\n2\n1\n")
    done = cli.run("load=trace", f"load.trace={path}")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"sweep: load.trace={path}: line 3: 1 comes before 2, which is above it; sort the file by arrival"
    )
    assert not cli.results.exists()

"""Pipelines by whole commands: swept, shown, and refused where one network is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import QUICK, Cli
from forked_command import run_forked

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.e2e

SIMULATED = ("backend=simulated", *QUICK, "name=p")


def test_a_swept_pipeline_is_measured_under_load_shown_and_refused_where_one_network_is_needed(cli: Cli) -> None:
    done = cli.run("pipeline=sd_tiny", "pipeline.unet.service_us=100,300", *SIMULATED)
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted(cli.records(), key=lambda record: record.peak["latency_ms"]["mean"])
    assert [item["stage"] for item in records[0].peak["stages"]] == [
        *("text_encoder", "time_features", "unet", "ddim_step", "vae")
    ]
    for record, unet_ms in zip(records, (0.4, 1.2), strict=True):
        for part in (record.peak, *record.points):
            unet = part["stages"][2]
            assert unet["latency_ms"]["mean"] == pytest.approx(unet_ms, rel=1e-4)
            parts = sum(item["latency_ms"]["mean"] for item in part["stages"]) + sum(part["stage_rest"].values())
            assert parts == pytest.approx(part["latency_ms"]["mean"], rel=1e-6)
        assert max(point["stage_rest"]["queue_ms"] for point in record.points) > 0

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_forked(words, cli.environment(), cli.results.parent, 60)

    shown = run("show", "p", "--results", str(cli.results))
    assert "sd_tiny fp32 unet-service_us-100 b1 s1: closed loop by stage, " in shown.stdout, shown.stdout
    assert "unet x4 0.4 ms (" in shown.stdout, shown.stdout
    path = cli.stores()[0].root / "records" / f"{records[0].key}.json"
    for command in (("trtexec", str(path)), ("profile", str(path), "--with", "nsys")):
        refused = run(*command)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert f"is of a pipeline, and sweep {command[0]} works on one network" in refused.stderr
    bad = cli.run("pipeline=[mlp,{digits:0}]", *SIMULATED)
    assert (bad.returncode, bad.stderr) == (2, "sweep: pipeline: digits=0: a loop runs 1 to 10000 times\n")

"""A sweep on a virtual clock, published to a real server while it runs, seen in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import mlflow_store
import pytest
from browser import chromium_driver, require
from conftest import QUICK, Cli
from mlflow_ui import curves_shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.e2e

NAME = "live"
STEADY = ("backend=simulated", "backend.script.distribution=exponential")  # on any machine: its clock is virtual


def history(client: MlflowClient, run: str, key: str) -> list[float]:
    return [item.value for item in sorted(client.get_metric_history(run, key), key=lambda item: item.step)]


@pytest.mark.chromium
def test_results_and_the_view_agree_point_by_point(cli: Cli, server: str) -> None:
    words = (
        "-m",
        "precision=fp16,int8",
        "batch=1,8",
        *STEADY,
        *QUICK,
        f"name={NAME}",
        "load.min_requests=662",
        "load.max_s=3",
    )
    done = cli.run(*words, f"tracking.uri={server}")
    assert done.returncode == 0, done.stdout + done.stderr
    link = re.search(r"^MLflow +(http\S+)", done.stdout, re.MULTILINE)
    assert link, done.stdout[-900:] + done.stderr[-600:]
    records = {record.key: record for record in cli.records()}
    client = mlflow_store.client(server)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment
    found = client.search_runs([experiment.experiment_id], f"tags.`sweep.name` = '{NAME}'")
    parents = [run for run in found if run.data.tags["sweep.kind"] == "sweep"]
    children = {run.data.tags["sweep.key"]: run for run in found if run.data.tags["sweep.kind"] == "variant"}
    assert len(parents) == 1
    assert children.keys() == records.keys()
    for key, run in children.items():
        points = [point for point in records[key].points if point["verdict"] != "invalid"]
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert history(client, run.info.run_id, "curve/achieved_samples_per_s") == [p["achieved_ips"] for p in points]
        assert history(client, run.info.run_id, "curve/p99_ms") == [
            p["latency_ms"]["p99"] for p in points if p["latency_ms"]["p99"] is not None
        ]

    published = [sys.executable, "-m", "sweep", "publish", str(cli.results), "--uri", server]
    again = subprocess.run(published, capture_output=True, text=True, env=cli.environment(), check=True)
    assert "0 sent, 4 unchanged" in again.stdout

    require("chromium")
    with chromium_driver() as driver:
        driver.get(link.group(1))
        curves = curves_shown(driver, want=4)
    for record in records.values():
        points = [p for p in record.points if p["verdict"] != "invalid" and p["latency_ms"]["p99"] is not None]
        x, y = curves["curve/p99_ms"][record.variant["label"]]
        assert x == pytest.approx([point["achieved_ips"] for point in points])
        assert y == pytest.approx([point["latency_ms"]["p99"] for point in points])


@pytest.mark.chromium
def test_the_report_draws_the_records_points_offline(cli: Cli) -> None:
    done = cli.run("-m", "batch=1,8", *STEADY, *QUICK, "slo.p90_ms=100", "slo.search=false")
    assert done.returncode == 0, done.stdout + done.stderr
    require("chromium")
    page = cli.stores()[0].root / "report.html"
    with chromium_driver() as driver:
        driver.get(page.as_uri())
        drawn = driver.execute_script(
            "return Array.from(document.getElementById('curves').data, t => [t.name, Array.from(t.x), Array.from(t.y)])"
        )
        text = driver.find_element("tag name", "body").text
    curves = {name: (x, y) for name, x, y in drawn}
    for record in cli.records():
        points = [p for p in record.points if p["verdict"] != "invalid" and p["latency_ms"]["p90"] is not None]
        (name,) = (name for name in curves if set(name.split()) <= set(record.variant["label"].split()))
        x, y = curves[name]  # the legend has the words of the label in which the lines differ
        assert x == pytest.approx([point["achieved_ips"] for point in points], rel=1e-5)
        assert y == pytest.approx([point["latency_ms"]["p90"] for point in points], rel=1e-5)
    assert "samples/s keep p90 <= 100 ms" in text

"""The printed link, opened in a real browser on a real MLflow server, shows exactly the records' points."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from browser import chromium_driver, require
from mlflow_ui import curves_shown

from sweep.report.mlflow import Publisher
from sweep.spec import EngineAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant, flat, variant_key
from sweep.storage.record import Record
from sweep.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

SWEEP = "resnet18-h100"
FRACTIONS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 1.02)
PEAKS = {("fp32", 1): 2100.0, ("fp32", 8): 6100.0, ("fp16", 1): 3400.0, ("fp16", 8): 14800.0, ("int8", 8): 19300.0}


def _record(precision: str, batch: int, peak: float) -> Record:
    """A queue's curve: service time over idle capacity, a tail that grows faster than the median."""
    onnx = OnnxAxes(model=ModelRef(name="resnet18", revision=1), precision=Precision(name=precision, dtype=precision))
    variant = Variant(
        backend="tensorrt", onnx=onnx, engine=EngineAxes(batch=batch), session=SessionAxes(streams=2, cuda_graph=True)
    )
    service_ms = 1000.0 * batch / peak
    points = []
    for fraction in FRACTIONS:
        busy, kept = min(fraction, 0.985), min(fraction, 0.99)
        p50 = service_ms * (1 + 0.5 * busy / (1 - busy))
        latency = {"mean": p50 * 1.1, "p50": p50, "p90": p50 * 1.5, "p95": p50 * 1.8, "p99": p50 * 2.6, "p999": None}
        points.append(
            {
                "offered_ips": fraction * peak,
                "achieved_ips": kept * peak * 0.999,
                "requests": 900,
                "latency_ms": latency,
                "issue_lag_ms": 0.02,
                "verdict": "ok" if fraction < 1 else "overloaded",
            }
        )
    return Record(
        key=variant_key(variant),
        sweep=SWEEP,
        status="ok",
        started_at=f"2026-01-05T10:{batch:02d}:00+00:00",
        wall_s=41.5,
        variant=flat(variant),
        facts={"gpu": "NVIDIA H100 80GB HBM3", "driver": "570.86", "tensorrt": "10.9.0", "host": "lab7"},
        engine={"build_s": 22.4, "bytes": 24_000_000},
        peak={"ips": peak, "requests": 9000},
        points=points,
        accuracy={"reference": "fp32", "sqnr_db": 41.0, "top1_agreement": 0.998},
    )


@pytest.fixture
def records(tmp_path: Path) -> tuple[list[Record], Store]:
    """Five measured variants, one of them without a p99 in the middle, and one that TensorRT cannot build."""
    known = [_record(*axes, peak) for axes, peak in PEAKS.items()]
    gap = [dict(point) for point in known[0].points]
    gap[2]["latency_ms"] = gap[2]["latency_ms"] | {"p99": None}
    known[0] = replace(known[0], points=gap)
    error = {"stage": "plan", "kind": "UnsupportedError", "message": "fp8 needs compute capability 8.9"}
    cannot = replace(_record("fp8", 8, 1.0), status="unsupported", points=[], peak=None, engine=None, error=error)
    store = Store(tmp_path / "results" / SWEEP)
    for record in (known := [*known, cannot]):
        store.write(record)
    return known, store


@pytest.mark.e2e
@pytest.mark.chromium
def test_the_printed_link_shows_every_point_of_every_record(
    server: str, records: tuple[list[Record], Store], tmp_path: Path
) -> None:
    require("chromium")
    known, store = records
    done = Publisher(server, "sweep", SWEEP).publish(known, store)
    assert (done.sent, done.unchanged) == (6, 0)
    other = replace(_record("bf16", 4, 5000.0), sweep="other")
    (elsewhere := Store(tmp_path / "results" / "other")).write(other)
    Publisher(server, "sweep", "other").publish([other], elsewhere)  # shares the experiment, not the view
    assert done.url
    with chromium_driver() as driver:
        driver.get(done.url)
        try:
            curves = curves_shown(driver, want=len(PEAKS))
        finally:
            driver.save_screenshot(str(tmp_path / "view.png"))
        listed = driver.find_element("tag name", "body").text
    assert "bf16" not in listed
    for record in known:
        assert record.variant["label"] in listed
        for metric, percentile in (("curve/p99_ms", "p99"), ("curve/p50_ms", "p50")):
            points = [p for p in record.points if p["latency_ms"][percentile] is not None]
            if points:
                x, y = curves[metric][record.variant["label"]]
                assert x == pytest.approx([point["achieved_ips"] for point in points])
                assert y == pytest.approx([point["latency_ms"][percentile] for point in points])

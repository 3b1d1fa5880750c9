"""What limits a variant, from the figures of its record; and whether published experiments agree."""

from __future__ import annotations

import dataclasses

import bottleneck_labels
import measured_runs
import pytest
import records

from sweep.analysis import Limit, find_bottleneck
from sweep.analysis.bottleneck import LAUNCH
from sweep.report import frame_columns, outcome_lines
from sweep.report.columns import figures
from sweep.report.mlflow import record_mapping
from sweep.report.recommendation import Answer

GPU = {"gpu_ms": {"h2d": None, "compute": None, "d2h": None}, "enqueue_ms": None}


def part(ms: float) -> dict:
    return {"mean": ms, "p50": ms, "p99": ms}


def on_gpu(  # each argument is a figure of the record
    ips: float = 1000.0, *, h2d=0.01, compute=0.97, d2h=0.02, enqueue=0.01, watts=250.0, reasons=None, **changes
):
    """A record of an H200 whose inferences at batch 1 take 1 ms."""
    telemetry = {
        "energy_j_per_sample": watts / ips,
        "throttle_reasons": reasons or {},
        "sm_clock_mhz": {"mean": 1980.0, "min": 1980.0, "max": 1980.0},
        "power_w": None,
    }
    gpu_ms = {"h2d": part(h2d), "compute": part(compute), "d2h": part(d2h)}
    peak = records.peak(ips, gpu_ms=gpu_ms, enqueue_ms=part(enqueue), telemetry=telemetry, **changes.pop("peak", {}))
    return measured_runs.record(peak=peak, **{"realised": {"cuda_graph": False}, **changes})


@pytest.mark.parametrize(
    ("given", "limit", "evidence", "tries"),
    [
        (
            {"enqueue": 0.9},
            Limit.HOST,
            "enqueueing takes 0.9 ms of the host, 90% of the 1 ms",
            "cuda_graph=true streams=2",
        ),
        ({"enqueue": 0.9, "axes": {"streams": 2}}, Limit.HOST, "90%", "cuda_graph=true"),
        ({"enqueue": 0.9, "realised": {"cuda_graph": True}}, Limit.HOST, "with a CUDA graph", "batch=4"),
        (
            {"enqueue": 0.9, "peak": {"cpu_load": {"own": 0.3, "other": 0.4}}},
            Limit.CPU_CROWDED,
            "other programs used 40% of the cores",
            "the same once they have ended",
        ),
        ({"h2d": 0.3, "compute": 0.6}, Limit.TRANSFERS, "copies take 0.32 ms, 35% of an inference", "streams=2"),
        (
            {"h2d": 0.8, "axes": {"streams": 4}},
            Limit.TRANSFERS,
            "copies to the device keep the link busy for 80% of the time",
            "precision.keep_io=false",
        ),
        ({"reasons": {"sw_power_cap": 0.8}}, Limit.POWER, "sw_power_cap in 80% of the readings", "precision=tf32,fp16"),
        ({"watts": 690.0}, Limit.POWER, "690 W, 99% of the board's limit", "precision=tf32,fp16"),
        ({"watts": 200.0, "facts": {"power_limit_w": 210}}, Limit.POWER, "95% of the board's", "precision=tf32,fp16"),
        ({"watts": 200.0}, Limit.LAUNCHES, "200 W, 29% of the board's limit", "streams=2"),
        ({"watts": 450.0}, Limit.GPU, "450 W, 64% of the board's limit", "precision=tf32,fp16"),
        (
            {"watts": 450.0, "model": {"parameters": 1, "gmacs": 20.0}},
            Limit.COMPUTE,
            "60% of the GPU's peak for this type",
            "precision=tf32,fp16",
        ),
        ({"facts": {"gpu": "NVIDIA Unheard-of"}}, Limit.UNKNOWN, "an inference computes for 0.97 ms", "layers=true"),
    ],
)
def test_the_figures_of_a_gpu_name_its_limit(given: dict, limit: Limit, evidence: str, tries: str) -> None:
    found = find_bottleneck(on_gpu(**given))
    assert (found.limit, found.experiments[0] if found.experiments else "") == (limit, tries)
    assert found.evidence[0].startswith(evidence) or evidence in " ".join(found.evidence)
    assert found.text.startswith(f"{limit} (")
    assert "\n" not in found.text


@pytest.mark.parametrize(
    ("bound", "limit"), [("compute", Limit.COMPUTE), ("memory", Limit.MEMORY), (LAUNCH, Limit.LAUNCHES)]
)
def test_a_profile_of_the_layers_tells_compute_from_memory_and_no_board_is_needed(bound: str, limit: Limit) -> None:
    layers = {"layers": {"bound": bound}}
    record = on_gpu(facts={"gpu": "NVIDIA Unheard-of"})
    assert find_bottleneck(dataclasses.replace(record, engine={**(record.engine or {}), **layers})).limit == limit
    waits = on_gpu(enqueue=0.9)
    waits = dataclasses.replace(waits, engine={**(waits.engine or {}), **layers})
    assert find_bottleneck(waits).limit == Limit.HOST, "a GPU that waits says nothing of itself"


@pytest.mark.parametrize(
    ("load", "axes", "limit", "tries"),
    [
        ({"own": 0.26, "other": 0.01}, {}, Limit.THREADS, "streams=2"),
        ({"own": 0.97, "other": 0.01}, {"streams": 4}, Limit.COMPUTE, "precision=tf32,fp16"),
        ({"own": 0.3, "other": 0.5}, {}, Limit.CPU_CROWDED, "the same once they have ended"),
        ({"own": 0.1, "other": 0.01}, {}, Limit.UNKNOWN, "layers=true"),
        (None, {}, Limit.UNKNOWN, None),
    ],
)
def test_a_cpu_is_crowded_busy_or_has_cores_left(load, axes: dict, limit: Limit, tries: str | None) -> None:
    record = measured_runs.record(
        axes={"backend": "onnxruntime", **axes}, facts={"cores": 4}, peak=records.peak(1000.0, cpu_load=load)
    )
    found = find_bottleneck(record)
    assert found.limit == limit
    assert tries is None or found.experiments[0] == tries
    assert "cores" in found.text


def test_waiting_limits_a_capacity_that_the_service_would_keep() -> None:
    slo = {
        "percentile": 99.0,
        "limit_ms": 4.0,
        "capacity_ips": 500.0,
        "confidence": 0.99,
        "next_ips": 600.0,
        "monotonic": True,
    }
    point = records.point(100.0, {"p50": 1.0})
    found = find_bottleneck(on_gpu(slo=slo, points=[point]))
    assert (found.limit, found.experiments) == (Limit.QUEUEING, ("streams=2", "clients=2"))
    assert found.evidence[0] == "p99 reaches 4 ms at 50% of the peak"
    slow = find_bottleneck(on_gpu(slo=slo, points=[records.point(100.0, {"p50": 3.0})]))
    assert slow.limit == Limit.LAUNCHES, "the service itself takes most of the limit"


def test_what_computes_nothing_and_what_has_no_peak_is_limited_by_nothing() -> None:
    assert find_bottleneck(measured_runs.record(axes={"backend": "simulated"})) is None
    assert find_bottleneck(measured_runs.record(peak=None)) is None
    assert find_bottleneck(measured_runs.record(peak=records.peak(None))) is None


def test_published_records_agree_with_what_their_experiments_gave() -> None:
    """The counts of docs/evidence/bottleneck.md."""
    table = bottleneck_labels.rows("matrix")
    assert bottleneck_labels.graph_confusion(table) == {
        (True, True): 23,
        (True, False): 2,
        (False, True): 2,
        (False, False): 85,
    }
    gains = bottleneck_labels.gains(table)
    assert min(gains[Limit.LAUNCHES]) > 1.15
    assert min(gains[Limit.TRANSFERS]) > 1.15
    assert sorted(gains[Limit.POWER])[len(gains[Limit.POWER]) // 2] < 1.02


def test_the_line_below_the_answer_the_columns_and_the_tags_say_the_same() -> None:
    record = on_gpu(enqueue=0.9)
    answer = Answer(best=record, tied=(), text="it")
    assert outcome_lines.bottleneck_lines(answer) == [f"What limits it: {find_bottleneck(record).text}"]
    of_two = Answer(best=None, tied=(), text="", models={"a": answer, "b": Answer(best=None, tied=(), text="none")})
    assert outcome_lines.bottleneck_lines(of_two)[0].startswith("What limits tiny_cnn: host enqueue (")
    other = Answer(best=dataclasses.replace(record, sweep="later"), tied=(), text="it")
    of_sweeps = Answer(best=None, tied=(), text="", models={"a": answer, "b": other})
    assert outcome_lines.bottleneck_lines(of_sweeps)[1].startswith("What limits later: tiny_cnn: host enqueue (")
    columns = {
        column.name: column.read(record) for column in frame_columns._OF_A_RECORD if column.name.startswith("limit")
    }
    assert columns["limited_by"] == record_mapping.tags(record)["sweep.limited_by"] == "host enqueue"
    assert columns["limit_experiments"] == "cuda_graph=true streams=2; batch=4"
    shown = {column.name: column for column in figures([record], answer, None)}
    assert shown["bottleneck"].text(record) == "host enqueue"
    assert not shown["bottleneck"].on_terminal

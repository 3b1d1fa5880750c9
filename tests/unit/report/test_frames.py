"""Frames of records: columns, types, units, and the same rows whatever the way out."""

import dataclasses
from pathlib import Path

import factories
import numpy as np
import pytest
from measured_runs import record, results
from records import point

import sweep
from sweep.cli import commands
from sweep.errors import ConfigError
from sweep.report import frames, outcome_lines
from sweep.report.frame_columns import TABLES
from sweep.storage import NEVER, PointSamples, samples_file
from sweep.storage.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A results folder with a sweep of two variants; one has samples."""
    root = tmp_path_factory.mktemp("results") / "night"
    rungs = [point(100.0, {"p99": 2.0, "p50": 1.0}), point(400.0, {"p99": 5.0}, "overloaded")]
    captured = record(8, [2000.0, 2010.0], points=rungs, axes={"cuda_graph": True})
    failed = record(1, status="failed", peak=None, error={"stage": "build", "message": "no kernel, really"})
    for item in (captured, failed):
        Store(root).write(item)
    scheduled = np.arange(5, dtype=np.int64) * 1_000_000
    served = PointSamples(
        kind="closed",
        index=-1,
        repeat=0,
        batch=8,
        offered_rps=None,
        overloaded=False,
        complete=True,
        scheduled_ns=scheduled,
        issued_ns=scheduled,
        done_ns=np.where(scheduled == 4_000_000, NEVER, scheduled + 2_500_000),
        slot_free=np.ones(5, bool),
        warmup=np.arange(5) == 0,
        stream=np.zeros(5, np.int16),
    )
    samples_file.save(Store(root).samples_path(captured.key), [served])
    return root.parent


def test_one_row_a_variant_with_typed_columns(folder: Path) -> None:
    frame = sweep.frame("night", results=folder)
    assert len(frame) == 2
    row = frame.set_index("batch").loc[8]
    assert row["peak_ips"] == pytest.approx(2005, rel=1e-4)
    assert (row["starts"], row["status"], row["precision"], row["gpu"]) == (2, "ok", "fp32", "NVIDIA H200")
    assert row["p99_light_ms"] == 2.0
    assert bool(row["cuda_graph"]) is True  # an axis that some record sets
    assert "mps" not in frame.columns
    failed = frame.set_index("batch").loc[1]
    assert (failed["error_stage"], failed["error"]) == ("build", "no kernel, really")
    assert np.isnan(failed["peak_ips"])
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert (kinds["batch"], kinds["peak_ips"], kinds["cuda_graph"]) == ("Int64", "float64", "boolean")
    assert kinds["started_at"] == "datetime64[us, UTC]"
    assert kinds["status"] == "string"
    every = {str(kind) for table in TABLES for kind in sweep.frame("night", table, results=folder).dtypes}
    assert every == set(frames.DTYPES.values())  # none is "object"


def test_ratios_are_those_of_the_sweep_and_memory_that_of_all_clients() -> None:
    sizes = [{"device_memory_bytes": 3}, {"device_memory_bytes": 4}]
    fp32 = record(8, [2000.0, 2010.0])
    fp16 = record(8, [4000.0, 4020.0], axes={"precision": factories.recipe("fp16")}, realised={"clients": sizes})
    elsewhere = record(1, [9000.0, 9000.0], sweep="another")
    frame = results("a", fp32, fp16, elsewhere).frame().set_index("key")
    assert frame.loc[fp16.key, "peak_over_fp32"] == pytest.approx(2.0)
    assert frame.loc[fp16.key, ["of_best_low", "of_best_high"]].tolist() == [1.0, 1.0]
    assert frame.loc[fp32.key, "of_best_low"] < 0.5 < frame.loc[fp32.key, "of_best_high"] < 1
    assert frame.loc[elsewhere.key, "of_best_low"] == 1.0
    assert frame["device_memory_bytes"].tolist()[1] == 7
    assert frame["device_memory_bytes"].isna().tolist() == [True, False, True]


def test_one_row_a_point_the_closed_loop_first(folder: Path) -> None:
    frame = sweep.load("night", results=folder).frame("points")
    assert frame["rung"].tolist() == [-1, 0, 1]
    assert frame["achieved_ips"].tolist() == pytest.approx([2004.99, 100, 400], rel=1e-4)
    assert frame["verdict"].tolist() == ["ok", "ok", "overloaded"]
    assert frame["p99_ms"].tolist()[1:] == [2.0, 5.0]


def test_one_row_a_shape_and_a_line_of_each_shape_below_the_table() -> None:
    latency = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p999", "max"), 2.0)
    small = {"shape": "seq:64", "requests": 30, "share": 0.75, "padding": 0.2, "latency_ms": latency | {"p99": None}}
    large = {"shape": "seq:384", "requests": 10, "share": 0.25, "padding": 0.0, "latency_ms": latency}
    changes = [
        {"shape": "seq:64", "after": "seq:384", "stay_ms": 1.0, "change_ms": 1.5, "inferences": 9},
        {"shape": "seq:384", "after": "seq:64", "stay_ms": 4.0, "change_ms": 4.25, "inferences": 9},
    ]
    plain = record(1, [2000.0])
    mixed = dataclasses.replace(
        plain,
        peak={**(plain.peak or {}), "shapes": [small, large], "padding": 0.1},
        realised={"shape_changes": changes},
    )
    frame = results("a", mixed).frame("shapes")
    assert frame["shape"].tolist() == ["seq:64", "seq:384"]
    assert frame["rung"].tolist() == [-1, -1]
    assert frame["padding"].tolist() == [0.2, 0.0]
    assert frame["p99_ms"].isna().tolist() == [True, False]
    assert results("a", plain).frame("shapes").empty
    assert outcome_lines.shape_lines([plain, mixed], {plain.key: "bert"}) == [
        (
            "bert: closed loop by shape: seq:64 (75%) p50 2 ms; seq:384 (25%) p50 2 ms, p99 2 ms; "
            "10.0% of the computed elements are padding"
        ),
        "bert: the dearest change of shape is seq:384 to seq:64: 1.5 ms after it, 1 ms when the shape stays",
    ]


def test_one_row_a_request_from_the_samples(folder: Path) -> None:
    frame = sweep.frame("night", "requests", results=folder)
    assert len(frame) == 5
    assert frame["latency_ms"].tolist()[:4] == [2.5] * 4
    assert np.isnan(frame["latency_ms"][4])
    assert frame["done_ns"].isna().tolist() == [False] * 4 + [True]
    assert frame["measured"].tolist() == [False, True, True, True, False]
    assert frame["scheduled_ns"].tolist() == [n * 1_000_000 for n in range(5)]
    assert frame["client"].isna().all()
    assert str(frame["done_ns"].dtype) == "Int64"


def test_requests_without_samples_and_an_unknown_table_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"a: no record has its samples beside it .*baselines, MLflow"):
        results("a", record()).frame("requests")
    with pytest.raises(ConfigError, match="table 'rows': no such table; there are variants, points, requests"):
        results("a", record()).frame("rows")  # type: ignore[arg-type]
    assert results("a").frame().empty
    assert list(results("a").frame("points").columns) == [column.name for column in TABLES["points"]]


@pytest.mark.filterwarnings("error:.*deprecated")
def test_csv_parquet_and_json_hold_what_the_frame_holds(folder: Path, tmp_path: Path, capsys) -> None:
    import pandas as pd

    files = {name: str(tmp_path / f"out.{name}") for name in ("csv", "parquet", "json")}
    words = ["export", "night", "--results", str(folder), "--csv", files["csv"], "--parquet", files["parquet"]]
    assert commands.main([*words, "--json", files["json"]]) == 0
    assert "out.csv: 2 rows of variants" in capsys.readouterr().out
    frame = sweep.frame("night", results=folder)
    pd.testing.assert_frame_equal(pd.read_parquet(files["parquet"]), frame)
    read = pd.read_csv(files["csv"])
    assert list(read.columns) == list(frame.columns)
    assert read["error"].dropna().tolist() == ["no kernel, really"]
    assert read["peak_ips"].tolist() == pytest.approx(frame["peak_ips"].tolist(), nan_ok=True)
    pd.testing.assert_frame_equal(sweep.load(files["json"]).frame(), frame)
    assert commands.main([*words, "--points"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(files["parquet"]), sweep.frame("night", "points", results=folder))
    assert pd.read_csv(files["csv"])["p99_ms"].tolist() == pytest.approx([float("nan"), 2.0, 5.0], nan_ok=True)
    assert commands.main([*words, "--requests"]) == 0
    assert len(pd.read_parquet(files["parquet"])) == 5
    for wrong, line in (
        (["export", "night"], "nothing to write"),
        ([*words[:4], "--json", files["json"], "--points"], "--json writes whole records"),
        ([*words[:4], "--csv", str(tmp_path)], "is no regular file, and is not replaced"),
        ([*words[:4], "--json", str(folder / "night" / "config.json")], "lies among the files that sweep itself keeps"),
        (
            ["report", str(folder / "night"), "--png", str(folder / "mlflow.db")],
            "lies among the files that sweep itself",
        ),
        (["export", "nowhere", "--csv", files["csv"]], "no folder with records"),
    ):
        assert commands.main(wrong) == 2
        assert line in capsys.readouterr().err

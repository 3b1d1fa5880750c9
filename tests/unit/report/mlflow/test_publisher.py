"""Records replayed into a real sqlite store: what is there after one publish, two, and a crash between."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow_store
import pytest
from records import peak
from records import point as record_point

from sweep.cli.commands import main
from sweep.errors import TrackingError
from sweep.report.mlflow import Publisher, default_uri
from sweep.spec import (
    EngineAxes,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    Variant,
    flat,
    from_record,
    side_by_side,
    variant_key,
)
from sweep.storage.record import Record
from sweep.storage.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP = "it's a sweep"


@pytest.fixture
def store(tmp_path: Path, empty_db: bytes) -> Store:
    (tmp_path / "mlflow.db").write_bytes(empty_db)
    (tmp_path / SWEEP).mkdir()
    return Store(tmp_path / SWEEP)


def point(offered: float, p99: float | None, verdict: str = "ok") -> dict[str, Any]:
    latency = {"mean": 1.1, "p50": 1.0, "p90": 1.5, "p95": 1.7, "p99": p99}
    return record_point(offered, latency, verdict, achieved_ips=offered * 0.99)


def measured(batch: int = 1, **changes: Any) -> Record:
    onnx = OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp16", dtype="fp16"))
    load = LoadAxes(fractions=(0.5, 0.8))
    variant = Variant(backend="onnxruntime", onnx=onnx, engine=EngineAxes(batch=batch), load=load)
    record = Record(
        key=variant_key(variant),
        sweep=SWEEP,
        status="ok",
        started_at="2026-01-05T10:00:00+00:00",
        wall_s=12.5,
        variant=flat(variant),
        facts={"cpu": "EPYC", "gpu": None, "onnxruntime": "1.20"},
        engine={"build_s": 3.0, "bytes": 1000},
        peak=peak(100.0),
        points=[point(20.0, 2.0), point(80.0, 5.0), point(99.0, None, "overloaded")],
        slo={
            "percentile": 99.0,
            "limit_ms": 6.0,
            "capacity_ips": 85.0,
            "confidence": 0.995,
            "next_ips": 99.0,
            "monotonic": True,
        },
        accuracy={"reference": "fp32", "sqnr_db": 40.0, "top1_agreement": None},
    )
    return replace(record, **changes)


def publish(store: Store, *records: Record) -> tuple[int, int]:
    for record in records:
        store.write(record)
    done = Publisher(default_uri(store.root.parent), "sweep", SWEEP).publish(records, store)
    assert done.url
    assert re.match(r"http://127.0.0.1:\d+/#/experiments/1/runs\?", done.url)
    return done.sent, done.unchanged


def client(store: Store) -> MlflowClient:
    return mlflow_store.client(default_uri(store.root.parent))


def variants(store: Store, *, deleted: bool = False) -> list[Run]:
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    return list(client(store).search_runs(["1"], "tags.`sweep.kind` = 'variant'", view))


def everything(store: Store) -> Any:
    """All that MLflow holds of the active runs, metric histories and artifacts with their content included."""
    mlflow, seen = client(store), {}
    for run in mlflow.search_runs(["1"]):
        run_id = run.info.run_id
        history = {
            key: [(m.timestamp, m.step, m.value) for m in mlflow.get_metric_history(run_id, key)]
            for key in run.data.metrics
        }
        info = (run.info.status, run.info.start_time, run.info.end_time, run.data.tags, run.data.params)
        seen[run_id] = (info, history, [(file.path, file.file_size) for file in mlflow.list_artifacts(run_id)])
    files = {path: path.stat().st_mtime_ns for path in (store.root.parent / "mlartifacts").rglob("*")}
    return seen, files, mlflow.get_experiment("1").tags


def curve(store: Store, run: Run, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client(store).get_metric_history(run.info.run_id, key))


def test_a_record_becomes_a_child_run_with_params_tags_and_scalars(store: Store) -> None:
    assert publish(store, measured()) == (1, 0)
    [run] = variants(store)
    assert run.info.run_name == "tiny_cnn fp16 b1 s1"
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 12500)
    assert (
        run.data.params.items()
        >= {
            "model": "tiny_cnn",
            "precision": "fp16",
            "batch": "1",
            "mps": "none",
            "cuda_graph": "false",
            "load.fractions": "[0.5, 0.8]",
            "model_ref.path": "none",
            "seed": "0",
        }.items()
    )
    parent = client(store).get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.data.tags["sweep.kind"]) == (SWEEP, "sweep")
    assert (parent.info.status, parent.info.end_time) == ("FINISHED", run.info.end_time)
    wanted = {"sweep.status": "ok", "sweep.backend": "onnxruntime", "facts.cpu": "EPYC", "sweep.key": measured().key}
    assert run.data.tags.items() >= wanted.items()
    assert run.data.tags["sweep.limited_by"] == "unknown"
    assert run.data.tags["sweep.limit_evidence"].startswith("unknown (no use of cores and no time on a GPU")
    assert "facts.gpu" not in run.data.tags
    scalars = {key: value for key, value in run.data.metrics.items() if "/" not in key}
    assert scalars == {
        "wall_s": 12.5,
        "build_s": 3.0,
        "engine_bytes": 1000.0,
        "peak_samples_per_s": 100.0,
        "p50_light_ms": 1.0,
        "p99_light_ms": 2.0,
        "p50_at_80_percent_ms": 1.0,
        "p99_at_80_percent_ms": 5.0,
        "capacity_samples_per_s": 85.0,
        "accuracy.sqnr_db": 40.0,
    }


def test_the_curve_is_there_twice_and_what_is_not_known_is_absent(store: Store) -> None:
    publish(store, measured())
    [run] = variants(store)
    assert curve(store, run, "curve/achieved_samples_per_s") == [(0, 19.8), (1, 79.2), (2, 98.01)]
    assert curve(store, run, "curve/offered_samples_per_s") == [(0, 20.0), (1, 80.0), (2, 99.0)]
    assert curve(store, run, "curve/p99_ms") == [(0, 2.0), (1, 5.0)]
    assert curve(store, run, "latency/p99_ms") == [(20, 2.0), (79, 5.0)]
    assert curve(store, run, "curve/ok") == [(0, 1.0), (1, 1.0), (2, 0.0)]
    assert "curve/p999_ms" not in run.data.metrics


def test_the_record_itself_and_the_files_of_the_sweep_are_attached(store: Store) -> None:
    (store.root / "config.json").write_text("{}")
    publish(store, measured())
    (store.root / "report.html").write_text("<p>é</p>")
    publish(store, measured())
    [run] = variants(store)
    path = client(store).download_artifacts(run.info.run_id, "record.json")
    assert run.info.artifact_uri.startswith((store.root.parent / "mlartifacts").as_uri())
    assert Path(path).read_bytes() == store.record_path(measured().key).read_bytes()
    parent = run.data.tags["mlflow.parentRunId"]
    assert [file.path for file in client(store).list_artifacts(parent)] == ["config.json", "report.html"]


def test_a_layer_profile_is_attached_once_also_to_a_run_that_was_sent_before(store: Store) -> None:
    publish(store, measured(1), measured(8))
    path = store.layers_path(measured(8).key)
    path.parent.mkdir()
    for content in (b'{"layers": []}', b'{"layers": [1]}'):
        path.write_bytes(content)
        assert publish(store, measured(1), measured(8)) == (1, 1)
        assert publish(store, measured(1), measured(8)) == (0, 2)
        attached = {
            run.data.tags["sweep.key"]: Path(client(store).download_artifacts(run.info.run_id, f"layers/{path.name}"))
            for run in variants(store)
            if client(store).list_artifacts(run.info.run_id, "layers")
        }
        assert {key: file.read_bytes() for key, file in attached.items()} == {measured(8).key: content}


def test_a_network_beside_another_has_its_slowdown_once_it_was_measured_alone(store: Store) -> None:
    alone = measured()
    variant = from_record(dict(alone.variant))
    other = replace(variant, onnx=replace(variant.onnx, model=ModelRef(name="mlp", revision=1)))
    shared = side_by_side.beside(variant, [other], "processes")
    slower = {**alone.peak, "ips": 40.0, "latency_ms": {**dict.fromkeys(("p50", "p99"), 5.0)}}
    beside = replace(alone, key=variant_key(shared), variant=flat(shared), peak=slower)
    assert publish(store, beside) == (1, 0)
    assert "slowdown.throughput" not in variants(store)[0].data.metrics
    assert publish(store, alone, beside) == (2, 0), "what it is compared with has come"
    (run,) = [run for run in variants(store) if run.data.params["beside"] != "none"]
    assert run.data.params["beside"] == "mlp-fp16-b1"
    assert run.data.params["sharing"] == "processes"
    assert run.data.metrics["slowdown.throughput"] == 2.5
    assert publish(store, alone, beside) == (0, 2)


def test_publishing_twice_changes_nothing(store: Store) -> None:
    (store.root / "config.yaml").write_text("a: 1")
    records = [measured(1), measured(8)]
    assert publish(store, *records) == (2, 0)
    before = everything(store)
    assert publish(store, *records) == (0, 2)
    assert everything(store) == before


def test_a_changed_record_replaces_its_run(store: Store) -> None:
    publish(store, measured(1), measured(8))
    assert publish(store, measured(1, peak=peak(123.0)), measured(8)) == (1, 1)
    assert sorted(run.data.metrics["peak_samples_per_s"] for run in variants(store)) == [100.0, 123.0]
    assert len(variants(store, deleted=True)) == 1


def test_a_publish_that_died_half_way_goes_on_in_the_same_run(store: Store) -> None:
    publish(store, measured())
    before = everything(store)[0]
    [run] = variants(store)
    client(store).delete_tag(run.info.run_id, "sweep.record_sha")
    assert publish(store, measured()) == (1, 0)
    assert everything(store)[0] == before


def test_a_record_that_changed_after_a_half_way_death_does_not_mix_with_the_old_one(store: Store) -> None:
    publish(store, measured())
    [old] = variants(store)
    client(store).delete_tag(old.info.run_id, "sweep.record_sha")
    publish(store, measured(points=[point(50.0, 3.0)]))
    [run] = variants(store)
    assert run.info.run_id != old.info.run_id
    assert curve(store, run, "curve/p99_ms") == [(0, 3.0)]


def test_two_runs_of_one_record_made_by_two_machines_become_one(store: Store) -> None:
    publish(store, measured())
    [run] = variants(store)
    client(store).create_run("1", run.info.start_time + 1, run.data.tags, run.info.run_name)
    spare = {"sweep.kind": "sweep", "sweep.name": SWEEP}
    client(store).create_run("1", run.info.start_time + 1, spare, SWEEP)
    assert publish(store, measured()) == (0, 1)
    assert [left.info.run_id for left in variants(store)] == [run.info.run_id]
    assert len(client(store).search_runs(["1"])) == 2


@pytest.mark.parametrize(
    ("status", "shown"), [("unsupported", "FINISHED"), ("failed", "FAILED"), ("oom", "FAILED"), ("crashed", "FAILED")]
)
def test_what_did_not_run_is_a_run_with_its_reason(store: Store, status: str, shown: str) -> None:
    error = {"stage": "build", "kind": "BuildError", "message": "no kernel", "stderr_tail": "..."}
    bare = {"engine": None, "peak": None, "points": [], "slo": None, "accuracy": None, "wall_s": None}
    publish(store, measured(status=status, error=error, **bare))
    [run] = variants(store)
    assert run.info.status == shown
    assert run.data.tags.items() >= {"sweep.status": status, "sweep.error": "build: no kernel"}.items()
    assert run.data.metrics == {}


def test_what_ran_otherwise_than_asked_shows_no_speed(store: Store) -> None:
    publish(store, measured(1, status="invalid"), measured(8, points=[point(20.0, 1.0, "invalid"), point(30.0, 2.0)]))
    metrics = {run.data.tags["sweep.status"]: run.data.metrics for run in variants(store)}
    assert set(metrics["invalid"]) == {"wall_s", "build_s", "engine_bytes", "accuracy.sqnr_db"}
    assert metrics["ok"]["curve/achieved_samples_per_s"] == 29.7
    assert metrics["ok"]["p99_light_ms"] == 2.0  # of the lowest rung that counts


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([point(75.0, 7.5), point(85.0, 8.5)], 7.5),  # the lower of two that are as near
        ([point(79.0, None), point(60.0, 6.0)], None),
        ([point(80.0, 8.0, "invalid"), point(75.0, 7.5)], 7.5),
        ([point(80.0, 8.0, "unstable"), point(75.0, 7.5)], 8.0),  # kept and shown as such
        ([point(50.0, 5.0), point(95.0, 9.5)], None),  # neither is anywhere near
    ],
)
def test_p99_at_80pct_is_that_or_nothing(store: Store, points: list[dict[str, Any]], expected: float | None) -> None:
    publish(store, measured(points=points))
    assert variants(store)[0].data.metrics.get("p99_at_80_percent_ms") == expected


def test_more_values_than_one_call_takes(store: Store) -> None:
    many = [point(float(n), 1.0 + n) for n in range(1, 251)]
    facts = {f"library_{n}": str(n) for n in range(150)}
    assert publish(store, measured(points=many, facts=facts)) == (1, 0)
    [run] = variants(store)
    assert curve(store, run, "curve/p99_ms") == [(n - 1, 1.0 + n) for n in range(1, 251)]
    assert Counter(tag.startswith("facts.") for tag in run.data.tags)[True] == 150


def test_the_command_publishes_every_sweep_below_the_folder(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write(measured())
    nested = Store(store.root.parent / "reference" / "h100")
    nested.write(measured(8, sweep="h100"))
    (nested.root / "records" / "torn.json").write_text("{")
    assert main(["publish", str(store.root.parent)]) == 0
    told = capsys.readouterr().out
    assert "1 sent, 0 unchanged (" in told
    assert "1 sent, 0 unchanged, 1 cannot be read" in told
    assert told.count("viewStateShareKey=") == 2
    assert {run.data.tags["sweep.name"] for run in variants(store)} == {SWEEP, "reference/h100"}
    assert main(["publish", str(store.root.parent), "nosuch"]) == 2
    assert "no records of nosuch" in capsys.readouterr().err


def test_rows_written_together_are_those_that_mlflows_calls_write(
    store: Store, empty_db: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = {"inputs": "held-out samples of digits"}
    calibration = {"source": "training data", "digest": None, "samples": 64}
    spent = measured(1, realised=info, engine={"bytes": 1, "calibration": calibration, "artifacts": ["a.json"]})
    odd = measured(2, accuracy=None, wall_s=None)
    records = [spent, odd, measured(3, status="failed", error={"stage": "load", "kind": "Error", "message": "no"})]
    calls = Store(tmp_path / "calls" / SWEEP)
    for own in (store, calls):
        own.root.mkdir(parents=True, exist_ok=True)
        (own.root / "a.json").write_text("{}")
    (tmp_path / "calls" / "mlflow.db").write_bytes(empty_db)
    publish(store, *records)
    monkeypatch.setattr("sweep.report.mlflow.runs.sql_store", lambda _: None)
    publish(calls, *records)
    [bulk, single] = [
        {run.data.tags["sweep.key"]: (run, shown(run, own)) for run in variants(own)} for own in (store, calls)
    ]
    assert {key: text for key, (_, text) in bulk.items()} == {key: text for key, (_, text) in single.items()}
    used = bulk[spent.key][0].inputs.dataset_inputs
    assert {item.dataset.name: item.tags[0].value for item in used} == {
        "held-out samples of digits": "evaluation",
        "training data (64 samples)": "calibration",
    }


def shown(run: Run, store: Store) -> Any:
    """All that a run shows, but for its ids and its parent's."""
    mlflow = client(store)
    history = {
        key: [(m.timestamp, m.step, m.value) for m in mlflow.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    inputs = {item.tags[0].value: item.dataset.to_dictionary() for item in run.inputs.dataset_inputs}
    info = {name: value for name, value in dict(run.info).items() if name not in {"run_id", "run_uuid", "artifact_uri"}}
    files = [
        (file.path, file.file_size)
        for folder in (None, "engine")
        for file in mlflow.list_artifacts(run.info.run_id, folder)
    ]
    tags = {name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"}
    return info, tags, run.data.params, run.data.metrics, history, inputs, files


def test_a_deleted_experiment_is_named(store: Store) -> None:
    publish(store, measured())
    client(store).delete_experiment("1")
    with pytest.raises(TrackingError, match=r"experiment 'sweep' is deleted there.*publishing again"):
        publish(store, measured())


def test_a_hundred_records_publish_quickly(store: Store) -> None:
    records = [measured(batch) for batch in range(1, 101)]
    began = time.process_time()
    assert publish(store, *records) == (100, 0)
    sent = time.process_time()
    assert publish(store, *records) == (0, 100)
    assert time.process_time() - sent < 5.0
    assert sent - began < 5.0  # 20 runs/s and more


def test_a_run_whose_engine_is_that_of_another_says_so_even_if_it_was_sent_before(store: Store) -> None:
    plain, batch = measured(), measured(2)
    engines = [{"key": key, "plan_digest": digest} for key, digest in (("e1", "a"), ("e2", "b"), ("e3", "a"))]
    knob = replace(measured(), key="k3", variant={**plain.variant, "tiling": "full"}, engine=engines[2])
    publish(store, knob)
    assert "sweep.same_engine_as" not in variants(store)[0].data.tags
    publish(store, replace(plain, engine=engines[0]), replace(batch, engine=engines[1]), knob)
    marks = {run.data.tags["sweep.key"]: run.data.tags.get("sweep.same_engine_as") for run in variants(store)}
    assert {key for key, mark in marks.items() if mark} == {"k3"}
    names = {run.data.tags["sweep.key"]: run.info.run_name for run in variants(store)}
    assert marks["k3"] == names[plain.key]
    assert {run.data.tags["sweep.plan_digest"] for run in variants(store)} == {"a", "b"}

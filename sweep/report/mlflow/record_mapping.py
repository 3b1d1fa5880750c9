"""Map one record to the params, tags, metrics and datasets of MLflow. None is left out, never zero.

The functions are pure. Figures have the names that the CSV files and frames give them, which end with the unit: MLflow
writes the name of a metric on the axis of its charts.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sweep.analysis import find_bottleneck, record_views
from sweep.report.mlflow.new_run import SampleSet
from sweep.report.stage_shares import shares
from sweep.spec import Pipeline, Status, from_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sweep.spec import JsonDict
    from sweep.storage import Point, Record

VERSION = b"2"  # of this mapping: runs of an older one are replaced
MAX_TEXT = 5000  # characters of a param or tag; MLflow takes 6000 and 8000
Figure = Literal["mean", "p50", "p90", "p95", "p99", "p999"]
PERCENTILES: tuple[Figure, ...] = ("mean", "p50", "p90", "p95", "p99", "p999")
_COST = ("parameters", "gmacs")
FINISHED = (Status.OK, Status.UNSUPPORTED)  # records with another status become FAILED runs


_MAX_NAME, _MAX_DIGEST = 500, 36  # characters of the name and the digest of an MLflow dataset
PEAK, TAIL, CAPACITY = "peak_samples_per_s", "p99_at_80_percent_ms", "capacity_samples_per_s"
SQNR, ENERGY, MEMORY = "accuracy.sqnr_db", "energy_mj_per_sample", "device_memory_mib"
CURVE_X = "curve/achieved_samples_per_s"


class Value(NamedTuple):
    """Hold one value of a metric.

    Attributes:
        key: name of the metric.
        value: its value.
        step: load index under ``curve/``, samples/s under ``latency/``, else 0.
    """

    key: str
    value: float
    step: int


def fingerprint(content: bytes) -> str:
    """Return what tells two runs apart that show the bytes of a record, or show them differently."""
    return hashlib.sha256(VERSION + content).hexdigest()


def started_ms(record: Record) -> int:
    """Return the start of the record, Unix milliseconds, which is the timestamp of all its metrics."""
    # One timestamp for all metrics: a replay of the record adds no values.
    start = datetime.fromisoformat(record.started_at)
    return round((start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp() * 1000)


def ended_ms(record: Record) -> int:
    """Return the end of the record, Unix milliseconds."""
    return started_ms(record) + round((record.wall_s or 0.0) * 1000)


def params(record: Record) -> dict[str, str]:
    """Return every axis by its dotted name, and the cost of the network; ``none`` for what is not set or unknown."""
    axes: JsonDict = {name: value for name, value in record.variant.items() if name not in {"label", "pipeline"}}
    if axes.get("beside"):  # each with all of its axes, which are in the record
        axes["beside"] = " + ".join(each.name for each in from_record(dict(record.variant)).session.beside or ())
    axes |= _pipeline(record)
    axes |= {f"model.{name}": (record.model or {}).get(name) for name in _COST if record.model}
    return {name: "none" if value is None else _text(value) for name, value in _leaves(axes)}


def _pipeline(record: Record) -> dict[str, Any]:
    """Return the axes of a pipeline by dotted name, as ``pipeline.unet.precision``; ``pipeline`` alone for none."""
    pipeline: object = from_record(record.variant).pipeline
    if not isinstance(pipeline, Pipeline):
        return {"pipeline": None}
    stages = {stage.name: {"count": stage.count, **stage.settings()} for stage in pipeline.stages}
    order = ",".join(f"{stage.name}:{stage.count}" for stage in pipeline.stages)
    return {"pipeline": {"name": pipeline.name, "stages": order, "overlap": pipeline.overlap, **stages}}


def tags(record: Record) -> dict[str, str]:
    """Return status, backend, error, what limits it, digest of the engine, and each fact under ``facts.``."""
    facts = {name: _text(value) for name, value in _leaves({"facts": record.facts}) if value is not None}
    error = record.error
    error_tag = {"sweep.error": _text(f"{error['stage']}: {error['message']}")} if error else {}
    digest = (record.engine or {}).get("plan_digest")
    plan_tag = {"sweep.plan_digest": digest} if digest else {}
    limit = find_bottleneck(record)
    limit_tags = {"sweep.limited_by": str(limit.limit), "sweep.limit_evidence": _text(limit.text)} if limit else {}
    status = {"sweep.status": record.status, "sweep.backend": str(record.variant.get("backend"))}
    return {**status, **error_tag, **plan_tag, **limit_tags, **facts}


def metrics(record: Record) -> list[Value]:
    """Return the scalars, then the curve twice: by load index (``curve/``) and by samples/s (``latency/``).

    Latencies of a record or point that is ``invalid`` (what ran is not what was requested, or the load generator was
    the bottleneck) are no measurement and are left out; the record itself is attached. Its accuracy, which may be the
    reason, is included.
    """
    if record.status == "invalid":
        return numbers(_costs(record) | _accuracy(record))
    values = numbers(_costs(record) | _summary(record) | _accuracy(record))
    for index, point in enumerate(record.points):
        values += _point(index, point)
    return values


def datasets(record: Record) -> list[SampleSet]:
    """Return the samples that were fed, those that the accuracy was scored on, and those that calibrated it."""
    fed = record.realised.get("inputs") if record.realised else None
    scored = record.accuracy.get("scored_on") if record.accuracy else None
    calibration = record.engine.get("calibration") if record.engine else None
    sets = [_samples(str(name), None, "evaluation") for name in dict.fromkeys([fed, scored]) if name]
    if calibration:
        name = f"{calibration['source']} ({calibration['samples']} samples)"
        sets.append(_samples(name, calibration["digest"], "calibration"))
    return sets


def _samples(name: str, digest: str | None, context: str) -> SampleSet:
    """Return a set of samples; without a digest of its content, that of its name stands for it."""
    own = digest or hashlib.sha256(name.encode(errors="replace")).hexdigest()
    source = json.dumps({"samples": name, "digest": digest})
    return SampleSet(name=name[:_MAX_NAME], digest=own[:_MAX_DIGEST], source=source, context=context)


def _costs(record: Record) -> JsonDict:
    engine = record.engine or {}
    memory = engine.get("device_memory_bytes")
    return {
        "wall_s": record.wall_s,
        "build_s": engine.get("build_s"),
        "engine_bytes": engine.get("bytes"),
        "host_memory_bytes": engine.get("host_memory_bytes"),
        MEMORY: None if memory is None else memory / (1 << 20),
    }


def _summary(record: Record) -> JsonDict:
    light, loaded = record_views.light(record), record_views.near(record, 0.8)
    fairness = record.peak.get("fairness") if record.peak else None
    energy_j = record_views.joules(record)
    return {
        PEAK: record.peak["ips"] if record.peak else None,
        "p50_light_ms": light["latency_ms"]["p50"] if light else None,
        "p99_light_ms": light["latency_ms"]["p99"] if light else None,
        "p50_at_80_percent_ms": loaded["latency_ms"]["p50"] if loaded else None,
        TAIL: loaded["latency_ms"]["p99"] if loaded else None,
        CAPACITY: record.slo["capacity_ips"] if record.slo else None,
        **_stages(record),
        "fairness_jain": fairness["jain"] if fairness else None,
        ENERGY: None if energy_j is None else energy_j * 1e3,
    }


def _stages(record: Record) -> JsonDict:
    """Return mean and share of each stage of a pipeline in the closed loop, or at the lowest rate."""
    known = shares(record)
    parts = [] if known is None else known[2]
    means = {f"stage.{part.name}_ms": part.mean_ms for part in parts}
    return means | {f"stage.{part.name}_share": part.share for part in parts if part.is_stage}


def _accuracy(record: Record) -> JsonDict:
    return {f"accuracy.{name}": value for name, value in (record.accuracy or {}).items()}


def _point(index: int, point: Point) -> list[Value]:
    if point["verdict"] == "invalid":
        return []
    latency, achieved = point["latency_ms"], point["achieved_ips"]
    lag, batching = point.get("issue_lag_ms"), point.get("batching")
    timed = {f"{name}_ms": latency[name] for name in PERCENTILES}
    curve = {
        CURVE_X.removeprefix("curve/"): achieved,
        "offered_samples_per_s": point["offered_ips"],
        **timed,
        "mean_batch": batching["mean_batch"] if batching else None,
        "issue_lag_p99_ms": lag["p99"] if isinstance(lag, dict) else lag,
        "ok": float(point["verdict"] == "ok"),  # MLflow has no other way to tell an overloaded point
    }
    values = numbers({f"curve/{name}": value for name, value in curve.items()}, index)
    if achieved is not None:
        values += numbers({f"latency/{name}": value for name, value in timed.items()}, round(achieved))
    return values


def numbers(figures: Mapping[str, Any], step: int = 0) -> list[Value]:
    """Return the figures that are numbers as metrics."""
    return [Value(key, float(value), step) for key, value in figures.items() if isinstance(value, (int, float))]


def _leaves(tree: JsonDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"

"""Everything known of one variant: one atomic JSON, and its raw samples beside it.

Layout, which others rely on (a change bumps ``SCHEMA`` and brings a migration)::

    results/<sweep>/records/<key>.json
    results/<sweep>/samples/<key>.npz
    results/<sweep>/telemetry/<key>.npz
    results/<sweep>/sentinel/<number>-<key>.npz
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Never

from sweep.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sweep.spec import JsonDict

SCHEMA = 1
_MOST_BYTES = 64 << 20  # a thousand times the largest seen
_TABLES = ("facts", "engine", "realised", "peak", "slo", "accuracy", "telemetry", "drift")
STATUSES = ("ok", "unsupported", "failed", "oom", "timeout", "crashed", "invalid")

_MIGRATIONS: dict[int, Callable[[JsonDict], JsonDict]] = {}  # from schema n to n + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One variant's outcome. ``ips`` is samples per second; absent knowledge is None, never zero.

    Attributes:
        schema: version of this layout.
        key: ``axes.variant_key`` of the variant; the file's name.
        sweep: name of the sweep; the folder's name.
        status: how it ended, one of ``STATUSES``.
        started_at: UTC, ISO 8601.
        wall_s: seconds from start to end of the work on this variant.
        variant: every axis (``axes.flat``).
        facts: what a comparison must agree on: library versions, CPU, GPU, host, git.
        engine: {key, onnx_key, build_s, cached, bytes, device_memory_bytes, memory, artifacts: paths in the sweep's
            folder}; of a converted graph also {convert_s, onnx_bytes, onnx_notes, guarded, calibration}: the nodes that
            the range guard kept in fp32, and {source, digest, samples, method} of what ranges were drawn from; after
            a pass {graph_pass: {name, key, nodes_before, nodes_after, pass_s}}.
        realised: {precision: {dtype: layers}, cuda_graph, sm_count, contexts, clocks_mhz, notes}, of the first client.
            On a GPU also {sm_reached, sm_total, under_mps, build_sm_count} (docs: sharing). With several clients also
            {clients: [{contexts, sm_count, sm_reached, under_mps, device_memory_bytes}]}.
        peak: closed loop: {ips, interval, batches, passes_ips, requests, latency_ms, gpu_ms, verdict}.
        points: open loop, lowest rate first: {offered_ips, achieved_ips, requests, latency_ms,
            interval, issue_lag_ms, batching, verdict, reason, prediction: {p50_ms, p99_ms, error: {p50, p99}}}.
            With several clients ``peak`` and points are totals, and also have {clients: [{achieved_ips, requests,
            p50_ms, p99_ms, p99_interval}], fairness: {jain, p99_ratio}} (``sweep.analysis.fairness``).
        slo: {percentile, limit_ms, capacity_ips, confidence, next_ips, monotonic, confirmed, reason,
            probes: [{kind, offered_ips, requests, over, inflation, confidence, verdict}]}; None without an SLO.
        model: {parameters, gmacs of a sample or None, opset, opset_of_file where it was upgraded, made_from}.
        accuracy: {reference, note, sqnr_db, max_abs, max_rel, cosine, cosine_centred, top1_agreement, nonfinite} after
            the load, and in ``again`` the same of the worst of many inferences under a further load, with {streams,
            stream, looks, wrong, inferences, identical, lost_db} (``accuracy.errors``, ``accuracy.again``). Of a
            network with labelled data, its own or the user's, also {score, reference_score: top-1 of the engine and of
            fp32, scored_on}.
        telemetry: GPU state over all measured windows (``analysis.gpu_telemetry``), also in ``peak`` and in ``points``:
            {power_w, sm_clock_mhz, memory_clock_mhz, temperature_c, energy_j_per_sample, throttled, throttle_reasons,
            foreign_processes, foreign, measured_again, lost, ...}; None without a GPU.
        drift: whether the machine stayed the same: {verdict, reason, sentinel_key, stretches, before, after};
            None where no sentinel ran.
        error: {stage, kind, message, stderr_tail}, of an ``invalid`` variant also {gate}: the accuracy gate that is not
            kept, None where no gate is at fault (``analysis.reevaluate``); None when the status is ok.
    """

    schema: int = SCHEMA
    key: str
    sweep: str
    status: str
    started_at: str
    wall_s: float | None = None
    variant: JsonDict
    facts: JsonDict = field(default_factory=dict)
    model: JsonDict | None = None
    engine: JsonDict | None = None
    realised: JsonDict | None = None
    peak: JsonDict | None = None
    points: list[JsonDict] = field(default_factory=list)
    slo: JsonDict | None = None
    accuracy: JsonDict | None = None
    telemetry: JsonDict | None = None
    drift: JsonDict | None = None
    error: JsonDict | None = None


def encoded(record: Record) -> bytes:
    """The record as it stands on disk."""
    return (json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False) + "\n").encode()


def read(path: Path) -> Record:
    """One record from its file, migrated to today's schema.

    Raises:
        RecordError: it is not there, damaged, or written by a newer version.
    """
    try:
        raw = json.loads(_content(path), parse_constant=_no_number)
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("schema"), int) or raw["schema"] < 1:
        raise _damaged(path, "no schema")
    if raw["schema"] > SCHEMA:
        raise RecordError(f"record {path} has schema {raw['schema']}, this version reads up to {SCHEMA}: update sweep")
    while raw["schema"] < SCHEMA:
        raw = _MIGRATIONS[raw["schema"]](raw)
    try:
        made = Record(**raw)
    except TypeError as error:
        raise _damaged(path, str(error)) from error
    wrong = _misshapen(made, path.stem)
    if wrong is not None:
        raise _damaged(path, wrong)
    return made


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes long, of at most {_MOST_BYTES}")
    return path.read_bytes()


def _no_number(text: str) -> Never:
    raise ValueError(f"{text} is no number")


def _damaged(path: Path, why: str) -> RecordError:
    return RecordError(f"record {path} is damaged ({why}); delete it to measure that variant again")


def _misshapen(made: Record, stem: str) -> str | None:
    """What of a record is not what its readers rely on; its key names files, so it must be the name of its own."""
    if made.key != stem:
        return f"its key is {made.key!r:.60}"
    if made.status not in STATUSES:
        return f"its status is {made.status!r:.60}"
    if not isinstance(made.variant, dict) or not isinstance(made.variant.get("label"), str):
        return "its variant has no label"
    if not isinstance(made.points, list) or not all(isinstance(point, dict) for point in made.points):
        return "its points are no list of points"
    if made.error is not None and not (isinstance(made.error, dict) and {"stage", "message"} <= made.error.keys()):
        return "its error has no stage and message"
    wrong = [name for name in _TABLES if not isinstance(getattr(made, name), dict | None)]
    return f"its {wrong[0]} is no table" if wrong else None

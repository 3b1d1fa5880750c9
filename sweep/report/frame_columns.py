"""Declare the columns of the DataFrames: name with its unit, type, one line of help, and how a row is read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sweep.analysis import find_bottleneck, joules, layers, light, memory, near, score
from sweep.storage import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.analysis import interference
    from sweep.storage import Point, PointSamples, Record

TableName = Literal["variants", "points", "requests", "shapes"]
Kind = Literal["text", "number", "integer", "boolean", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Describe one column.

    Attributes:
        name: its name, with the unit at the end.
        kind: type of its values; unknown ones are NaN, NA or NaT.
        help: one line for the reference.
        read: what the row is made from -> value; None where it is not known.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """Hold what a row of the points is made from: the rate of a record, or its closed loop.

    Attributes:
        record: the record.
        rung: place on the ladder, lowest rate first; -1 for the closed loop.
        part: the point, or the peak.
    """

    record: Record
    rung: int
    part: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRow:
    """Hold what a row of the shapes is made from: one shape of a rate of a record, or of its closed loop.

    Attributes:
        record: the record.
        rung: place on the ladder, lowest rate first; -1 for the closed loop.
        figures: what the point says of the shape.
    """

    record: Record
    rung: int
    figures: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """Hold what a row of the variants is made from.

    Attributes:
        record: the record.
        over_fp32: its peak over that of fp32; None where nothing is comparable.
        of_best: ends of the interval of its figure as a share of the best one's; None where it was not ranked.
        full_from: least batch from which its device is full; None where that is not known.
        slowdown: factors by which networks beside it slow it; None without them.
    """

    record: Record
    over_fp32: float | None = None
    of_best: tuple[float, float] | None = None
    full_from: int | None = None
    slowdown: interference.Slowdown | None = None


def _axis(name: str) -> Callable[[Record], Any]:
    return lambda record: record.variant.get(name)


def _load(name: str) -> Callable[[Record], Any]:
    return lambda record: (record.variant.get("load") or {}).get(name)


def _fact(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.facts).get(name)


def _engine(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.engine or {}).get(name)


def _accuracy(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.accuracy or {}).get(name)


def _slo(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.slo or {}).get(name)


def _error(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.error or {}).get(name)


def _peak(name: str) -> Callable[[Record], Any]:
    return lambda record: dict(record.peak or {}).get(name)


def _bottleneck(name: str) -> Callable[[Record], Any]:
    def read(record: Record) -> str | None:
        limit = find_bottleneck(record)
        value = None if limit is None else getattr(limit, name)
        return value if value is None or isinstance(value, str) else "; ".join(value) or None

    return read


def _build_memory(record: Record) -> int | None:
    built: Any = dict(record.engine or {}).get("build_memory") or {}
    size = built.get("peak_bytes")
    return size if isinstance(size, int) else None


def _end(interval: Any, place: int) -> float | None:
    return None if interval is None else interval[place]


def _mean(part: Any, name: str) -> float | None:
    """Return the mean of a reading of the GPU's state in a record, a peak or a point."""
    state: Any = part.get("telemetry") if isinstance(part, dict) else part.telemetry
    spread = (state or {}).get(name)
    return spread["mean"] if isinstance(spread, dict) else None


def _at(view: Callable[[Record], Point | None], percentile: str) -> Callable[[Record], Any]:
    def read(record: Record) -> float | None:
        point = view(record)
        return None if point is None else dict(point["latency_ms"])[percentile]  # type: ignore[return-value]

    return read


def _starts(record: Record) -> int | None:
    passes = _peak("passes_ips")(record)
    return None if record.peak is None else len(passes or [record.peak["ips"]])


def energy_mj(record: Record) -> float | None:
    """Return the energy of a sample by the GPU's counter, mJ."""
    energy = joules(record)
    return None if energy is None else energy * 1e3


def gpu_compute_ms(record: Record) -> float | None:
    """Return the median time of an inference on the GPU in the closed loop, ms."""
    times = record.peak.get("gpu_ms") if record.peak is not None else None
    compute = None if times is None else times.get("compute")
    return None if compute is None else compute["p50"]


def _of_layers(name: str) -> Callable[[Record], Any]:
    """Return a reader of a figure of the layer profile's summary."""

    def read(record: Record) -> Any:
        summary: Any = None if record.engine is None else record.engine.get("layers")
        return None if summary is None else summary.get(name)

    return read


def _text(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="text", help=help_text, read=read)


def _number(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="number", help=help_text, read=read)


def _integer(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="integer", help=help_text, read=read)


def _boolean(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="boolean", help=help_text, read=read)


IDENTITY = (
    _text("sweep", "name of the sweep", lambda record: record.sweep),
    _text("key", "key of the record, the name of its files", lambda record: record.key),
    _text("variant", "name of the variant within its sweep", lambda record: record.variant.get("label", record.key)),
)
FOLLOWING = (("onnx", "model"), ("onnx", "precision"))
OWN_COLUMNS = frozenset(
    {*("backend", "batch", "streams", "clients", "load.kind", "repeats", "load.builds", "seed"), "model_ref.name"}
    | {"precision_recipe.name"}
)
_OF_A_RECORD = (
    *IDENTITY,
    _text("status", "how it ended: ok, unsupported, failed, oom, timeout, crashed or invalid", lambda r: str(r.status)),
    Column(name="started_at", kind="time", help="when it was measured", read=lambda record: record.started_at),
    _number("wall_s", "time that the work took", lambda record: record.wall_s),
    _text("backend", "inference library", _axis("backend")),
    _text("model", "name of the network", _axis("model")),
    _text("precision", "name of the precision", _axis("precision")),
    _integer("batch", "samples of a request", _axis("batch")),
    _integer("streams", "execution contexts that run at the same time", _axis("streams")),
    _integer("clients", "processes that run at the same time", _axis("clients")),
    _text("load_kind", "kind of the load", _load("kind")),
    _integer("repeats", "starts of each engine", _axis("repeats")),
    _integer("builds", "engines that were built afresh; NA for one from the cache", _load("builds")),
    _integer("seed", "random seed", _axis("seed")),
    # further axes stand here
    _number("peak_ips", "throughput of the closed loop, samples/s", _peak("ips")),
    _number("peak_low_ips", "lower end of its 95% interval", lambda record: _end(_peak("interval")(record), 0)),
    _number("peak_high_ips", "upper end", lambda record: _end(_peak("interval")(record), 1)),
    _text("peak_verdict", "ok, unstable or short", _peak("verdict")),
    _integer("starts", "starts behind the peak", _starts),
    _number("start_cv", "what starts of one engine differ by, standard deviation of the logarithm", _peak("start_cv")),
    _number("build_cv", "what engines that were built afresh differ by", _peak("build_cv")),
    _number("gpu_compute_p50_ms", "median time of an inference on the GPU in the closed loop", gpu_compute_ms),
    _number("p50_light_ms", "median latency at the lowest rate", _at(light, "p50")),
    _number("p99_light_ms", "99th percentile there", _at(light, "p99")),
    _number("p50_at_80pct_ms", "median latency at 80% of the peak", _at(lambda record: near(record, 0.8), "p50")),
    _number("p99_at_80pct_ms", "99th percentile there", _at(lambda record: near(record, 0.8), "p99")),
    _number("slo_percentile", "percentile of the latency limit, as 99", _slo("percentile")),
    _number("slo_limit_ms", "the limit", _slo("limit_ms")),
    _number("capacity_ips", "highest rate that kept the limit, samples/s", _slo("capacity_ips")),
    _number("capacity_next_ips", "lowest rate that did not", _slo("next_ips")),
    _boolean("capacity_confirmed", "a run at that very rate confirmed it", _slo("confirmed")),
    _number("sqnr_db", "signal over error against fp32; NaN where outputs are equal or unknown", _accuracy("sqnr_db")),
    _number("max_rel", "largest error over the largest reference value", _accuracy("max_rel")),
    _number("top1_agreement", "share of samples with the same arg max as fp32", _accuracy("top1_agreement")),
    _number("score", "top-1 accuracy on labelled samples, 0 to 1", score),
    _number("reference_score", "that of fp32", _accuracy("reference_score")),
    _number("energy_mj_per_sample", "energy of a sample by the GPU's counter, mJ", energy_mj),
    _number("power_w", "mean power of the GPU", lambda record: _mean(record, "power_w")),
    _number("sm_clock_mhz", "mean clock of the SMs", lambda record: _mean(record, "sm_clock_mhz")),
    _number("temperature_c", "mean temperature of the GPU", lambda record: _mean(record, "temperature_c")),
    _text("limited_by", "what limits the throughput, or the capacity under an SLO", _bottleneck("limit")),
    _text("limit_evidence", "the figures that decided", _bottleneck("evidence")),
    _text("limit_experiments", "settings that would move it", _bottleneck("experiments")),
    _number("build_s", "time of the build", _engine("build_s")),
    _integer("engine_bytes", "size of the engine on disk", _engine("bytes")),
    _integer(
        "device_memory_bytes", "memory on the device of the session, of all clients together", memory.device_bytes
    ),
    _integer("peak_memory_bytes", "most memory on the device, as its allocator recorded it", memory.peak_device_bytes),
    _integer("build_memory_bytes", "most memory on the device while the engine was built", _build_memory),
    _integer(
        "host_memory_bytes", "most memory of the host that the worker held up to the first run", memory.host_bytes
    ),
    _integer("parameters", "weights of the network", lambda record: dict(record.model or {}).get("parameters")),
    _number("gmacs", "multiply-adds of a sample, 10^9", lambda record: dict(record.model or {}).get("gmacs")),
    _number("gemm_share", "part of the layers' time in products, convolutions and attention", _of_layers("gemm_share")),
    _text("layer_bound", "what limits most of the layers' time (layers=true)", _of_layers("bound")),
    _number("tflops", "TFLOP/s at the peak: two operations for each multiply-add", layers.achieved_tflops),
    _number(
        "compute_peak_share",
        "that over the dense peak of the GPU's data sheet for the type of the precision, 0 to 1",
        layers.share_of_peak,
    ),
    _text(
        "drift",
        "whether the machine stayed the same: steady, drifted or unknown",
        lambda r: (r.drift or {}).get("verdict"),
    ),
    _text("error_stage", "stage that failed", _error("stage")),
    _text("error", "why it did not end ok", _error("message")),
    *(
        _text(name, f"fact of the machine: {text}", _fact(name))
        for name, text in {
            "gpu": "GPU",
            "driver": "version of its driver",
            "cuda": "CUDA that the driver supports",
            "tensorrt": "TensorRT or TensorRT-RTX",
            "onnxruntime": "onnxruntime",
            "cpu": "CPU",
            "host": "host",
        }.items()
    ),
    _text("sweep_version", "version of sweep that measured it", _fact("sweep")),
)


def of_record(column: Column) -> Column:
    """Return a column of records as one of rows that have a record."""
    read = column.read
    return dataclasses.replace(column, read=lambda row: read(row.record))


VARIANTS = (
    *map(of_record, _OF_A_RECORD),
    _number("peak_over_fp32", "peak over that of the variant that differs in fp32 alone", lambda row: row.over_fp32),
    _number(
        "of_best_low",
        "lower end of the 95% interval of its figure as a share of the best one's of its sweep and network",
        lambda row: _end(row.of_best, 0),
    ),
    _number("of_best_high", "upper end; 1 at both ends is the best one", lambda row: _end(row.of_best, 1)),
    _integer(
        "full_from_batch",
        "least batch after which the throughput grows no more; NA where it still grew, or no other batch was measured",
        lambda row: row.full_from,
    ),
    _number(
        "slowdown_throughput",
        "factor by which networks beside it lower its throughput; NA where it was not measured alone too",
        lambda row: row.slowdown and row.slowdown.rate,
    ),
    _number(
        "slowdown_p99",
        "factor by which networks beside it raise its p99, at the same load",
        lambda row: row.slowdown and row.slowdown.p99,
    ),
)
AXES_AT = next(number for number, column in enumerate(VARIANTS) if column.name == "peak_ips")


def _of_request(read: Callable[[Any], Any]) -> Callable[[Any], str]:
    return lambda row: str(read(row[0]))


def _of_part(read: Callable[[Any], Any]) -> Callable[[PointRow], Any]:
    return lambda row: read(row.part)


def _latency(percentile: str) -> Callable[[PointRow], Any]:
    return lambda row: dict(row.part.get("latency_ms") or {}).get(percentile)


def _interval(row: PointRow, percentile: str, place: int) -> float | None:
    """Return an end of the interval of a point's percentile; the closed loop has none of its latency."""
    return None if row.rung < 0 else _end(row.part["interval"][percentile], place)


def _lag_ms(row: PointRow) -> float | None:
    lag = row.part.get("issue_lag_ms")
    return lag.get("p99") if isinstance(lag, dict) else lag


POINTS = (
    *map(of_record, IDENTITY),
    _integer("rung", "place on the ladder of rates, lowest first; -1 for the closed loop", lambda row: row.rung),
    _number(
        "offered_ips", "offered rate, samples/s; NaN for the closed loop", _of_part(lambda p: p.get("offered_ips"))
    ),
    _number("achieved_ips", "throughput, samples/s", lambda r: r.part["ips"] if r.rung < 0 else r.part["achieved_ips"]),
    _integer("requests", "measured requests", _of_part(lambda part: part.get("requests"))),
    _text(
        "verdict",
        "what the point is worth: ok, unstable, short, overloaded or invalid",
        _of_part(lambda p: p["verdict"]),
    ),
    _text("reason", "why it is not ok", _of_part(lambda part: part.get("reason"))),
    *(
        _number(f"{name}_ms", text, _latency(name))
        for name, text in {
            "mean": "mean latency from the scheduled arrival",
            "p50": "median",
            "p90": "90th percentile",
            "p95": "95th percentile",
            "p99": "99th percentile",
            "p999": "99.9th percentile",
            "max": "longest",
        }.items()
    ),
    _number("p50_low_ms", "lower end of the 95% interval of the median", lambda row: _interval(row, "p50", 0)),
    _number("p50_high_ms", "upper end", lambda row: _interval(row, "p50", 1)),
    _number("p99_low_ms", "lower end of the 95% interval of the p99", lambda row: _interval(row, "p99", 0)),
    _number("p99_high_ms", "upper end", lambda row: _interval(row, "p99", 1)),
    _number("issue_lag_ms", "p99 of the load generator's own delay", _lag_ms),
    _number("power_w", "mean power of the GPU", _of_part(lambda part: _mean(part, "power_w"))),
    _number("sm_clock_mhz", "mean clock of the SMs", _of_part(lambda part: _mean(part, "sm_clock_mhz"))),
)


def _of_shape(name: str) -> Callable[[ShapeRow], Any]:
    return lambda row: row.figures[name]


def _latency_of_shape(name: str) -> Callable[[ShapeRow], Any]:
    return lambda row: row.figures["latency_ms"][name]


SHAPES = (
    *map(of_record, IDENTITY),
    _integer("rung", "place on the ladder of rates, lowest first; -1 for the closed loop", lambda row: row.rung),
    _text("shape", "shape of the engine; requests of smaller shapes were padded to it", _of_shape("shape")),
    _integer("requests", "measured requests", _of_shape("requests")),
    _number("share", "share of the measured requests", _of_shape("share")),
    _number("padding", "share of the elements that the engine computed which were padding", _of_shape("padding")),
    *(
        _number(f"{name}_ms", text, _latency_of_shape(name))
        for name, text in {"mean": "mean latency", "p50": "median", "p90": "90th percentile", "p99": "99th"}.items()
    ),
)


def _times(name: str) -> Callable[[Any], Any]:
    """Return a reader of a time of the requests, ns; NaN for one that was never reached."""

    def read(row: tuple[Record, PointSamples]) -> Any:
        values = getattr(row[1], name)
        return np.where(values == NEVER, np.nan, values) if name == "done_ns" else values

    return read


def _latency_of_requests(row: tuple[Record, PointSamples]) -> Any:
    done, scheduled = row[1].done_ns, row[1].scheduled_ns
    return np.where(done == NEVER, np.nan, (done - scheduled) / 1e6)


def _of_point(name: str) -> Callable[[Any], Any]:
    return lambda row: getattr(row[1], name)


REQUESTS = (
    *(dataclasses.replace(column, read=_of_request(column.read)) for column in IDENTITY),
    _text(
        "kind", "load of the point: closed, an arrival process, trace, calm, busy, probe or confirm", _of_point("kind")
    ),
    _integer(
        "rung",
        "place on the ladder of rates; -1 for the closed loop and for probes of the service time",
        _of_point("index"),
    ),
    _integer("repeat", "pass that measured it, from 0", _of_point("repeat")),
    _integer("client", "process that served it; NA where there is one", _of_point("client")),
    _integer("stream", "stream that served it", _of_point("stream")),
    _number("offered_rps", "offered rate, requests/s; NaN for the closed loop", _of_point("offered_rps")),
    _integer("scheduled_ns", "scheduled arrival, from the start of the point", _times("scheduled_ns")),
    _integer("issued_ns", "when it was handed to the session", _times("issued_ns")),
    _integer("done_ns", "when the host saw its completion; NA if never", _times("done_ns")),
    _number("latency_ms", "from the scheduled arrival to the completion", _latency_of_requests),
    _integer("shape", "entry of load.shapes whose shape it had; NA where all had one", _of_point("shape")),
    _boolean("warmup", "it does not count: it came before the measured window", _of_point("warmup")),
    _boolean("measured", "it counts: completed, and after the warm-up", _of_point("measured")),
    _number("gpu_h2d_ms", "GPU time of the copies to the device", _of_point("gpu_h2d_ms")),
    _number("gpu_compute_ms", "GPU time of the inference alone", _of_point("gpu_compute_ms")),
    _number("gpu_d2h_ms", "GPU time of the copies back", _of_point("gpu_d2h_ms")),
    _number("enqueue_ms", "host time of the enqueue", _of_point("enqueue_ms")),
)
TABLES: dict[TableName, tuple[Column, ...]] = {
    "variants": VARIANTS,
    "points": POINTS,
    "requests": REQUESTS,
    "shapes": SHAPES,
}

"""Make pandas DataFrames of records: a row a variant, a load point or a request; units stand in the column names."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sweep import spec
from sweep.analysis import joules, light, near, score
from sweep.errors import ConfigError
from sweep.report.comparison import compared
from sweep.storage import NEVER, samples_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from sweep.report.results import Results
    from sweep.storage import Point, PointSamples, Record

TableName = Literal["variants", "points", "requests"]
Kind = Literal["text", "number", "integer", "boolean", "time"]
_DTYPES: dict[Kind, str] = {
    "text": "string",
    "number": "float64",
    "integer": "Int64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}


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
class _PointRow:
    """Hold what a row of the points is made from: the rate of a record, or its closed loop.

    Attributes:
        record: the record.
        rung: place on the ladder, lowest rate first; -1 for the closed loop.
        part: the point, or the peak.
    """

    record: Record
    rung: int
    part: Any


def frame(results: Results, table: TableName = "variants") -> pd.DataFrame:
    """Return a table of records as a DataFrame.

    Args:
        results: the records.
        table: ``variants``, ``points`` or ``requests``.

    Raises:
        ConfigError: there is no such table, or requests are wanted and no record has its samples beside it.
        RecordError: the samples of a record are damaged.
    """
    import pandas as pd

    parts = list(parts_of(results, table))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def parts_of(results: Results, table: TableName) -> Iterator[pd.DataFrame]:
    """Yield a table in parts of the same columns, a part a record where it is of requests: they may be millions."""
    if table not in get_args(TableName):
        raise ConfigError(f"table {table!r:.40}: no such table; there are {', '.join(get_args(TableName))}")
    if table == "variants":
        yield _framed([*VARIANTS[:_AXES_AT], *axis_columns(results.records), *VARIANTS[_AXES_AT:]], results.records)
    elif table == "points":
        yield _framed(POINTS, list(_point_rows(results.records)))
    else:
        yield from _requests(results)


def axis_columns(records: Sequence[Record]) -> list[Column]:
    """Return a column for each further axis that tells records apart, or that some record sets.

    What a recipe or a network consists of follows from its name, and has a column only where it tells records apart.
    """
    records = list(records)
    variants = [spec.from_record(record.variant) for record in records]
    distinguishing = {axis.path for axis in compared(records).axes}
    taken = {column.name for column in VARIANTS}
    columns = []
    for axis in spec.all_axes():
        if axis.info.key is None or axis.param in _OWN_COLUMNS:
            continue
        values = [axis.read(variant) for variant in variants]
        default = _default(axis)
        if axis.path not in distinguishing and (
            axis.path[:2] in _FOLLOWING or all(value == default for value in values)
        ):
            continue
        kind = _kind(axis)
        plain = values if kind != "text" else [None if value is None else axis.cell(value) for value in values]
        by_record = {id(record): value for record, value in zip(records, plain, strict=True)}
        name = axis.param if axis.param not in taken else f"axis.{axis.param}"
        columns.append(Column(name=name, kind=kind, help=axis.info.help, read=_cells(by_record)))
    return columns


def _kind(axis: spec.Axis) -> Kind:
    """Return the type of an axis's column: that of its values."""
    hints = set(typing.get_args(axis.hint) or (axis.hint,)) - {type(None)}
    if hints == {bool}:
        return "boolean"
    if hints == {int}:
        return "integer"
    return "number" if hints and hints <= {int, float} else "text"


def _cells(by_record: Mapping[int, Any]) -> Callable[[Record], Any]:
    return lambda record: by_record[id(record)]


def _default(axis: spec.Axis) -> Any:
    """Return the default of an axis; None where it has none."""
    owner: Any = spec.Variant
    for name in axis.path[:-1]:
        hints = {item.name: item for item in dataclasses.fields(owner)}
        factory = hints[name].default_factory
        if factory is dataclasses.MISSING:
            return None
        owner = factory
    item = next(item for item in dataclasses.fields(owner) if item.name == axis.path[-1])
    return None if item.default is dataclasses.MISSING else item.default


def _framed(columns: Sequence[Column], rows: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({column.name: _series([column.read(row) for row in rows], column.kind) for column in columns})


def _series(values: Any, kind: Kind) -> pd.Series[Any]:
    import pandas as pd

    if kind == "time":
        return pd.Series(pd.to_datetime(values, utc=True, format="ISO8601").as_unit("us"))
    if kind == "text":
        values = [None if value is None else str(value) for value in values]
    return pd.Series(values, dtype=_DTYPES[kind])


def _point_rows(records: Sequence[Record]) -> Iterator[_PointRow]:
    for record in records:
        if record.peak is not None:
            yield _PointRow(record=record, rung=-1, part=record.peak)
        for rung, point in enumerate(record.points):
            yield _PointRow(record=record, rung=rung, part=point)


def _requests(results: Results) -> Iterator[pd.DataFrame]:
    read_any = False
    for record, store in results:
        if store is None or not store.samples_path(record.key).exists():
            continue
        read_any = True
        points = samples_file.load(store.samples_path(record.key))
        yield _request_frame(record, points)
    if not read_any:
        raise ConfigError(
            f"{results.name}: no record has its samples beside it (samples/KEY.npz), so there are no requests to show; "
            "baselines, MLflow and published records come without them"
        )


def _request_frame(record: Record, points: Sequence[PointSamples]) -> pd.DataFrame:
    """Return the requests of a record, in the order in which its points were measured."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for column in REQUESTS:
        values = [np.asarray(_full(column.read((record, point)), len(point.done_ns))) for point in points]
        joined = np.concatenate(values) if values else np.zeros(0)
        if column.kind == "integer":
            columns[column.name] = _integers(joined)
        else:
            columns[column.name] = pd.Series(joined, dtype=_DTYPES[column.kind])
    return pd.DataFrame(columns)


def _integers(values: Any) -> pd.Series[Any]:
    """Return integers, NA where they are NaN."""
    import pandas as pd

    if values.dtype.kind == "f":
        return pd.Series(np.where(np.isnan(values), -1, values).astype(np.int64), dtype="Int64").mask(np.isnan(values))
    return pd.Series(values, dtype="Int64")


def _full(value: Any, count: int) -> Any:
    """Return the values of one column for the requests of one point."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, str):
        return np.full(count, value, dtype=object)
    return np.full(count, np.nan if value is None else value)


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


def _energy_mj(record: Record) -> float | None:
    energy = joules(record)
    return None if energy is None else energy * 1e3


def _text(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="text", help=help_text, read=read)


def _number(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="number", help=help_text, read=read)


def _integer(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="integer", help=help_text, read=read)


def _boolean(name: str, help_text: str, read: Callable[[Any], Any]) -> Column:
    return Column(name=name, kind="boolean", help=help_text, read=read)


_IDENTITY = (
    _text("sweep", "name of the sweep", lambda record: record.sweep),
    _text("key", "key of the record, the name of its files", lambda record: record.key),
    _text("variant", "name of the variant within its sweep", lambda record: record.variant.get("label", record.key)),
)
_FOLLOWING = (("onnx", "model"), ("onnx", "precision"))
_OWN_COLUMNS = frozenset(
    {*("backend", "batch", "streams", "clients", "load.kind", "repeats", "load.builds", "seed"), "model_ref.name"}
    | {"precision_recipe.name"}
)
VARIANTS = (
    *_IDENTITY,
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
    _number("energy_mj_per_sample", "energy of a sample by the GPU's counter, mJ", _energy_mj),
    _number("power_w", "mean power of the GPU", lambda record: _mean(record, "power_w")),
    _number("sm_clock_mhz", "mean clock of the SMs", lambda record: _mean(record, "sm_clock_mhz")),
    _number("temperature_c", "mean temperature of the GPU", lambda record: _mean(record, "temperature_c")),
    _number("build_s", "time of the build", _engine("build_s")),
    _integer("engine_bytes", "size of the engine on disk", _engine("bytes")),
    _integer("device_memory_bytes", "memory that the session takes on the device", _engine("device_memory_bytes")),
    _integer("parameters", "weights of the network", lambda record: dict(record.model or {}).get("parameters")),
    _number("gmacs", "multiply-adds of a sample, 10^9", lambda record: dict(record.model or {}).get("gmacs")),
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
_AXES_AT = next(number for number, column in enumerate(VARIANTS) if column.name == "peak_ips")


def _of_record(read: Callable[[Any], Any]) -> Callable[[_PointRow], Any]:
    return lambda row: read(row.record)


def _of_request(read: Callable[[Any], Any]) -> Callable[[Any], str]:
    return lambda row: str(read(row[0]))


def _of_part(read: Callable[[Any], Any]) -> Callable[[_PointRow], Any]:
    return lambda row: read(row.part)


def _latency(percentile: str) -> Callable[[_PointRow], Any]:
    return lambda row: dict(row.part.get("latency_ms") or {}).get(percentile)


def _interval(row: _PointRow, percentile: str, place: int) -> float | None:
    """Return an end of the interval of a point's percentile; the closed loop has none of its latency."""
    return None if row.rung < 0 else _end(row.part["interval"][percentile], place)


def _lag_ms(row: _PointRow) -> float | None:
    lag = row.part.get("issue_lag_ms")
    return lag.get("p99") if isinstance(lag, dict) else lag


POINTS = (
    *(dataclasses.replace(column, read=_of_record(column.read)) for column in _IDENTITY),
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
    *(dataclasses.replace(column, read=_of_request(column.read)) for column in _IDENTITY),
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
    _boolean("warmup", "it does not count: it came before the measured window", _of_point("warmup")),
    _boolean("measured", "it counts: completed, and after the warm-up", _of_point("measured")),
    _number("gpu_h2d_ms", "GPU time of the copies to the device", _of_point("gpu_h2d_ms")),
    _number("gpu_compute_ms", "GPU time of the inference alone", _of_point("gpu_compute_ms")),
    _number("gpu_d2h_ms", "GPU time of the copies back", _of_point("gpu_d2h_ms")),
    _number("enqueue_ms", "host time of the enqueue", _of_point("enqueue_ms")),
)
TABLES: dict[TableName, tuple[Column, ...]] = {"variants": VARIANTS, "points": POINTS, "requests": REQUESTS}

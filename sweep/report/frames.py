"""Make pandas DataFrames of records: a row a variant, a load point or a request; units stand in the column names."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sweep import spec
from sweep.analysis import SpreadHistory, interference, layers
from sweep.errors import ConfigError
from sweep.report.columns import common_slo
from sweep.report.comparison import compared, speedups
from sweep.report.frame_columns import (
    AXES_AT,
    FOLLOWING,
    OWN_COLUMNS,
    TABLES,
    VARIANTS,
    Column,
    Kind,
    PointRow,
    ShapeRow,
    TableName,
    VariantRow,
    of_record,
)
from sweep.report.ranking import answer
from sweep.storage import samples_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from sweep.analysis import best_comparison
    from sweep.report.recommendation import Answer
    from sweep.report.results import Results
    from sweep.storage import PointSamples, Record
DTYPES: dict[Kind, str] = {
    "text": "string",
    "number": "float64",
    "integer": "Int64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}


def frame(results: Results, table: TableName = "variants") -> pd.DataFrame:
    """Return a table of records as a DataFrame.

    Args:
        results: the records.
        table: ``variants``, ``points``, ``requests``, or ``shapes`` of loads of several shapes.

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
        ratios = {key: ratio for part in _answers(results) for key, ratio in part.ratios.items()}
        yield _framed(variant_columns(results.records), variant_rows(results.records, ratios))
    elif table == "points":
        yield _framed(TABLES["points"], list(point_rows(results.records)))
    elif table == "shapes":
        yield _framed(TABLES["shapes"], list(shape_rows(results.records)))
    else:
        yield from _requests(results)


def _answers(results: Results) -> Iterator[Answer]:
    """Yield the answer of each sweep: nothing is ranked across sweeps."""
    sweeps: dict[tuple[str, str], list[Record]] = {}
    for record, store in results:
        sweeps.setdefault((record.sweep, "" if store is None else str(store.root)), []).append(record)
    spreads = results.start_spreads()
    for records in sweeps.values():
        known = {record.key: spreads[record.key] for record in records if record.key in spreads}
        yield answer(records, common_slo(records), SpreadHistory(common=None, own=known) if known else None)


def variant_columns(records: Sequence[Record]) -> list[Column]:
    """Return the columns of the variants, read from `variant_rows`: the fixed ones and one for each further axis."""
    return [*VARIANTS[:AXES_AT], *map(of_record, axis_columns(records)), *VARIANTS[AXES_AT:]]


def variant_rows(records: Sequence[Record], ratios: Mapping[str, best_comparison.Ratio]) -> list[VariantRow]:
    """Return a row a record.

    Args:
        records: records of one or several sweeps.
        ratios: by key, the figure of a variant as a share of the best one's, as an answer has them.
    """
    peaks, full = speedups(records), layers.full_batches(records)
    slowdowns = {slowdown.key: slowdown for slowdown in interference.find(records).slowdowns}
    ends = {key: (ratio.low, ratio.high) for key, ratio in ratios.items() if math.isfinite(ratio.high)}
    return [
        VariantRow(
            record=record,
            over_fp32=peaks.get(record.key),
            of_best=ends.get(record.key),
            full_from=full[record.key].batch if record.key in full else None,
            slowdown=slowdowns.get(record.key),
        )
        for record in records
    ]


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
        if axis.info.key is None or axis.param in OWN_COLUMNS:
            continue
        values = [axis.read(variant) for variant in variants]
        default = _default(axis)
        if axis.path not in distinguishing and (
            axis.path[:2] in FOLLOWING or all(value == default for value in values)
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
    return pd.Series(values, dtype=DTYPES[kind])


def point_rows(records: Sequence[Record]) -> Iterator[PointRow]:
    """Yield a row a rate of the load, the closed loop of each record first."""
    for record in records:
        if record.peak is not None:
            yield PointRow(record=record, rung=-1, part=record.peak)
        for rung, point in enumerate(record.points):
            yield PointRow(record=record, rung=rung, part=point)


def shape_rows(records: Sequence[Record]) -> Iterator[ShapeRow]:
    """Yield a row for each shape of each point of a load of several shapes, the smallest shape first."""
    for row in point_rows(records):
        for figures in row.part.get("shapes") or ():
            yield ShapeRow(record=row.record, rung=row.rung, figures=figures)


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
    for column in TABLES["requests"]:
        values = [np.asarray(_full(column.read((record, point)), len(point.done_ns))) for point in points]
        joined = np.concatenate(values) if values else np.zeros(0)
        if column.kind == "integer":
            columns[column.name] = _integers(joined)
        else:
            columns[column.name] = pd.Series(joined, dtype=DTYPES[column.kind])
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

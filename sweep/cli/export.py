"""Write the records of sweeps as a table or a baseline file, for pandas, a spreadsheet, or `sweep compare`.

PLACE is a folder of a sweep or of several, the name of a sweep below the results folder, a baseline file, or
mlflow:EXPERIMENT. --csv and --parquet write one row a variant; with --points one row a rate of the load; with
--requests one row a request, from the samples on disk; with --shapes one row a shape of a load of several. --json
writes the records whole, which `sweep compare --baseline` reads.

Exit codes: 0 written; 1 a file cannot be written; 2 the command is wrong, or there are no records.

Example:
  sweep export quickstart --csv quickstart.csv
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from sweep.report import Results, frame_columns

_TABLES: tuple[frame_columns.TableName, ...] = ("points", "requests", "shapes")  # besides that of the variants


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "place",
        nargs="?",
        metavar="PLACE",
        help="folder, name of a sweep, file or mlflow:EXPERIMENT [all of --results]",
    )
    parser.add_argument("--csv", type=arguments.folder, metavar="FILE", help="write a table as CSV")
    parser.add_argument("--parquet", type=arguments.folder, metavar="FILE", help="write a table as Parquet")
    parser.add_argument("--json", type=arguments.folder, metavar="FILE", help="write the records, whole")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--points", action="store_true", help="tables have one row a rate of the load")
    rows.add_argument("--requests", action="store_true", help="tables have one row a request")
    rows.add_argument("--shapes", action="store_true", help="tables have one row a shape of a load of several")
    arguments.add_results_option(parser)
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")


def run(options: argparse.Namespace) -> int:
    """Write what was requested; return the exit code."""
    from sweep.report import encode_baseline, load

    if options.csv is None and options.parquet is None and options.json is None:
        raise ConfigError("nothing to write: --csv FILE, --parquet FILE or --json FILE")
    chosen: list[frame_columns.TableName] = [name for name in _TABLES if getattr(options, name)]
    if options.json is not None and chosen and not (options.csv or options.parquet):
        raise ConfigError(
            "--json writes whole records; --points, --requests and --shapes choose the rows of --csv or --parquet"
        )
    arguments.refuse_special_files(options.csv, options.parquet, options.json)
    results = load(options.place or options.results, results=options.results, uri=options.uri)
    for line in results.damaged:
        sys.stderr.write(f"sweep export: left out: {printable_line(line)}\n")
    if not len(results):
        raise ConfigError(f"{results.name} has no record that can be read")
    table: frame_columns.TableName = chosen[0] if chosen else "variants"
    if options.json is not None:
        arguments.write_output(options.json, encode_baseline(results))
        _say(options.json, f"{len(results)} records")
    for path, write in ((options.csv, _write_csv), (options.parquet, _write_parquet)):
        if path is not None:
            _say(path, f"{write(path, _parts(results, table)):,} rows of {table}")
    return 0


def _parts(results: Results, table: frame_columns.TableName) -> Iterator[pd.DataFrame]:
    from sweep.report import frames

    return frames.parts_of(results, table)


def _say(path: Path, text: str) -> None:
    sys.stdout.write(f"{printable_line(str(path))}: {text}\n")


def _write_csv(path: Path, parts: Iterator[pd.DataFrame]) -> int:
    """Write the parts one below the other; return the number of rows. A file appears when it is whole."""
    count = 0
    with arguments.output_file(path) as file:
        for number, part in enumerate(parts):
            part.to_csv(file, index=False, header=number == 0, lineterminator="\n")
            count += len(part)
    return count


def _write_parquet(path: Path, parts: Iterator[pd.DataFrame]) -> int:
    """Write the parts as row groups; return the number of rows. A file appears when it is whole."""
    import pyarrow.parquet as pq

    count, writer = 0, None
    with arguments.output_file(path) as file:
        try:
            for part in parts:
                rows = _table(part)
                writer = writer or pq.ParquetWriter(file, rows.schema)
                writer.write_table(rows)
                count += len(part)
        finally:
            if writer is not None:
                writer.close()
    return count


def _table(frame: pd.DataFrame) -> pa.Table:
    """Return the rows of a frame as Arrow's; times keep their zone, UTC.

    pyarrow reads such columns by ``Series.values``, of which pandas 4 changes the meaning, so they are passed without
    their zone.
    """
    import pyarrow as pa

    zoned = list(frame.select_dtypes("datetimetz").columns)
    rows = pa.Table.from_pandas(
        frame.assign(**{name: frame[name].dt.tz_convert(None) for name in zoned}), preserve_index=False
    )
    for name in zoned:
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        kind = pa.timestamp(field.type.unit, tz="UTC")
        rows = rows.set_column(place, field.with_type(kind), rows.column(place).cast(kind))
    return rows

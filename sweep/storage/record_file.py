"""Write and read the record of one variant as an atomic JSON file, with its raw samples beside it.

The files of a sweep::

    results/<sweep>/records/<key>.json
    results/<sweep>/samples/<key>.npz
    results/<sweep>/telemetry/<key>.npz
    results/<sweep>/sentinel/<number>-<key>.npz
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from typing import TYPE_CHECKING, Any

import msgspec

from sweep.errors import NewerRecordError, RecordError, printable, shorten
from sweep.storage import record_types as types
from sweep.storage.record import SCHEMA, Record
from sweep.storage.record_contradictions import contradiction
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sweep.spec import JsonDict

_MAX_BYTES = 64 << 20  # a thousand times the largest seen
_EARLIEST, _LATEST = dt.datetime(1980, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)

_UNTYPED = (msgspec.ValidationError, UnicodeEncodeError)  # the latter for half a surrogate pair where a word is due

_MIGRATIONS: dict[int, Callable[[JsonDict], JsonDict]] = {}  # from schema n to n + 1
_FIELDS = frozenset(item.name for item in dataclasses.fields(Record))


def encode(record: Record) -> bytes:
    """Encode `record` as the bytes of its file.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    return (json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False) + "\n").encode()


def read(path: Path) -> Record:
    """Read one record from its file and migrate it to today's schema.

    This is the one place that refuses a damaged record: every table of the result has the shape, and every value lies
    within the bounds, of ``record_types``.

    Args:
        path: file of the record; its stem is the record's key.

    Returns:
        The record, with further keys of a newer version kept.

    Raises:
        RecordError: the file is missing or damaged.
        NewerRecordError: a newer version wrote it: its schema is later, or it has a field that this one lacks.
    """
    try:
        raw = _decoded(_content(path))
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of msgspec: both of its errors are a ValueError
        raise _damaged(path, str(error)) from error
    return of_raw(path, raw)


def of_raw(path: Path, raw: Any) -> Record:
    """Check the decoded content of a record and migrate it to today's schema.

    Args:
        path: file of the record, for messages; its stem is the record's key.
        raw: what the file's JSON holds.

    Raises:
        RecordError: as ``read``.
        NewerRecordError: as ``read``.
    """
    if not isinstance(raw, dict) or type(raw.get("schema")) is not int or raw["schema"] < 1:
        raise _damaged(path, "it has no schema")
    if raw["schema"] > SCHEMA:
        fault = f"record {path} has schema {raw['schema']}, this version reads up to {SCHEMA}"
        raise NewerRecordError(f"{fault}: update sweep")
    while raw["schema"] < SCHEMA:
        raw = _MIGRATIONS[raw["schema"]](raw)
    if not raw.keys() <= _FIELDS:
        names = ", ".join(sorted(raw.keys() - _FIELDS))
        fault = f"record {path} has fields that this version does not know: {shorten(printable(names), 200)}"
        raise NewerRecordError(f"{fault}: update sweep")
    return _typed(path, raw)


def _typed(path: Path, raw: JsonDict) -> Record:
    """Return the record of `raw`, or refuse it with the name of the field that is wrong."""
    try:
        record = msgspec.convert(raw, Record)
    except _UNTYPED as error:
        raise _damaged(path, _name_field(str(error))) from error
    try:
        msgspec.convert(record.variant, types.VariantFields)
    except _UNTYPED as error:
        raise _damaged(path, _name_field(str(error), "variant.")) from error
    fault = _key_or_date_fault(record, path.stem) or contradiction(record)
    if fault is not None:
        raise _damaged(path, fault)
    typed = {name: getattr(record, name) for name in raw}
    return record if typed == raw else dataclasses.replace(record, **types.with_unknown_keys(typed, raw))


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes long, of at most {_MAX_BYTES}")
    return regular_files.read_bytes(path, follow=False, most=_MAX_BYTES)


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        # A file name that is no UTF-8 stands in a record as half a surrogate pair, which the standard library reads.
        raw = json.loads(content)
    for place, value in _numbers(raw):
        if not math.isfinite(value):
            raise ValueError(f"{place}: {value} is no finite number")
    return raw


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name of each place in `value` that holds a float, as ``points[1].latency_ms.p99``, and that float."""
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{number}]")


def _damaged(path: Path, reason: str) -> RecordError:
    line = " ".join(printable(reason).split())
    return RecordError(
        f"record {path} is damaged ({line}); the same sweep measures that variant again and replaces the file: "
        "to keep the file, move it out of the folder first"
    )


def _name_field(message: str, table: str = "") -> str:
    """Put the field's name in front: ``Expected `int`, got `str` - at `$.peak.requests``` names it at the end."""
    fault, _, field_name = message.partition(" - at `$.")
    name = f"{table}{field_name.rstrip('`')}" if field_name else table.rstrip(".")
    return f"{name}: {fault}" if name else fault


def _key_or_date_fault(record: Record, stem: str) -> str | None:
    """Return the fault of the key or the date; None without one. The key has to be the stem of the record's file."""
    if record.key != stem:
        return f"key: it is {record.key!r:.60}"
    try:
        date = dt.datetime.fromisoformat(record.started_at)
    except ValueError:
        return f"started_at: {record.started_at!r:.60} is no ISO 8601 date"
    if not _EARLIEST <= (date if date.tzinfo else date.replace(tzinfo=dt.UTC)) <= _LATEST:
        return f"started_at: {record.started_at!r:.60} lies outside {_EARLIEST.year} to {_LATEST.year}"
    return None

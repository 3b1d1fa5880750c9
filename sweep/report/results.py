"""Read the records of a sweep, of several sweeps, of a baseline file, or of MLflow."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sweep import __version__
from sweep.analysis import SpreadHistory, StartSpread, start_spread
from sweep.errors import ConfigError, NewerRecordError, RecordError, printable, shorten
from sweep.storage import Store, folders_with_records, record_file
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pandas as pd

    from sweep.report.compare import RunComparison
    from sweep.report.frame_columns import TableName
    from sweep.storage import Record

MLFLOW = "mlflow:"  # in front of an experiment, of EXPERIMENT/SWEEP, or of the id of a run
FORMAT, FORMAT_VERSION = "sweep-records", 1
_MOST_BYTES = 1 << 30  # of a baseline; the 503 published records have 4 MB


class _SpreadFields(msgspec.Struct):
    """Type what starts of a variant differ by, in a baseline."""

    cv: float
    freedom: float
    source: str


class _Baseline(msgspec.Struct):
    """Type a baseline file; its records are checked as those of a sweep's folder are."""

    format: str
    version: int
    records: list[dict[str, Any]]
    name: str = ""
    spreads: dict[str, _SpreadFields] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Hold the records of one or several sweeps.

    Attributes:
        name: what was read: the name of the sweep, of the file or of MLflow's experiment.
        records: the records that could be read.
        stores: the folder of each record's sweep, in the order of `records`; None where it came without samples.
        spreads: by key, what starts of a variant were known to differ by when a baseline was written.
        damaged: one line on each record that could not be read.
    """

    name: str
    records: tuple[Record, ...]
    stores: tuple[Store | None, ...]
    spreads: dict[str, StartSpread] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    @property
    def roots(self) -> list[Path]:
        """Return the folders of the sweeps."""
        return list({store.root: None for store in self.stores if store is not None})

    def frame(self, table: TableName = "variants") -> pd.DataFrame:
        """Return a pandas DataFrame of these records.

        Args:
            table: ``variants`` (one row a record), ``points`` (one row a rate of the load), ``requests`` (one row a
                request, read from the samples on disk) or ``shapes`` (one row a shape of a load of several).

        Raises:
            RecordError: the samples of a record are damaged.
        """
        from sweep.report import frames

        return frames.frame(self, table)

    def compare(self, new: Results, *, anyway: bool = False) -> RunComparison:
        """Compare these records with those of a later measurement of the same variants.

        Args:
            new: the later measurement.
            anyway: compare variants of another GPU, load or network too.

        Raises:
            ConfigError: no variant of one is comparable with one of the other; the message says what differs.
        """
        from sweep.report import compare

        return compare.compare(self, new, anyway=anyway)

    def start_spreads(self, exclude: Collection[Path] = ()) -> dict[str, StartSpread]:
        """Return what starts of each variant differ by, as the sentinel and earlier sweeps measured it, by key.

        Args:
            exclude: folders of sweeps that do not count as earlier ones.
        """
        spreads = dict(self.spreads)
        for root in self.roots:
            records = [record for record, store in self if store is not None and store.root == root]
            history: SpreadHistory = start_spread.measured(Store(root), records, exclude)
            known = {record.key: history.of(record.key) for record in records}
            spreads |= {key: spread for key, spread in known.items() if spread is not None}
        return spreads

    def __iter__(self) -> Iterator[tuple[Record, Store | None]]:
        """Yield each record with the folder of its sweep."""
        return iter(zip(self.records, self.stores, strict=True))

    def __len__(self) -> int:
        return len(self.records)


def load(place: str | Path, *, results: str | Path = "results", uri: str | None = None) -> Results:
    """Read the records of a sweep, of several sweeps, of a baseline file, or of MLflow.

    Args:
        place: folder of a sweep or of several; name of a sweep below `results`; file that ``sweep export --json`` or
            ``sweep compare --save`` wrote; or ``mlflow:EXPERIMENT``, ``mlflow:EXPERIMENT/SWEEP`` or ``mlflow:RUN_ID``.
        results: the results folder.
        uri: MLflow's store; None takes MLFLOW_TRACKING_URI, else the one in `results`.

    Raises:
        ConfigError: there are no records there.
        TrackingError: MLflow cannot be reached.
    """
    text, root = str(place), Path(results)
    if text.startswith(MLFLOW):
        from sweep.report.mlflow import read_records, resolve_uri

        return _of_records(text, read_records(resolve_uri(uri, root), text.removeprefix(MLFLOW)))
    path = Path(place)
    if path.is_file():
        return read_baseline(path)
    for folder in (path, root / path):
        stores = _stores(folder)
        if stores:
            name = folder.name if folder == path and len(stores) == 1 else text
            return _of_stores(name, stores)
    raise ConfigError(_nothing_there(text, root))


def frame(
    place: str | Path, table: TableName = "variants", *, results: str | Path = "results", uri: str | None = None
) -> pd.DataFrame:
    """Return a pandas DataFrame of the records at a place; ``load(place).frame(table)`` is the same.

    Args:
        place: as for ``load``; a folder of several sweeps gives the rows of all of them.
        table: ``variants`` (one row a record), ``points`` (one row a rate of the load), ``requests`` (one row a
            request) or ``shapes`` (one row a shape of a load of several).
        results: the results folder.
        uri: MLflow's store; None takes MLFLOW_TRACKING_URI, else the one in `results`.

    Raises:
        ConfigError: there are no records there.
        RecordError: the samples of a record are damaged.
    """
    return load(place, results=results, uri=uri).frame(table)


def read_baseline(path: Path) -> Results:
    """Read the records of a file that ``encode_baseline`` made.

    Raises:
        ConfigError: the file cannot be read, is no such file, or one of its records is damaged.
    """
    try:
        content = regular_files.read_bytes(path, follow=True, most=_MOST_BYTES)
        baseline = msgspec.json.decode(content, type=_Baseline)
    except OSError as error:
        raise ConfigError(f"baseline {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        line = shorten(printable(str(error)), 200)
        raise ConfigError(f"{path} is no baseline ({line}): `sweep export SWEEP --json FILE` writes one") from error
    if baseline.format != FORMAT:
        raise ConfigError(f"{path} is no baseline: `sweep export SWEEP --json FILE` writes one")
    if baseline.version > FORMAT_VERSION:
        newer = f"baseline {path} has version {baseline.version}, this version reads up to {FORMAT_VERSION}"
        raise ConfigError(f"{newer}: update sweep")
    records = []
    for number, raw in enumerate(baseline.records, 1):
        try:
            records.append(record_file.of_raw(Path(f"{raw.get('key')}.json"), raw))
        except NewerRecordError as error:
            raise ConfigError(f"baseline {path}: {error}") from error
        except RecordError as error:
            reason = str(error).partition("; the same sweep")[0]
            raise ConfigError(f"baseline {path}: record {number}: {reason}: write the file again") from error
    spreads = {
        key: StartSpread(cv=value.cv, freedom=value.freedom, source=value.source)
        for key, value in baseline.spreads.items()
    }
    results = _of_records(baseline.name or path.stem, records)
    return Results(name=results.name, records=results.records, stores=results.stores, spreads=spreads)


def encode_baseline(results: Results) -> bytes:
    """Encode records as the bytes of a baseline file: one record a line, so that a diff shows what changed."""
    spreads = {
        key: {"cv": spread.cv, "freedom": spread.freedom, "source": spread.source}
        for key, spread in sorted(results.start_spreads().items())
    }
    head = {"format": FORMAT, "version": FORMAT_VERSION, "sweep": __version__, "name": results.name, "spreads": spreads}
    lines = [
        json.dumps(json.loads(record_file.encode(record)), sort_keys=True)
        for record in sorted(results.records, key=lambda record: (record.sweep, record.key))
    ]
    start = json.dumps(head, allow_nan=False).removesuffix("}")
    return f'{start}, "records": [\n'.encode() + ",\n".join(lines).encode() + b"\n]}\n"


def _of_records(name: str, records: Sequence[Record]) -> Results:
    return Results(name=name, records=tuple(records), stores=(None,) * len(records))


def _of_stores(name: str, stores: Sequence[Store]) -> Results:
    records: list[Record] = []
    owners: list[Store] = []
    damaged = []
    for store in stores:
        for key in store.record_keys():
            try:
                records.append(store.read(key))
                owners.append(store)
            except RecordError as error:
                damaged.append(str(error))
    return Results(name=name, records=tuple(records), stores=tuple(owners), damaged=tuple(damaged))


def _stores(folder: Path) -> list[Store]:
    """Return the sweeps of a folder: itself, else those below it; none where it is no folder."""
    if (folder / "records").is_dir():
        return [Store(folder)]
    if not folder.is_dir():
        return []
    return [Store(path) for path in folders_with_records(folder)]


def _nothing_there(text: str, root: Path) -> str:
    """Word that a place holds no records, and which places do."""
    known = [store.root.relative_to(root).as_posix() for store in _stores(root)]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the sweeps below {root} are: {', '.join(known[:8]) or 'none'}"
    return f"{text}: no folder with records, no sweep below {root} and no baseline file; {hint}"

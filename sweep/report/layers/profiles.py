"""Find and read the layer profile that a command line names: by its record, its sweep, or its own file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sweep.analysis import layers, start_spread
from sweep.errors import ConfigError, RecordError, printable, shorten
from sweep.report.columns import common_slo
from sweep.report.comparison import compared
from sweep.report.layers.device_peaks import read_peaks
from sweep.report.naming import named_variants
from sweep.report.ranking import answer
from sweep.storage import LayerProfile, Store
from sweep.system import command_line, regular_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers import LayerAnalysis
    from sweep.storage import Record

_SCHEMA = 1
_MOST_BYTES = 256 << 20
_MOST_NAMES = 6  # of variants in a message


class NoProfileError(ConfigError):
    """Report a variant that has no layer profile.

    Attributes:
        record: the record of the variant.
    """

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Hold a profile and where it was read.

    Attributes:
        profile: the profile.
        analysis: what the profile shows.
        path: its file.
    """

    profile: LayerProfile
    analysis: LayerAnalysis
    path: Path


def profile_path(root: Path, key: str) -> Path:
    """Return the file of the layer profile of a variant.

    Args:
        root: folder of the sweep.
        key: key of the variant.
    """
    return Store(root).layers_path(key)


def read_profile(path: Path, *, follow: bool = False) -> LayerProfile:
    """Read a layer profile.

    Args:
        path: its file.
        follow: follow a link: right for a path that a user named.

    Raises:
        RecordError: it cannot be read, is damaged, or a newer version wrote it.
    """
    try:
        raw = msgspec.json.decode(regular_files.read_bytes(path, follow=follow, most=_MOST_BYTES))
    except OSError as error:
        raise RecordError(f"layer profile {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    return _typed(path, raw)


def find(place: str, labels: Sequence[str] = (), *, results: Path = Path("results")) -> list[Source]:
    """Return the profiles that `place` names, one for each of `labels`.

    Args:
        place: file of a record or of a profile, folder of a sweep, or name of a sweep below `results`.
        labels: variants of a sweep, by label, key or words of the label; none takes the best variant.
        results: the results folder.

    Raises:
        ConfigError: there is no such place, no such variant, or `labels` choose from what is a single file.
        NoProfileError: the variant was measured without a profile.
        RecordError: the file is damaged.
    """
    path = Path(place)
    if path.is_file():
        if labels:
            raise ConfigError(f"--variant {labels[0]}: {place} is one variant; --variant chooses from a whole sweep")
        return [_of_file(path)]
    for folder in (path, results / path):
        if (folder / "records").is_dir():
            store = Store(folder)
            records = list(store.readable())
            if not records:
                raise ConfigError(f"{folder} has no record that can be read")
            chosen = [_chosen(records, label) for label in labels] or [_best(store, records)]
            return [_of_record(store, record, records) for record in chosen]
    known = sorted(item.parent.name for item in results.glob("*/records"))
    names = ", ".join(known[:_MOST_NAMES]) or "none"
    raise ConfigError(f"{place}: no record, no layer profile and no sweep; the sweeps below {results} are: {names}")


def _analysed(profile: LayerProfile, path: Path) -> Source:
    results = path.resolve().parent.parent.parent  # of RESULTS/SWEEP/layers/KEY.json
    peaks = read_peaks(results, profile["device"])
    return Source(profile=profile, analysis=layers.analyse(profile, peaks, every=True), path=path)


def _of_file(path: Path) -> Source:
    """Return the profile of a record's file, or the one that `path` itself is."""
    try:
        raw = msgspec.json.decode(regular_files.read_bytes(path, follow=True, most=_MOST_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if isinstance(raw, dict) and "layers" in raw:
        return _analysed(_typed(path, raw), path)
    if isinstance(raw, dict) and "variant" in raw:
        store = Store(path.resolve().parent.parent)
        return _of_record(store, store.read(path.stem), [])
    raise ConfigError(f"{path} is neither a record (records/KEY.json) nor a layer profile (layers/KEY.json)")


def _of_record(store: Store, record: Record, records: Sequence[Record]) -> Source:
    """Return the profile of a record.

    Raises:
        NoProfileError: it has none; the message names variants of `records` that have one.
    """
    path = profile_path(store.root, record.key)
    if path.exists():
        return _analysed(read_profile(path), path)
    labels = compared(records).labels if records else {}
    label = labels.get(record.key) or str(record.variant.get("label", record.key))
    if record.error is not None:
        raise ConfigError(f"{label} of {store.root} is {record.status}, so it has no layers: {record.error['message']}")
    others = [item for item in records if profile_path(store.root, item.key).exists()]
    hint = f"; --variant takes one that has: {_listed(records, others)}" if others else ""
    raise NoProfileError(f"{label} of {store.root} was measured without a layer profile{hint}", record)


def _best(store: Store, records: Sequence[Record]) -> Record:
    """Return the variant that the sweep recommends; of several models, the only one with a profile."""
    if len(records) == 1:
        return records[0]
    recommendation = answer(records, common_slo(records), start_spread.measured(store, records))
    if recommendation.best is not None:
        return recommendation.best
    profiled = [record for record in records if profile_path(store.root, record.key).exists()]
    if len(profiled) == 1:
        return profiled[0]
    names = _listed(records, profiled or records)
    raise ConfigError(f"{store.root} has no single best variant: name one by --variant LABEL, as: {names}")


def _chosen(records: Sequence[Record], words: str) -> Record:
    """Return the one variant that `words` name.

    Raises:
        ConfigError: none has that name, or several have all of the words.
    """
    matches = named_variants(records, words)
    if len(matches) == 1:
        return matches[0]
    count = f"{len(matches)} variants have these words" if matches else "no variant has that label"
    raise ConfigError(f"--variant {printable(words)}: {count}; they are: {_listed(records, matches or records)}")


def _listed(records: Sequence[Record], shown: Sequence[Record]) -> str:
    """Return labels for a message, in the order of their numbers: b4 before b16."""
    labels = compared(records).labels
    names = sorted((labels[record.key] for record in shown), key=_by_number)
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{rest}"


def _by_number(label: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", label)]


def _typed(path: Path, raw: Any) -> LayerProfile:
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > _SCHEMA:
        raise RecordError(f"layer profile {path} has schema {schema}, this version reads up to {_SCHEMA}: update sweep")
    try:
        return msgspec.convert(raw, LayerProfile)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> RecordError:
    line = shorten(printable(reason), 200)
    program = command_line.format_command("...", "layers=true", "force=true").replace("'...'", "...")
    return RecordError(f"layer profile {path} is damaged ({line}): measure the variant again ({program})")

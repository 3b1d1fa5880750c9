"""Keep the measured peaks of devices in the results folder, where layer profiles are held against them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from sweep.analysis.layers import Peaks, merged_peaks, peaks_of
from sweep.errors import RecordError, printable, shorten
from sweep.system import command_line, regular_files, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "peaks.json"
_MOST_BYTES = 1 << 20


class _DevicePeaks(msgspec.Struct, frozen=True):
    """Hold one device of the file.

    Attributes:
        source: how they were measured.
        measured_at: when, ISO 8601 with the time zone.
        gb_per_s: bandwidth of its memory, 1e9 bytes/s.
        tflops: TFLOP/s (TOP/s for integers) by type.
    """

    source: str
    measured_at: str
    gb_per_s: float | None = None
    tflops: dict[str, float] = msgspec.field(default_factory=dict)


class _File(msgspec.Struct, frozen=True):
    devices: dict[str, _DevicePeaks] = msgspec.field(default_factory=dict)


def peaks_path(results: Path) -> Path:
    """Return the file of the measured peaks of a results folder."""
    return results / _FILE


def write_peaks(results: Path, peaks: Peaks) -> Path:
    """Write measured peaks beside those of other devices; return the file.

    Args:
        results: the results folder.
        peaks: replace earlier ones of the same device.

    Raises:
        OSError: the file cannot be written; the old one is untouched.
        RecordError: the file that is there is damaged.
    """
    path = peaks_path(results)
    devices = dict(_read(path).devices)
    devices[peaks.name] = _DevicePeaks(
        source=peaks.source,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        gb_per_s=peaks.gb_per_s,
        tflops=dict(peaks.tflops),
    )
    content: Any = {"devices": {name: msgspec.to_builtins(one) for name, one in sorted(devices.items())}}
    results.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read_peaks(results: Path, device: str | None) -> Peaks | None:
    """Return what a layer profile of `device` is held against: measured peaks, else those of its data sheet.

    A type that was not measured has the peak of the data sheet.

    Args:
        results: folder that may have measured peaks.
        device: name that the driver or the operating system gives it.

    Raises:
        RecordError: the file is damaged.
    """
    entry = _read(peaks_path(results)).devices.get(device or "")
    if entry is None or device is None:
        return peaks_of(device)
    measured = Peaks(
        name=device,
        source=f"{entry.source}, {entry.measured_at[:10]}",
        gb_per_s=entry.gb_per_s,
        tflops=entry.tflops,
        measured=True,
    )
    return merged_peaks(measured, peaks_of(device))


def peaks_or_data_sheet(results: Path, device: str | None) -> Peaks | None:
    """Return what `read_peaks` does; of a damaged file nothing counts, so that no sweep or page ends by it."""
    try:
        return read_peaks(results, device)
    except RecordError:
        return peaks_of(device)


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(regular_files.read_bytes(path, follow=False, most=_MOST_BYTES), type=_File)
    except FileNotFoundError:
        return _File()
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = shorten(printable(reason), 200)
        again = command_line.format_command("doctor", "--peaks")
        raise RecordError(f"{path} cannot be read ({line}): remove it and measure again ({again})") from error

"""Hold the readings of a GPU over a pass and save them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SPREAD = ("power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c")
COLUMNS = (*SPREAD, "energy_j", "reasons", "own", "foreign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Hold the readings of one GPU over one pass.

    Attributes:
        t_ns: shape (readings,), int64: time of each reading in ns of the host's monotonic clock
            (``time.perf_counter_ns``), ascending.
        columns: by ``COLUMNS``, each of shape (readings,), float64; NaN where a value could not be read. Watts, MHz,
            degrees Celsius, joules since the driver was loaded, NVML's bit mask, numbers of our and of other processes.
        strangers: pid and name of each foreign process that was seen.
        lost: NVML's message if the readings ended early; None if they did not.
    """

    t_ns: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    strangers: tuple[str, ...] = ()
    lost: str | None = None


def save(path: Path, passes: Mapping[int, Series]) -> None:
    """Write the series of each pass to one compressed npz, atomically.

    Args:
        path: file to create or replace, with the arrays ``<pass>/t_ns`` and ``<pass>/<column>``.
        passes: series by number of the pass.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    arrays: dict[str, Any] = {}
    for number, series in passes.items():
        arrays[f"{number}/t_ns"] = series.t_ns
        arrays |= {f"{number}/{name}": values for name, values in series.columns.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())

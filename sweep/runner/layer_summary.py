"""Summarise a layer profile for the record of its variant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sweep.analysis import layers
from sweep.report.layers import peaks_or_data_sheet
from sweep.system import regular_files

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.storage import EngineInfo, LayerProfile, LayerSummary, Record


def with_summary(record: Record, path: Path) -> Record:
    """Return a record with the summary of its layer profile.

    Args:
        record: of the variant that was profiled.
        path: the profile, which lies in the folder of its sweep.

    Raises:
        OSError: the profile cannot be read.
    """
    profile = cast("LayerProfile", json.loads(regular_files.read_bytes(path, follow=False)))
    results = path.resolve().parent.parent.parent
    engine = cast("EngineInfo", {**(record.engine or {}), "layers": summarise(profile, results)})
    return replace(record, engine=engine)


def summarise(profile: LayerProfile, results: Path) -> LayerSummary:
    """Return what a record says of a layer profile.

    Args:
        profile: the profile.
        results: folder that may have measured peaks of its device.
    """
    analysis = layers.analyse(profile, peaks_or_data_sheet(results, profile["device"]))
    totals = analysis.totals
    return {
        "layers": sum(layer["time"] is not None for layer in profile["layers"]),
        "timed_us": totals.timed_us,
        "layers_us": totals.layers_us,
        "gemm_share": totals.gemm_share,
        "bound": str(totals.bound),
        "compute_peak_share": totals.share_of_compute_peak,
        "bandwidth_peak_share": totals.share_of_bandwidth_peak,
        "findings": len(analysis.findings),
    }

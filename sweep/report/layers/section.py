"""Sum up the layer profiles of a sweep for its page: a row a variant."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sweep.analysis import layers
from sweep.errors import RecordError
from sweep.report.comparison import compared
from sweep.report.layers import wording
from sweep.report.layers.device_peaks import peaks_or_data_sheet
from sweep.report.layers.profiles import profile_path, read_profile
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweep.storage import Record

_MOST_KINDS = 4  # categories of layers that a row names


def summaries(roots: Mapping[str, Path], records: Sequence[Record]) -> list[dict[str, str]]:
    """Return a row for each variant that has a layer profile; a profile that cannot be read is left out.

    Args:
        roots: folders of the sweeps, by their names.
        records: records of these sweeps.

    Returns:
        ``label``, ``timed`` and ``layers`` (us), ``gemm`` (share), ``kinds``, ``finding`` and ``command`` of each.
    """
    labels = compared(records).labels
    rows = []
    for record in records:
        root = roots.get(record.sweep)
        path = None if root is None else profile_path(root, record.key)
        if root is None or path is None or not path.is_file():
            continue
        try:
            profile = read_profile(path)
        except RecordError:
            continue
        analysis = layers.analyse(profile, peaks_or_data_sheet(root.resolve().parent, profile["device"]))
        totals = analysis.totals
        kinds = list(totals.category_us.items())[:_MOST_KINDS]
        rows.append(
            {
                "label": labels[record.key],
                "timed": wording.amount(totals.timed_us),
                "layers": wording.amount(totals.layers_us),
                "gemm": "-" if totals.gemm_share is None else f"{totals.gemm_share:.0%}",
                "kinds": ", ".join(f"{kind} {time / totals.layers_us:.0%}" for kind, time in kinds if time > 0),
                "finding": analysis.findings[0].title if analysis.findings else "none that costs much",
                "command": f"{command_line.NAME} layers {shlex.quote(str(root))} --variant {record.key}",
            }
        )
    return rows

"""Compute every figure of the records again from their raw samples and compare.

FOLDER is a sweep's folder, its name below the results folder, or a root of several. Peak, points, SLO, drift and all
their verdicts are recomputed; for each record that differs, the fields that differ are listed. --write rewrites those
records.

Exit codes: 0 every record with samples came out the same, or was rewritten; 1 some differ, or their samples are missing
or damaged; 2 the command is wrong, or FOLDER has no record that could be recomputed.

Example:
  sweep recompute results --write
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, printable_line

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a sweep, or of several")
    arguments.add_results_option(parser)
    parser.add_argument("--write", action="store_true", help="rewrite the records that differ")


def run(options: argparse.Namespace) -> int:
    """Recompute the records and print what differs; return the exit code."""
    from sweep.cli.recompute import summaries

    folder = options.folder
    if not folder.is_dir() and (options.results / folder).is_dir():
        folder = options.results / folder
    counts: Counter[str] = Counter()
    for item in summaries.recomputed(folder, write=options.write):
        counts[item.state] += 1
        if item.state in {"differs", "rewritten", "unreadable"}:
            sys.stdout.write(printable_line(f"{item.state:<10} {item.path}: {item.detail}") + "\n")
    totals = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no records"
    sys.stdout.write(printable_line(f"{folder}: {totals}") + "\n")
    if not counts["same"] + counts["differs"] + counts["rewritten"]:
        raise ConfigError(f"nothing in {folder} could be recomputed: it needs records/ with samples/ beside")
    return 1 if counts["differs"] + counts["unreadable"] + counts["unsampled"] else 0

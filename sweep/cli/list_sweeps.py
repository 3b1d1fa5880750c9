"""List the sweeps below the results folder: when, how their variants ended, size on disk, networks, and publication.

Exit codes: 0 listed; 2 the command is wrong, or there is no results folder.

Examples:
  sweep list
  sweep list results --json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from sweep.cli import arguments
from sweep.errors import ConfigError, TrackingError, error_line, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

_LOG_WIDTH = 160  # of a pipe or file, where nothing says how wide it is
_MOST_MODELS = 3  # named in a row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_results(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")


def run(options: argparse.Namespace) -> int:
    """List the sweeps; return the exit code."""
    from sweep.cli.console import Terminal
    from sweep.storage import find_sweeps

    if not options.results.is_dir():
        raise ConfigError(f"{options.results} is not there: name the results folder")
    sweeps = find_sweeps(options.results)
    published, problem = _published(options.uri, options.results)
    rows = [describe(name, root, published) for name, root in sweeps.items()]
    rows.sort(key=lambda row: str(row["last_measured"] or ""))
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    if not rows:
        line = f"no sweep below {options.results}"
        if (options.results / "records").is_dir():
            line += f", which is the folder of one: sweep show {options.results.name} shows it"
        sys.stdout.write(printable_line(line) + "\n")
        return 0
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    _print(console, rows)
    if problem is not None:
        sys.stderr.write(f"sweep list: {problem}\n")
    return 0


def _published(uri: str | None, results: Path) -> tuple[dict[str, list[str]] | None, str | None]:
    """Return the experiments of each published sweep, or None and why that is not known."""
    from sweep.cli import sweep_places
    from sweep.report.mlflow import sweep_runs

    store = sweep_places.store_uri(uri, results)
    if store is None:
        return {}, None
    try:
        return sweep_runs.published(store), None
    except TrackingError as error:
        return None, f"what is published is not known: {error_line(error)}"


def describe(name: str, root: Path, published: Mapping[str, list[str]] | None) -> dict[str, Any]:
    """Return what a row of the list says of a sweep, as JSON values.

    Args:
        name: of the sweep.
        root: its folder.
        published: experiments of each published sweep; None where that is not known.
    """
    from sweep.errors import RecordError
    from sweep.storage import Store, sweep_files

    store, statuses, models, dates = Store(root), Counter[str](), Counter[str](), []
    for key in store.record_keys():
        try:
            record = store.read(key)
        except RecordError:
            statuses["damaged"] += 1
            continue
        statuses[str(record.status)] += 1
        models[str(record.variant.get("model"))] += 1
        dates.append(record.started_at)
    return {
        "name": name,
        "folder": str(root),
        "last_measured": max(dates, default=None),
        "variants": dict(statuses.most_common()),
        "models": sorted(models),
        "bytes": sum(part.bytes for part in sweep_files.parts(root)),
        "published": None if published is None else published.get(name, []),
    }


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from sweep.cli import sweep_places

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "last measured, UTC", "variants", "networks"):
        table.add_column(heading, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("in MLflow", overflow="fold")
    for row in rows:
        cells = (
            row["name"],
            str(row["last_measured"] or "-")[:16].replace("T", " "),
            ", ".join(f"{count} {status}" for status, count in row["variants"].items()) or "none",
            ", ".join(row["models"][:_MOST_MODELS])
            + (f" and {len(row['models']) - _MOST_MODELS} more" if len(row["models"]) > _MOST_MODELS else ""),
            sweep_places.size(row["bytes"]),
            "?" if row["published"] is None else ", ".join(row["published"]) or "no",
        )
        table.add_row(*(escape(printable_line(cell)) for cell in cells))
    console.print(table)
    total = sum(row["bytes"] for row in rows)
    console.print(
        f"{len(rows)} sweeps, {sweep_places.size(total)}; the cache is listed by `sweep cache`", highlight=False
    )

"""Show a sweep: its outcome, the command that makes it again, the facts of its machine, sizes, and where its files are.

Of many variants the recommended one and its ties come first, then those with the highest peaks; --all shows them all.

Exit codes: 0 shown; 2 the command is wrong, or there is no such sweep.

Example:
  sweep show quickstart
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from sweep.errors import printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sweep.report import Answer
    from sweep.storage import Record

_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is
_MOST_ROWS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from sweep.cli import arguments, sweep_places

    sweep_places.add_name(parser, "name", metavar="NAME", help="name of the sweep, or its folder")
    arguments.add_results_option(parser)
    parser.add_argument("--all", action="store_true", help="show every variant")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def run(options: argparse.Namespace) -> int:
    """Show the sweep; return the exit code."""
    from sweep.analysis import start_spread
    from sweep.cli import list_sweeps, sweep_commands, sweep_places
    from sweep.cli.console import Terminal
    from sweep.report import answer, common_slo, table
    from sweep.storage import Store, sweep_files

    name, root = sweep_places.named(options.results, options.name)
    store = Store(root)
    records = sorted(store.readable(), key=lambda record: (record.started_at, record.key))
    recommendation = answer(records, common_slo(records), start_spread.measured(store, records))
    command, facts, parts = sweep_commands.of_folder(root), _facts(records), sweep_files.parts(root)
    if options.json:
        content = {
            **list_sweeps.describe(name, root, None),
            "command": command,
            "facts": facts,
            "recommended": [part.best.key for part in recommendation.parts if part.best is not None],
            "parts": [{"name": part.name, "files": part.files, "bytes": part.bytes} for part in parts],
        }
        del content["published"]
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
        return 0
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    shown = records if options.all else _first(records, recommendation)
    if shown:
        table.print_outcome(console, shown, recommendation, common_slo(records), records)
    if len(shown) < len(records):
        _print(f"{len(shown)} of {len(records)} variants are shown; --all shows them all")
    _print("")
    for heading, text in (
        ("command", command or "not known"),
        *(("facts", f"{fact} = {' | '.join(values)}") for fact, values in facts.items()),
        *(("size", sweep_places.part_line(part)) for part in parts),
        ("folder", str(root)),
    ):
        _print(f"{heading:<8} {text}")
    return 0


def _first(records: Sequence[Record], recommendation: Answer) -> list[Record]:
    """Return at most as many records as a short table has, in the order of the rows: the best ones."""

    def rank(record: Record) -> tuple[bool, bool, float]:
        ips = record.peak["ips"] if record.peak else None
        return recommendation.mark(record) == "", record.status != "ok", -(ips or 0.0)

    best = {record.key for record in sorted(records, key=rank)[:_MOST_ROWS]}
    return [record for record in records if record.key in best]


def _facts(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return the values of each fact of the records, of which one is usual."""
    from sweep.system import environment

    facts: dict[str, dict[str, None]] = {}
    for record in records:
        for name in (*environment.COMPARED, "compute_capability", "sweep"):
            value = dict(record.facts).get(name)
            if value is not None:
                facts.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in facts.items()}


def _print(line: str) -> None:
    sys.stdout.write(printable_line(line) + "\n")

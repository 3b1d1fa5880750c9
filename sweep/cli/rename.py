"""Give a sweep another name: its folder, its records, its request, its page, and its runs in MLflow.

No figure changes, and runs in MLflow keep their ids. The command that made the sweep continues it with name=NEW. A
rename that was interrupted is completed by the same command.

Exit codes: 0 renamed; 1 MLflow refuses, nothing is renamed; 2 the command is wrong, the sweep is in use, or NEW exists.

Example:
  sweep rename quickstart-a1b2c3 before-the-upgrade
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sweep.errors import ConfigError, TrackingError, error_line, printable_line

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from sweep.cli import arguments, sweep_places

    sweep_places.add_name(parser, "old", metavar="OLD", help="name of the sweep, or its folder")
    parser.add_argument("new", metavar="NEW", help="its new name")
    arguments.add_results_option(parser)
    sweep_places.add_mlflow(parser)


def run(options: argparse.Namespace) -> int:
    """Rename the sweep; return the exit code."""
    import os

    from sweep.cli import sweep_places
    from sweep.config import check_name
    from sweep.storage import exclusive, sweep_files

    old, root = sweep_places.named(options.results, options.old)
    check_name(options.new)
    target = root.parent / options.new
    new = target.relative_to(options.results).as_posix()
    if os.path.lexists(target):
        raise ConfigError(f"{target} is there already: choose another name")
    with exclusive(root):
        records = sweep_files.renamed_records(root, options.new)
        experiments: tuple[str, ...] = ()
        try:
            if not options.keep_mlflow:
                experiments = _rename_runs(options, old, new, records)
        except TrackingError as error:
            sys.stderr.write(f"sweep rename: nothing is renamed ({error_line(error)}); --keep-mlflow leaves it out\n")
            return 1
        sweep_files.write_name(root, options.new, records)
        root.rename(target)
    _print(f"renamed  {old} to {new}: {len(records)} records")
    _publish(options, target, new, experiments)
    if (target / _PAGE).is_file() and records:
        from sweep.cli import commands

        return commands.run_command("report", [str(target)])
    return 0


def _rename_runs(
    options: argparse.Namespace, old: str, new: str, records: dict[str, tuple[bytes, bytes]]
) -> tuple[str, ...]:
    """Rename the sweep's runs; return the experiments that have them."""
    from sweep.cli import sweep_places
    from sweep.report.mlflow import sweep_runs

    uri = sweep_places.store_uri(options.uri, options.results)
    if uri is None:
        return ()
    renamed = sweep_runs.rename(uri, old, new, records)
    if renamed.kept:
        _print(f"mlflow   {renamed.kept} runs of {old} hold other records than its folder: they keep the name")
    return renamed.experiments


def _publish(options: argparse.Namespace, root: Path, new: str, experiments: tuple[str, ...]) -> None:
    """Bring the saved view of each experiment up to date; the runs are there already."""
    from sweep.cli import sweep_places
    from sweep.report.mlflow import Publisher
    from sweep.storage import Store

    uri = sweep_places.store_uri(options.uri, options.results)
    for experiment in experiments:
        assert uri is not None  # noqa: S101 - tells mypy: it has experiments
        store = Store(root)
        try:
            outcome = Publisher(uri, experiment, new).publish(list(store.readable()), store)
        except TrackingError as error:
            sys.stderr.write(f"sweep rename: {error_line(error)}\n")
            continue
        _print(f"mlflow   experiment {experiment}: {outcome.sent + outcome.unchanged} runs have the new name")


def _print(line: str) -> None:
    sys.stdout.write(printable_line(line) + "\n")

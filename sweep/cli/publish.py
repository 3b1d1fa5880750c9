"""Send every record on disk to MLflow. Publishing twice changes nothing.

The store is --uri, else MLFLOW_TRACKING_URI, else sqlite in the results folder, which `sweep ui` serves.

Exit codes: 0 sent; 1 MLflow cannot be reached or refuses the records; 2 the command is wrong, or a sweep has no
records there.

Example:
  sweep publish results quickstart --uri http://mlflow.example:5000
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, TrackingError, printable_line

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from sweep.report.mlflow import Publisher
    from sweep.storage import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_results(parser)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="folders of the sweeps to send [all]")
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")
    parser.add_argument("--experiment", default="sweep", metavar="NAME", help="MLflow experiment [sweep]")


def run(options: argparse.Namespace) -> int:
    """Publish the sweeps; return the exit code."""
    from sweep.report.mlflow import Publisher, reachable, resolve_uri, ui_address, without_password
    from sweep.storage import Store
    from sweep.system import command_line

    uri = resolve_uri(options.uri, options.results)
    folders = sweep_folders(options.results)
    unknown = sorted(set(options.sweeps) - set(folders))
    if unknown or not folders:
        names, available = ", ".join(unknown) or "any sweep", ", ".join(folders) or "none"
        raise ConfigError(f"no records of {names} below {options.results}; there are: {available}")
    problem = reachable(uri)
    if problem is not None:
        return _fail(f"MLflow at {without_password(uri)} cannot be written: {problem}")
    ui = ui_address(uri)
    words = [*command_line.results_words(options.results), *(["--uri", without_password(uri)] if options.uri else [])]
    served = "" if ui.port is None else f"  (once `{command_line.format_command('ui', *words, *ui.words)}` runs)"
    try:
        for name in options.sweeps or folders:
            _publish(Store(folders[name]), Publisher(uri, options.experiment, name), served)
    except TrackingError as error:
        return _fail(str(error))
    return 0


def _fail(line: str) -> int:
    sys.stderr.write(f"sweep publish: {printable_line(line)}\n")
    return 1


def sweep_folders(results: Path) -> dict[str, Path]:
    """Return the folders below `results` that hold records, by their path from there, which is the sweep's name."""
    from sweep.storage import folders_with_records

    folders = folders_with_records(results)
    return {path.relative_to(results).as_posix(): path for path in folders if path != results}


def _publish(store: Store, publisher: Publisher, served: str) -> None:
    records = list(store.readable())
    outcome = publisher.publish(records, store)
    damaged = len(store.record_keys()) - len(records)
    unread_part = f", {damaged} cannot be read" if damaged else ""
    counts = f"{outcome.sent} sent, {outcome.unchanged} unchanged{unread_part} ({outcome.seconds:.1f} s)"
    for note in outcome.notes:
        sys.stdout.write(f"note: {printable_line(note)}\n")
    sys.stdout.write(printable_line(f"{store.root.name}: {counts}") + "\n")
    if outcome.url:
        sys.stdout.write(f"  {printable_line(outcome.url)}{served}\n")

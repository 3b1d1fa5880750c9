"""Send every record on disk to MLflow. Publishing twice changes nothing.

The store is --uri, else MLFLOW_TRACKING_URI, else sqlite in the results folder, which `sweep ui` serves.

With --register the variant that the sweep recommends, or --variant names, becomes a version of a registered model: the
folder that `sweep take` writes, with a loader, so that `mlflow models serve -m models:/NAME@champion` serves it. The
alias `champion` points at the version that was registered last.

Exit codes: 0 sent; 1 MLflow cannot be reached or refuses, or the engine does not run here as it should; 2 the command
is wrong, a sweep has no records there, or its engine is no longer in the cache.

Examples:
  sweep publish results quickstart --uri http://mlflow.example:5000
  sweep publish results choice --register digits
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError, TrackingError, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from sweep.cli.take.selection import Choice
    from sweep.report.mlflow import Publisher
    from sweep.storage import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[RESULTS] [SWEEP]",
        help="results folder [results], and the sweeps to send [all]; with --results, sweeps alone",
    )
    parser.add_argument("--results", type=Path, metavar="RESULTS", help="results folder")
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")
    parser.add_argument("--experiment", default="sweep", metavar="NAME", help="MLflow experiment [sweep]")
    parser.add_argument("--register", metavar="NAME", help="register the winner as a version of this model")
    parser.add_argument("--variant", help="with --register: label or key of the variant [the recommended one]")
    parser.add_argument(
        "--build", action="store_true", help="with --register: build an engine again that is no longer in the cache"
    )


def run(options: argparse.Namespace) -> int:
    """Publish the sweeps; return the exit code."""
    from sweep.report.mlflow import Publisher, reachable, resolve_uri, ui_address, without_password
    from sweep.storage import Store
    from sweep.system import command_line

    words = options.words if options.results is not None else options.words[1:]
    options.sweeps = list(words)
    options.results = options.results or Path(options.words[0] if options.words else "results")
    uri = resolve_uri(options.uri, options.results)
    folders = sweep_folders(options.results)
    unknown = sorted(set(options.sweeps) - set(folders))
    if unknown or not folders:
        names, available = ", ".join(unknown) or "any sweep", ", ".join(folders) or "none"
        raise ConfigError(f"no records of {names} below {options.results}; there are: {available}")
    choice = _choice(options, folders)
    problem = reachable(uri)
    if problem is not None:
        return _fail(f"MLflow at {without_password(uri)} cannot be written: {problem}")
    ui = ui_address(uri)
    place = [*command_line.results_words(options.results), *(["--uri", without_password(uri)] if options.uri else [])]
    served = "" if ui.port is None else f"  (once `{command_line.format_command('ui', *place, *ui.words)}` runs)"
    try:
        for name in options.sweeps or folders:
            _publish(Store(folders[name]), Publisher(uri, options.experiment, name), served)
        if choice is not None:
            return _register(choice, (options.sweeps or [*folders])[0], uri, options)
    except TrackingError as error:
        return _fail(str(error))
    return 0


def _choice(options: argparse.Namespace, folders: Mapping[str, Path]) -> Choice | None:
    """Return the variant to register; None without --register.

    Raises:
        ConfigError: it is not one variant of one sweep, or it has no engine to take.
    """
    if options.register is None:
        if options.variant is not None or options.build:
            raise ConfigError("--variant and --build say what to register: add --register NAME")
        return None
    if not options.register.strip() or set(options.register) & set("/:'\""):
        raise ConfigError(
            f"--register {options.register}: a model's name has no slash, colon or quote, and is not empty"
        )
    sweeps = options.sweeps or [*folders]
    if len(sweeps) != 1:
        listed = ", ".join(sweeps[:8])
        raise ConfigError(f"--register takes the winner of one sweep, here are {len(sweeps)}: name one of {listed}")
    from sweep.cli.take import selection

    wanted = [] if options.variant is None else [options.variant]
    choices = selection.choose([str(folders[sweeps[0]])], wanted, options.results)
    if len(choices) != 1:
        labels = ", ".join(f'"{choice.label}"' for choice in choices)
        raise ConfigError(
            f"{sweeps[0]} recommends {len(choices)} variants, one a model: --variant takes one of {labels}"
        )
    return choices[0]


def _register(choice: Choice, sweep: str, uri: str, options: argparse.Namespace) -> int:
    """Take the variant into a temporary folder, and register that; return the exit code.

    Raises:
        ConfigError: no cache has its engine.
        TrackingError: MLflow cannot be reached, or refuses.
    """
    from sweep import spec
    from sweep.cli.take import bundle, engine_entry
    from sweep.report.mlflow import ALIAS, Winner, register

    source = engine_entry.locate(choice, None, options.results, build=options.build)
    try:
        with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
            folder = Path(scratch) / "taken"
            check = bundle.write(folder, choice, source)
            winner = Winner(
                record=choice.record,
                folder=folder,
                label=choice.label,
                reason=choice.reason,
                takes_batches=spec.from_record(choice.record.variant).engine.profile is not None,
            )
            version = register(uri, options.experiment, sweep, options.register, winner)
    except bundle.UncheckedError as error:
        return _fail(str(error))
    finally:
        source.close()
    state = "registered" if version.is_new else "registered before"
    sys.stdout.write(printable_line(f"{state}: {version.name} version {version.number}, {choice.label}") + "\n")
    sys.stdout.write(printable_line(f"  {check}") + "\n")
    sys.stdout.write(printable_line(f"  models:/{version.name}@{ALIAS} is this version") + "\n")
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

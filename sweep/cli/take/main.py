"""Take the winner away: its engine, figures, recipe, the command that makes it again, and a loader that runs.

DIR is the folder of a sweep or of several, or the name of a sweep below the results folder. Without --variant, the
variant that the sweep recommends is taken, of several models that of each. OUT gets a folder for each variant, whole or
not at all: README.md has the figures and what the engine is bound to, infer.py loads the engine and checks its outputs.

Exit codes: 0 taken; 1 a file cannot be written, or the engine does not run here as it should; 2 the command is wrong, a
variant did not end ok, or its engine is no longer in the cache.

Example:
  sweep take results/choice --to winner
  sweep take choice --variant "digits fp16 b8" --to winner --build
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.cli.take.selection import Choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("places", nargs="+", metavar="DIR", help="folder or name of a sweep, or a folder of several")
    parser.add_argument(
        "--variant",
        action="extend",
        nargs="+",
        default=[],
        metavar="VARIANT",
        help="label or words of it, or key of a record [the recommended one]; can be repeated",
    )
    parser.add_argument("--to", type=arguments.folder, metavar="OUT", help="folder to make; it must not hold anything")
    parser.add_argument("--build", action="store_true", help="build an engine again that is no longer in the cache")
    parser.add_argument(
        "--cache", type=arguments.folder, metavar="DIR", help="cache folder [the one beside the sweep, or in --results]"
    )
    arguments.add_results_option(parser)


def run(options: argparse.Namespace) -> int:
    """Take the variants; return the exit code."""
    from sweep.cli.take import selection
    from sweep.storage import is_own_file

    if options.to is None:
        raise ConfigError("where to? --to OUT names the folder to make (--help lists the arguments)")
    if any(place.startswith("mlflow:") for place in options.places):
        raise ConfigError("an engine is taken from the folder of a sweep and its cache; MLflow has neither")
    out = options.to.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--to {options.to}: it is there and no empty folder; name a folder that is to be made")
    if is_own_file(out):
        raise ConfigError(
            f"--to {options.to} lies among the files that sweep itself keeps and reads: name another folder"
        )
    choices = selection.choose(options.places, options.variant, options.results)
    return _take(choices, out, options)


def _take(choices: Sequence[Choice], out: Path, options: argparse.Namespace) -> int:
    from sweep.cli.take import bundle, engine_entry
    from sweep.system import atomic_files

    sources = [engine_entry.locate(choice, options.cache, options.results, build=options.build) for choice in choices]
    try:
        with atomic_files.errors_name(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.remove_dead_folders(out.parent, out.name)
        with atomic_files.errors_name(out), bundle.assembled(out) as scratch:
            names = bundle.folder_names(choices)
            checks = [
                bundle.write(scratch / names[number], choice, sources[number]) for number, choice in enumerate(choices)
            ]
    except bundle.UncheckedError as error:
        sys.stderr.write(f"sweep take: {printable_line(str(error))}\n")
        return 1
    finally:
        for source in sources:
            source.close()
    for number, choice in enumerate(choices):
        _print(f"taken    {choice.label}: {choice.reason}")
        _print(f"         {options.to / names[number]}")
        _print(f"         {checks[number]}")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(printable_line(line) + "\n")

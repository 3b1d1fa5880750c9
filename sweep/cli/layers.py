"""Show where the time of an inference goes, layer by layer; of two variants, why one is slower than the other.

RECORD is the file of a record, the folder of a sweep or its name below the results folder, or a file of layers/. Of a
sweep, the best variant is taken, or each that --variant names: two of them are compared. `layers=true` on the command
line of a sweep measures the layers. Times are medians over many inferences; the sum of the layers stands against the
time of an inference without a profiler. With two, layers are joined by the ONNX nodes that they compute.

Exit codes: 0 shown; 1 a file cannot be written; 2 the command is wrong, or there is no layer profile.

Example:
  sweep layers quickstart
  sweep layers quickstart --variant fp16 --variant int8 --html why.html
  sweep layers results/driver-a/records/KEY.json results/driver-b/records/KEY.json
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError
from sweep.system import command_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from sweep.report.layers import Source
    from sweep.storage import Record

_BY = ("layer", "kind", "scope", "node")
_TOP = 15
_MOST = 2  # profiles that are compared
_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("records", nargs="+", metavar="RECORD", help="record, sweep or layer profile; two are compared")
    parser.add_argument("--variant", action="append", metavar="LABEL", help="variant of a sweep [the best one]")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--top", type=arguments.count, default=_TOP, metavar="N", help=f"rows of the table [{_TOP}]")
    rows.add_argument("--all", action="store_true", help="print all rows, and findings that cost little")
    parser.add_argument("--by", choices=_BY, default="layer", help="what a row is [layer]")
    parser.add_argument("--html", type=arguments.folder, metavar="FILE", help="write a page that needs no network")
    parser.add_argument("--json", type=arguments.folder, metavar="FILE", help="write the figures for scripts")
    parser.add_argument("--csv", type=arguments.folder, metavar="FILE", help="write a row a layer as CSV")
    parser.add_argument("--trace", type=arguments.folder, metavar="FILE", help="write a trace for Perfetto or Chrome")
    arguments.add_results_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print and write what was requested; return the exit code."""
    from sweep.cli.console import Terminal
    from sweep.report import layers

    arguments.refuse_special_files(options.html, options.json, options.csv, options.trace)
    sources = _sources(options)
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    top = None if options.all else options.top
    written: list[tuple[Path | None, Callable[[], bytes]]]
    if len(sources) == 1:
        source = sources[0]
        written = [
            (options.html, lambda: layers.profile_page(source)),
            (options.json, lambda: layers.as_json(source)),
            (options.csv, lambda: layers.as_csv(source).encode()),
        ]
    else:
        if options.by == "node":
            raise ConfigError("--by node shows one profile; two are joined by their nodes already: --by layer")
        difference = layers.differ(*sources)
        written = [
            (options.html, lambda: layers.difference_page(difference)),
            (options.json, lambda: layers.difference_json(difference)),
            (options.csv, lambda: layers.difference_csv(difference).encode()),
        ]
    for path, content in (*written, (options.trace, lambda: layers.as_trace(sources))):
        if path is not None:
            arguments.write_output(path, content())
    if len(sources) == 1:
        layers.print_profile(console, sources[0], top=top, by=options.by)
    else:
        layers.print_difference(console, difference, top=top, by=options.by)
    return 0


def _sources(options: argparse.Namespace) -> list[Source]:
    """Return the one or two profiles that the command line names.

    Raises:
        ConfigError: there are more, or a variant has no profile; the message says what measures one.
    """
    from sweep.report import layers

    labels = options.variant or []
    if len(options.records) > _MOST or len(labels) > _MOST:
        raise ConfigError("it takes one RECORD or two, and --variant at most twice")
    if len(options.records) == _MOST and len(labels) == _MOST:
        per_place = [[labels[0]], [labels[1]]]
    else:
        per_place = [labels] * len(options.records)
    sources = []
    for place, own in zip(options.records, per_place, strict=True):
        try:
            sources += layers.find(place, own, results=options.results)
        except layers.NoProfileError as error:
            raise ConfigError(f"{error}; to measure one: {_command(error.record)}") from error
    return sources


def _command(record: Record) -> str:
    """Return the command that measures a variant again, with its layers."""
    from sweep import spec
    from sweep.cli import sweep_commands

    written = sweep_commands.of_variants({record.key: spec.from_record(record.variant)}, ())
    command = written.get(record.key, f"{command_line.NAME} ...")
    return f"{command} name={shlex.quote(record.sweep)} layers=true force=true"

"""Make the page of one or several sweeps from their records, at any time, and pictures for slides.

DIR is the folder of a sweep, or a folder of sweeps, all of which are taken; a name alone is looked for in the results
folder too. The page is one file that opens without a network: sortable and filterable tables, curves, trade-offs,
heat maps, the exact commands, the facts of the machine, and the figures as CSV. Records are read, never changed.

Exit codes: 0 written; 1 a file cannot be written; 2 the command is wrong, or there are no records.

Example:
  sweep report results/quickstart
  sweep report results/monday results/friday --output week.html
  sweep report results/quickstart --png curves.png --pdf slides.pdf
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, printable_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sweep.storage import Record, Store

_PERCENTILES = ("p50", "p90", "p95", "p99", "p999")
_MOST_NAMES = 3  # of sweeps in a title


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folders", type=arguments.folder, nargs="+", metavar="DIR", help="folders with records")
    parser.add_argument(
        "--output",
        type=arguments.folder,
        metavar="FILE",
        help="page to write [DIR/report.html for one sweep, ./report.html for several]",
    )
    parser.add_argument("--png", type=arguments.folder, metavar="FILE", help="write the curves as a picture too")
    parser.add_argument(
        "--pdf", type=arguments.folder, metavar="FILE", help="write curves, peaks, accuracy: a page each"
    )
    parser.add_argument(
        "--percentile", choices=_PERCENTILES, help="percentile of --png and --pdf [that of the SLO, else the highest]"
    )
    arguments.add_results_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the page and the pictures; return the exit code."""
    from sweep import spec
    from sweep.analysis import start_spread
    from sweep.cli import sweep_commands
    from sweep.report import answer, common_slo, compared, html, layers, of_sweeps, slides, with_overrides
    from sweep.storage import Store

    arguments.refuse_special_files(options.output, options.png, options.pdf)
    roots = _named(_roots(options.folders, options.results))
    per_sweep = {name: _records(Store(root), name, several=len(roots) > 1) for name, root in roots.items()}
    records = [record for own in per_sweep.values() for record in own]
    if not records:
        raise ConfigError(f"{', '.join(map(str, options.folders))}: no record can be read; run a sweep first")
    answers = {
        name: answer(own, common_slo(own), start_spread.measured(Store(roots[name]), own))
        for name, own in per_sweep.items()
    }
    variants = {record.key: spec.from_record(record.variant) for record in records}
    axes = compared(records).axes
    words = {
        key: own for key, variant in variants.items() if (own := sweep_commands.words_of(variant, axes)) is not None
    }
    recommendation = with_overrides(of_sweeps(answers), words)
    commands = html.Commands(
        sweeps={
            name: command for name, root in roots.items() if (command := sweep_commands.of_folder(root)) is not None
        },
        variants={key: sweep_commands.of_sweep(own) for key, own in words.items()},
        profiles=layers.summaries(roots, records),
    )
    title = " + ".join(roots) if len(roots) <= _MOST_NAMES else f"{len(roots)} sweeps"
    page = options.output or (next(iter(roots.values())) if len(roots) == 1 else Path()) / "report.html"
    html.write(page, title, records, recommendation, commands)
    _print(f"report   {page}")
    if options.png is not None:
        slides.write_png(options.png, title, records, options.percentile)
        _print(f"png      {options.png}")
    if options.pdf is not None:
        slides.write_pdf(options.pdf, title, records, recommendation, options.percentile)
        _print(f"pdf      {options.pdf}")
    return 0


def _roots(folders: Sequence[Path], results: Path) -> list[Path]:
    """Return the folders of the sweeps that the command names, each once.

    Raises:
        ConfigError: a folder has no records, in itself or below.
    """
    from sweep.storage import folders_with_records

    roots: list[Path] = []
    for folder in folders:
        place = folder if folder.is_dir() or folder.is_absolute() else results / folder
        inner = folders_with_records(place) if place.is_dir() else []
        own = [place] if (place / "records").is_dir() else inner
        if not own:
            raise ConfigError(f"{folder}: no records there; name the folder of a sweep, such as results/NAME")
        roots += own
    return list(dict.fromkeys(roots))


def _named(roots: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by the name of the sweep, with as many parents as it takes to tell them apart."""
    resolved = {root: root.resolve().parts for root in roots}
    length = 1
    while len({parts[-length:] for parts in resolved.values()}) < len(set(resolved.values())):
        length += 1
    return {"/".join(parts[-length:]): root for root, parts in resolved.items()}


def _records(store: Store, name: str, *, several: bool) -> list[Record]:
    """Return the readable records of a sweep; of several sweeps, with its name in their keys and labels."""
    records = list(store.readable())
    damaged = len(store.record_keys()) - len(records)
    if damaged:
        sys.stderr.write(printable_line(f"sweep report: {store.root}: {damaged} records cannot be read") + "\n")
    records.sort(key=_order)
    return [_labelled(record, name) for record in records] if several else records


def _order(record: Record) -> tuple[str, str]:
    """Return what orders the rows: as the variants were measured."""
    return record.started_at, record.key


def _labelled(record: Record, name: str) -> Record:
    label = f"{name}: {record.variant.get('label', record.key)}"
    return dataclasses.replace(
        record, key=f"{name}/{record.key}", sweep=name, variant={**record.variant, "label": label}
    )


def _print(line: str) -> None:
    sys.stdout.write(printable_line(line) + "\n")

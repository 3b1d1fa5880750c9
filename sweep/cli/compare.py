"""Compare two measurements of the same variants: another driver, library, host, or the same machine later.

OLD and NEW are each a folder of a sweep or of several, the name of a sweep below the results folder, a file that
`sweep export --json` or --save wrote, or mlflow:EXPERIMENT, mlflow:EXPERIMENT/SWEEP or mlflow:RUN_ID. With --baseline
FILE in place of OLD, one argument is enough. Facts that differ are printed first; then, for each variant, the ratio of
the peaks with its interval, and what that shows; for loads that give their rates, the latency at each of them. Another
GPU, load or network is refused unless --anyway.

--fail-on takes gates, separated by commas: slower[=3%], slo, accuracy[=3dB|0.5%], memory[=5%], energy[=5%]. A variant
that ended ok in OLD and does not in NEW fails too.

Exit codes: 0 nothing fails; 1 a gate of --fail-on fails; 2 the command is wrong, or the two are not comparable.

Example:
  sweep compare driver-a driver-b --fail-on slower=3%,accuracy --markdown summary.md --junit compare.xml
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

_TWO = 2
_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("sources", nargs="*", metavar="OLD NEW", help="what to compare; NEW alone with --baseline")
    parser.add_argument("--baseline", type=arguments.folder, metavar="FILE", help="OLD: a file that --save wrote")
    parser.add_argument("--fail-on", metavar="GATES", help="end with exit code 1 on these, as slower=3%%,accuracy")
    parser.add_argument("--allow-missing", action="store_true", help="variants that NEW lacks fail no gate")
    parser.add_argument("--anyway", action="store_true", help="compare another GPU, load or network too")
    parser.add_argument("--markdown", type=arguments.folder, metavar="FILE", help="write a summary for a pull request")
    parser.add_argument("--junit", type=arguments.folder, metavar="FILE", help="write JUnit XML, a test a variant")
    parser.add_argument("--json", type=arguments.folder, metavar="FILE", help="write the comparison for scripts")
    parser.add_argument("--html", type=arguments.folder, metavar="FILE", help="draw ratios and curves over each other")
    parser.add_argument("--mlflow", metavar="EXPERIMENT", help="record it in MLflow, with a view of both sweeps' runs")
    parser.add_argument("--save", type=arguments.folder, metavar="FILE", help="write NEW as a baseline file")
    arguments.add_results_option(parser)
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")


def run(options: argparse.Namespace) -> int:
    """Compare, print and write what was requested; return the exit code."""
    from sweep.cli.console import Terminal
    from sweep.report import compare, encode_baseline, load

    places = ([options.baseline] if options.baseline else []) + options.sources
    if len(places) != _TWO:
        wanted = "--baseline FILE and NEW" if options.baseline else "OLD and NEW, or --baseline FILE and NEW,"
        raise ConfigError(f"{len(options.sources)} arguments where {wanted} are compared (--help lists the arguments)")
    gates = compare.parse_gates(options.fail_on) if options.fail_on is not None else []
    outputs = {name: getattr(options, name) for name in ("markdown", "junit", "json", "html", "save")}
    arguments.refuse_special_files(*outputs.values())
    _refuse_one_file_twice(outputs)
    for name, path in outputs.items():
        if name != "save" and path is not None and _is_one_of(path, places):
            raise ConfigError(f"--{name} {path} is one of what is compared: name another file")
    old, new = (load(place, results=options.results, uri=options.uri) for place in places)
    comparison = compare.compare(old, new, anyway=options.anyway)
    comparison = dataclasses.replace(comparison, notes=(*comparison.notes, *compare.unchecked(comparison, gates)))
    failed = compare.failures(comparison, gates, allow_missing=options.allow_missing)
    written: list[tuple[Path | None, Callable[[], bytes]]] = [
        (options.markdown, lambda: compare.as_markdown(comparison, failed).encode()),
        (options.junit, lambda: compare.as_junit(comparison, failed)),
        (options.json, lambda: compare.as_json(comparison, failed)),
        (options.html, lambda: compare.as_page(comparison, failed)),
        (options.save, lambda: encode_baseline(new)),
    ]
    is_kept = bool(failed) and options.save is not None and _is_one_of(options.save, places)
    for path, content in written:
        if path is not None and not (is_kept and path is options.save):
            arguments.write_output(path, content())
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    compare.print_comparison(console, comparison, failed)
    if options.mlflow is not None:
        from sweep.report.mlflow import resolve_uri

        recorded = compare.to_mlflow(comparison, failed, resolve_uri(options.uri, options.results), options.mlflow)
        old_count, new_count = recorded.runs
        missing = "" if old_count and new_count else "; `sweep publish` sends the sweeps' own runs there"
        console.print(
            f"MLflow   {recorded.url}\n         {old_count} runs of OLD and {new_count} of NEW in the view{missing}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if is_kept:
        line = (
            f"{options.save} stays as it was, since a gate fails: --save ANOTHER_FILE, or without --fail-on, writes it"
        )
        console.print(line, markup=False, highlight=False)
    return 1 if failed else 0


def _refuse_one_file_twice(outputs: Mapping[str, Path | None]) -> None:
    """Refuse two outputs of one name, of which the second would replace the first."""
    names: dict[Path, str] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        earlier = names.setdefault(path.resolve(), name)
        if earlier != name:
            raise ConfigError(f"--{earlier} and --{name} both name {path}: give each a file of its own")


def _is_one_of(path: Path, places: Sequence[str | Path]) -> bool:
    """Tell whether a file is one of what is compared."""
    return path.resolve() in {Path(place).resolve() for place in places}
